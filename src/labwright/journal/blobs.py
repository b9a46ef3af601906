"""Bodies too large for a record: cut out before it is written, brought back when somebody needs them.

In the record a large value becomes `{"$blob": name, "size": bytes, "sha256": hex}`; its JSON text lies in chunks under
`blob.<name>.<n>`, which are written first, so that a record never points at nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from pydantic_core import from_json, to_json

from labwright.core.errors import TooLargeError
from labwright.core.ids import hashed_id

RECORD_LIMIT = 256 * 1024
VALUE_LIMIT = 32 * 1024
BODY_LIMIT = 64 * 1024 * 1024
CHUNK = 512 * 1024
MARK = b'"$blob"'
HEAD = frozenset({"type", "v", "record_id", "at", "token"})
KEYS = frozenset({"$blob", "size", "sha256"})
NAME = re.compile(r"b_[0-9A-Z]{26}")

Body = tuple[str, bytes]


def spill(data: bytes, subject: str) -> tuple[bytes, list[Body]]:
    """Cut values out of an encoded record until it is at most 256 kB; gives it, and the bodies to write first.

    Raises:
        TooLargeError: one value is over 64 MB.
    """
    if len(data) <= RECORD_LIMIT:
        return data, []
    record: dict[str, Any] = from_json(data)
    cutter = _Cutter(subject, str(record.get("record_id", "")))
    head = {name: value for name, value in record.items() if name in HEAD}
    rest = {name: cutter.cut_inside(value, name) for name, value in record.items() if name not in HEAD}
    small = _dump({**head, **rest})
    if len(small) > RECORD_LIMIT:
        rest = {name: cutter.cut_whole(value, name) for name, value in rest.items()}
        small = _dump({**head, **rest})
    return small, cutter.bodies


def lighten(value: Any, subject: str, place: str) -> tuple[Any, list[Body]]:
    """Cut the large values out of a structure, and keep the structure; gives it, and the bodies to write first.

    Raises:
        TooLargeError: one value is over 64 MB.
    """
    cutter = _Cutter(subject, place)
    return cutter.cut_inside(value, "value"), cutter.bodies


def chunks(body: bytes) -> list[bytes]:
    """Cut a body into the pieces that are written as messages."""
    return [body[start : start + CHUNK] for start in range(0, len(body), CHUNK)] or [b""]


def is_mark(value: object) -> bool:
    """Tell whether a value stands for a body that lies elsewhere; what users write in that way may be anything."""
    if not isinstance(value, Mapping):
        return False
    mark = cast("Mapping[str, Any]", value)
    return (
        frozenset(mark) == KEYS
        and isinstance(mark["$blob"], str)
        and NAME.fullmatch(mark["$blob"]) is not None
        and type(mark["size"]) is int
        and 0 < mark["size"] <= BODY_LIMIT
    )


async def restore(value: Any, fetch: Callable[[Mapping[str, Any]], Awaitable[Any]]) -> Any:
    """Give the value with every mark in it replaced by what it stands for."""
    if is_mark(value):
        return await restore(await fetch(cast("Mapping[str, Any]", value)), fetch)
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {key: await restore(item, fetch) if isinstance(item, dict | list) else item for key, item in items}
    if isinstance(value, list):
        return [
            await restore(item, fetch) if isinstance(item, dict | list) else item for item in cast("list[Any]", value)
        ]
    return value


class _Cutter:
    def __init__(self, subject: str, record_id: str) -> None:
        self._place = (subject, record_id)
        self.bodies: list[Body] = []

    def cut_inside(self, value: Any, path: str) -> Any:
        """Replace what is large inside a field, and keep the field itself, whose type is known."""
        if len(_dump(value)) <= VALUE_LIMIT:
            return value
        if isinstance(value, dict):
            return {key: self.cut(item, f"{path}.{key}") for key, item in cast("dict[str, Any]", value).items()}
        if isinstance(value, list):
            return [self.cut(item, f"{path}.{index}") for index, item in enumerate(cast("list[Any]", value))]
        return value

    def cut(self, value: Any, path: str) -> Any:
        """Replace what is large inside a value; where that is not enough, replace the value."""
        return self.cut_whole(self.cut_inside(value, path), path)

    def cut_whole(self, value: Any, path: str) -> Any:
        """Replace a value if it is large."""
        body = _dump(value)
        if len(body) <= VALUE_LIMIT:
            return value
        if len(body) > BODY_LIMIT:
            message = f"{path} is too large: {len(body) / 1e6:.0f} MB"
            raise TooLargeError(
                message, because="the journal keeps values of up to 64 MB", cure="write it to a file and pass the path"
            )
        name = hashed_id("b", *self._place, path)
        self.bodies.append((name, body))
        return {"$blob": name, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def _dump(value: Any) -> bytes:
    return to_json(value)
