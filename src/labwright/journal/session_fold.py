"""The fold of sessions: what state a session is in after a record. Pure; shared by agents, the view and clients.

A record that does not fit, such as a word after the end, changes nothing. A session that ended as lost may be adopted:
its agent came back and found that it had gone on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from labwright.core.model import SessionMessage, SessionSnapshot, SessionState
from labwright.journal.records import Record, SessionAdopted, SessionChanged, SessionEnded, SessionStarted

MOST_MESSAGES = 1000
"""How many messages of a session are kept in its state; the log has all of them."""


def apply_session(session: SessionSnapshot | None, record: Record, session_id: str) -> SessionSnapshot | None:
    """Give the state of a session after one more record of its subject; only `session_started` may be the first."""
    match record:
        case SessionStarted() if session is None:
            return _started(session_id, record)
        case SessionChanged() if session is not None and not session.state.is_final:
            return _changed(session, record)
        case SessionAdopted() if session is not None and session.state in {SessionState.LOST, *_OPEN}:
            return session.model_copy(
                update={"state": SessionState.RUNNING, "ended_at": None, "error": None, "note": record.note or None}
            )
        case SessionEnded() if session is not None and not session.state.is_final:
            return _ended(session, record)
        case _:
            return session


def fold_session(records: Iterable[Record], session_id: str) -> SessionSnapshot | None:
    """Give the state of a session after all these records, in their order."""
    session: SessionSnapshot | None = None
    for record in records:
        session = apply_session(session, record, session_id)
    return session


def session_subject(agent: str, session_id: str) -> str:
    """Give the subject under which the records of a session stand."""
    return f"session.{encoded(agent)}.{session_id}"


def encoded(name: str) -> str:
    """Write a name as one part of a subject: a dot would begin the next part."""
    return name.replace("%", "%25").replace(".", "%2E")


def decoded(part: str) -> str:
    """Read a name back from one part of a subject."""
    return part.replace("%2E", ".").replace("%25", "%")


def appended(
    messages: tuple[SessionMessage, ...], new: tuple[SessionMessage, ...], dropped: int
) -> tuple[tuple[SessionMessage, ...], int]:
    """Put messages behind others and drop the oldest beyond what is kept; gives them and how many were dropped."""
    both = (*messages, *new)
    return both[-MOST_MESSAGES:], dropped + max(0, len(both) - MOST_MESSAGES)


def _started(session_id: str, record: SessionStarted) -> SessionSnapshot:
    return SessionSnapshot(
        id=session_id,
        agent=record.agent,
        operation=record.operation,
        kind=record.kind,
        state=SessionState.RUNNING,
        params=record.params,
        key=record.key,
        run=record.run,
        by=record.by,
        started_at=record.at,
        content=record.content,
    )


def _shown(
    session: SessionSnapshot, data: dict[str, Any] | None, messages: tuple[SessionMessage, ...]
) -> dict[str, Any]:
    kept, dropped = appended(session.messages, messages, session.messages_dropped)
    return {
        "messages": kept,
        "messages_dropped": dropped,
        "data": session.data if data is None else data,
    }


def _changed(session: SessionSnapshot, record: SessionChanged) -> SessionSnapshot:
    changes = _shown(session, record.data, record.messages)
    changes |= {"state": SessionState(record.state), "progress": record.progress or session.progress}
    return session.model_copy(update=changes)


def _ended(session: SessionSnapshot, record: SessionEnded) -> SessionSnapshot:
    changes = _shown(session, record.data, record.messages)
    changes |= {
        "state": SessionState(record.state),
        "ended_at": record.at,
        "progress": record.progress or session.progress,
        "result": record.result,
        "error": record.error,
        "note": record.note if record.note is not None else session.note,
    }
    return session.model_copy(update=changes)


_OPEN = frozenset({SessionState.STARTING, SessionState.RUNNING, SessionState.STOPPING})
