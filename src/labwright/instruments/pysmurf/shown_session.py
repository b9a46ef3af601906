"""A controller's session as a manager shows it: OCS's keys, some of Labwright's beside them, and never too large."""

from __future__ import annotations

import json
from typing import Any

from labwright.core.fleet import LEFT_OUT, FleetRow
from labwright.core.model import SessionSnapshot
from labwright.core.plain import to_plain
from labwright.instruments.ocs_session import encoded

MESSAGES = 5
"""How many of the newest messages are shown."""
MOST_BYTES = 4096
SMALL_BYTES = 1024
"""Of what is too large as a whole, the values that are smaller stay."""
FAILED = 6


def shown(session: SessionSnapshot, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Give a session; values that make its data larger than so many bytes stand in its own session only."""
    few = session.model_copy(update={"messages": session.messages[-MESSAGES:]})
    fields = encoded(few)
    return {
        **fields,
        "data": _lightened(to_plain(fields["data"]), most_bytes),
        "agent": session.agent,
        "state": session.state.value,
        "result": _lightened({"result": session.result}, most_bytes)["result"],
        "error": session.error.model_dump(mode="json", by_alias=True, exclude={"traceback"}) if session.error else None,
    }


def shown_in_call(operation: str, address: str, session: dict[str, Any] | None, row: FleetRow | None) -> dict[str, Any]:
    """Give what `shown` made of a session in the manager's own, with its `outcome` once that is known.

    Where there is no session (yet), the keys are there all the same.
    """
    fields = dict(session or _no_session(operation, address))
    if row is None:
        return {**fields, "outcome": None}
    if row.error is not None and fields["error"] is None:
        fields["error"] = row.error.model_dump(mode="json", by_alias=True, exclude={"traceback"})
    if session is None:
        fields |= {"status": "done", "success": False, "op_code": FAILED}
    return {**fields, "outcome": row.outcome.value}


def _lightened(values: dict[str, Any], most_bytes: int) -> dict[str, Any]:
    sizes = {name: len(json.dumps(value)) for name, value in values.items()}
    if sum(sizes.values()) <= most_bytes:
        return values
    small = min(SMALL_BYTES, most_bytes)
    return {name: value if sizes[name] <= small else {LEFT_OUT: sizes[name]} for name, value in values.items()}


def _no_session(operation: str, address: str) -> dict[str, Any]:
    fields: dict[str, Any] = dict.fromkeys(("session_id", "start_time", "end_time", "success"))
    return fields | {
        "op_name": operation,
        "op_code": 2,
        "cred_level": 1,
        "status": "starting",
        "degraded": False,
        "messages": list[Any](),
        "data": dict[str, Any](),
        "agent": address,
        **dict.fromkeys(("state", "result", "error")),
    }
