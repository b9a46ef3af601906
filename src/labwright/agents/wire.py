"""Agents on the wire: the subjects of commands, and sessions and errors as replies carry them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from pydantic_core import to_json

from labwright.core.errors import LabwrightError, ParameterError
from labwright.core.fleet import LEFT_OUT
from labwright.core.model import ErrorRecord, SessionSnapshot
from labwright.journal.session_fold import encoded

NO_OPERATION = "_"
"""In place of an operation in the subject of a command that is about the agent or about a session by its id."""
MOST_BYTES = 512 * 1024
"""A reply is not larger: what is too large is left out, and stands in the journal."""
FIELD_BYTES = 96 * 1024
REMEMBERED_BYTES = 64
MESSAGES_SHOWN = 20
ENDED = "ended"
"""The field of the last line of a session's log; its value is the state."""


def subject_part(text: str) -> str:
    """Write any text as one part of a subject."""
    return quote(text, safe="@:+=$,!~").replace(".", "%2E").replace("~", "%7E") or "%"


def part_text(part: str) -> str:
    """Read a text back from one part of a subject."""
    return "" if part == "%" else unquote(part, errors="replace")


def command_subject(sender: str, agent: str, operation: str | None) -> str:
    """Give the subject on which an agent takes a command."""
    last = NO_OPERATION if operation is None else subject_part(operation)
    return f"command.{subject_part(sender)}.{encoded(agent)}.{last}"


def shortened(session: SessionSnapshot) -> bytes:
    """Write a session as JSON that fits into one message: large values are left out, and old messages."""
    body = session.model_dump_json(by_alias=True).encode()
    if len(body) <= MOST_BYTES:
        return body
    return _light(session, MESSAGES_SHOWN, FIELD_BYTES).model_dump_json(by_alias=True).encode()


def remembered(session: SessionSnapshot) -> str:
    """Write the little that is kept for long of a session that has ended; the journal has all of it."""
    light = _light(session, 0, REMEMBERED_BYTES)
    if light.error is not None:
        light = light.model_copy(update={"error": light.error.model_copy(update={"traceback": ""})})
    return light.model_dump_json(by_alias=True, exclude_defaults=True)


def _light(session: SessionSnapshot, messages: int, most_bytes: int) -> SessionSnapshot:
    """Leave out values that are larger than so many bytes, and all but the newest messages."""
    shown = session.messages[max(0, len(session.messages) - messages) :]
    dropped = session.messages_dropped + len(session.messages) - len(shown)
    light: dict[str, Any] = {"messages": shown, "messages_dropped": dropped}
    light |= {name: {LEFT_OUT: size} for name, size in _sizes(session).items() if size > most_bytes}
    return session.model_copy(update=light)


def _sizes(session: SessionSnapshot) -> dict[str, int]:
    """Tell how many bytes of JSON each value has that may be large."""
    return {name: len(to_json(getattr(session, name))) for name in ("params", "data", "result")}


def session_reply(session: SessionSnapshot | None, **more: Any) -> bytes:
    """Write the reply that shows a session, or none."""
    rest = json.dumps(more)[1:]
    shown = b"null" if session is None else shortened(session)
    return b'{"session": ' + shown + (b", " if more else b"") + rest.encode()


def error_reply(error: LabwrightError, session: SessionSnapshot | None = None) -> bytes:
    """Write the reply that tells why a command was not followed."""
    findings = list(error.findings) if isinstance(error, ParameterError) else []
    body: dict[str, Any] = {
        "error": ErrorRecord.of(error).model_dump(mode="json", by_alias=True),
        "exit_code": error.exit_code,
        "findings": [finding[:1000] for finding in findings[:100]],
    }
    return session_reply(session, **body)


def is_left_out(session: Mapping[str, Any]) -> bool:
    """Tell whether a session from a reply lacks a value that was too large for it."""
    return any(
        isinstance(value, dict) and value.keys() == {LEFT_OUT}
        for value in (session.get(name) for name in ("params", "data", "result"))
    )
