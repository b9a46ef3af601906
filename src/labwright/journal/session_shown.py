"""A session as people and programs see it: the one JSON shape, and `lost` while its agent is absent."""

from __future__ import annotations

from typing import Any

from labwright.core.model import ErrorRecord, SessionSnapshot, SessionState

HIDDEN = frozenset({"content"})


def session_fields(session: SessionSnapshot, *, is_here: bool = True) -> dict[str, Any]:
    """Give a session as its JSON has it; `is_here` tells whether its agent is."""
    shown = session if is_here else as_lost(session)
    return shown.model_dump(mode="json", by_alias=True, exclude=set(HIDDEN))


def as_lost(session: SessionSnapshot) -> SessionSnapshot:
    """Give an open session whose agent is absent as lost, with what is known of it; one that has ended as it is.

    Nothing is recorded by that: the agent may come back and find that the session has gone on.
    """
    if session.state.is_final:
        return session
    error = ErrorRecord.model_validate(
        {
            "kind": "lost",
            "message": f"the agent {session.agent} is not here",
            "because": f"it was {session.state} when the agent was last heard of",
            "try": "start the agent again: it takes up what goes on, and ends the rest",
        }
    )
    return session.model_copy(update={"state": SessionState.LOST, "error": error})
