"""What was refused, and who has claimed what: as people read it, from the journal's records."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from labwright.access.claims import SUBJECT
from labwright.journal.journal import Journal
from labwright.journal.records import ClaimsChanged, Record, Refused
from labwright.journal.session_fold import encoded


async def audit_shown(journal: Journal, *, since: datetime | None = None, limit: int) -> list[dict[str, Any]]:
    """List refusals and changes of claims, newest first.

    Raises:
        UnreachableError, TimeoutError: the journal does not answer.
    """
    entries = [*await journal.read("audit.>"), *await journal.read(SUBJECT)]
    entries.sort(key=lambda entry: entry.seq, reverse=True)
    found = (entry for entry in entries if since is None or entry.record.at >= since)
    shown = [line for entry in found if (line := _shown(entry.subject, entry.record)) is not None]
    return shown[:limit]


def _shown(subject: str, record: Record) -> dict[str, Any] | None:
    """Show one record; what an agent's key may write is of refusals only, and by that agent."""
    at = json.loads(record.model_dump_json(include={"at"}))["at"]
    match record:
        case Refused() if _is_its_own(subject, record.agent):
            error = record.error.model_dump(mode="json", by_alias=True)
            names = {"by", "role", "origin", "agent", "what"}
            return {"at": at, "kind": "refused", **record.model_dump(mode="json", include=names), "error": error}
        case ClaimsChanged() if subject == SUBJECT:
            what = f"{record.selector}{f': {record.reason}' if record.reason else ''}"
            fields = {"by": record.by, "role": "", "origin": "", "agent": "", "what": what, "error": None}
            return {"at": at, "kind": record.did, **fields, "claim": record.claim}
        case _:
            return None


def _is_its_own(subject: str, agent: str) -> bool:
    return not subject.startswith("audit.agent.") or subject.split(".")[2] == encoded(agent)
