"""Ids as people give them."""

from __future__ import annotations

from labwright.core.errors import NotFoundError
from labwright.core.ids import NAME_PATTERN


def checked_id(text: str, thing: str) -> str:
    """Refuse what cannot be the id of a run or a session, before it becomes part of a subject."""
    if NAME_PATTERN.fullmatch(text) is None or "." in text:
        message = f"there is no {thing} {text!r}"
        raise NotFoundError(
            message, because="an id has letters, digits and _ only", cure=f"see labwright {thing}s list"
        )
    return text
