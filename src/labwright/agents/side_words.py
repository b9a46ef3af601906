"""What a script or child process may say about its session over the side channel, and how it is done."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, cast

from labwright.agents.session import Session
from labwright.core.plain import from_plain

WORDS = frozenset({"log", "output", "update", "replace", "progress", "set_result", "note"})
"""Methods of `Session` that may be called; `{"do": word, "args": [...], "named": {...}}`."""


def follow_word(session: Session, message: Mapping[str, Any]) -> bool:
    """Do what a message says, as far as it makes sense; tells whether it was understood."""
    word = message.get("do")
    if word not in WORDS or session.state.is_final:
        return False
    args: Any = message.get("args", [])
    named: Any = message.get("named", {})
    if not isinstance(args, list) or not isinstance(named, dict):
        return False
    with contextlib.suppress(TypeError, ValueError):  # what a script sends may be anything
        given = [from_plain(value) for value in cast("list[Any]", args)]
        getattr(session, cast("str", word))(*given, **cast("dict[str, Any]", named))
        return True
    return False
