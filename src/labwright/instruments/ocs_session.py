"""A session as OCS's agents encode it: a dictionary with their keys, for their clients and for what shows sessions."""

from __future__ import annotations

import math
import time
from typing import Any, cast

from labwright.core.model import SessionSnapshot, SessionState
from labwright.core.plain import from_plain

OP_CODES = {
    SessionState.STARTING: 2,
    SessionState.RUNNING: 3,
    SessionState.STOPPING: 4,
    SessionState.SUCCEEDED: 5,
    SessionState.FAILED: 6,
    SessionState.ABORTED: 6,
    SessionState.LOST: 7,
}


def encoded(session: SessionSnapshot) -> dict[str, Any]:
    """Give a session as OCS's dictionary; `session_id` is Labwright's, which is text and unique for good."""
    state = session.state
    messages = [[message.at.timestamp(), message.text] for message in session.messages]
    if session.error is not None:
        ended_at = session.ended_at.timestamp() if session.ended_at else time.time()
        word = "CRASH" if session.error.kind == "bug" else "ERROR"
        messages.append([ended_at, f"{word}: {session.error.message}"])
    return {
        "session_id": session.id,
        "op_name": session.operation,
        "op_code": OP_CODES[state],
        "cred_level": 1,
        "status": "done" if state.is_final else state.value,
        "degraded": False,
        "success": state is SessionState.SUCCEEDED if state.is_final else None,
        "start_time": session.started_at.timestamp(),
        "end_time": session.ended_at.timestamp() if session.ended_at else None,
        "messages": messages,
        "data": _values(from_plain(session.data)),
    }


def _values(value: Any) -> Any:
    """Give data as OCS does: no number is null."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {name: _values(item) for name, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_values(item) for item in cast("list[Any]", value)]
    return value
