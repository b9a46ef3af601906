"""What was refused, and who has claimed what: as people read it, from the journal's records."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from labwright.access.claims import SUBJECT
from labwright.journal.journal import Journal
from labwright.journal.records import ClaimsChanged, Record, Refused


async def audit_shown(journal: Journal, *, since: datetime | None = None, limit: int) -> list[dict[str, Any]]:
    """List refusals and changes of claims, newest first.

    Raises:
        UnreachableError, TimeoutError: the journal does not answer.
    """
    entries = [*await journal.read("audit.>"), *await journal.read(SUBJECT)]
    entries.sort(key=lambda entry: entry.seq, reverse=True)
    found = (entry.record for entry in entries if since is None or entry.record.at >= since)
    shown = [line for record in found if (line := _shown(record)) is not None]
    return shown[:limit]


def _shown(record: Record) -> dict[str, Any] | None:
    at = json.loads(record.model_dump_json(include={"at"}))["at"]
    match record:
        case Refused():
            error = record.error.model_dump(mode="json", by_alias=True)
            names = {"by", "role", "origin", "agent", "what"}
            return {"at": at, "kind": "refused", **record.model_dump(mode="json", include=names), "error": error}
        case ClaimsChanged():
            what = f"{record.selector}{f': {record.reason}' if record.reason else ''}"
            fields = {"by": record.by, "role": "", "origin": "", "agent": "", "what": what, "error": None}
            return {"at": at, "kind": record.did, **fields, "claim": record.claim}
        case _:
            return None
