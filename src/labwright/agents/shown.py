"""A session as people and programs see it: the one JSON shape, and `lost` while its agent is absent."""

from __future__ import annotations

from typing import Any

from labwright.agents.following import shown_lost
from labwright.core.model import SessionSnapshot

HIDDEN = frozenset({"content"})


def session_fields(session: SessionSnapshot, *, is_here: bool = True) -> dict[str, Any]:
    """Give a session as its JSON has it; `is_here` tells whether its agent is.

    An open session of an absent agent is shown as lost, with what is known. Nothing is recorded by that: the agent may
    come back and find that the session has gone on.
    """
    shown = session if is_here else shown_lost(session)
    return shown.model_dump(mode="json", by_alias=True, exclude=set(HIDDEN))
