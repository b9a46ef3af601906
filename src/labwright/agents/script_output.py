"""What comes out of a script, item by item: lines, messages over its side channel, datagrams from its relay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from pydantic_core import from_json

from labwright.agents.lines import pieces
from labwright.agents.spool import Kind, Record

OutputStream = Literal["out", "err", "keeper"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of output without its end; `stream` is `keeper` where the keeper remarks something itself.

    Bytes that are no UTF-8 appear as backslash escapes. Where `is_continued`, the line was longer than 16 kB and goes
    on in the next item of its stream.
    """

    stream: OutputStream
    text: str
    at: datetime
    offset: int
    is_continued: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class SideMessage:
    """A JSON object that the script sent over its side channel."""

    message: dict[str, Any]
    at: datetime
    offset: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Datagram:
    """A datagram that the script sent to its relay."""

    data: bytes
    at: datetime
    offset: int


Item = Line | SideMessage | Datagram
"""`offset` is where to go on after this item: `Script.output(after=item.offset)`."""


def items_of(record: Record, after: int = 0) -> Iterator[Item]:
    """Give the items in a record of the spool that end behind an offset."""
    at = datetime.fromtimestamp(record.at, UTC)
    match record.kind:
        case Kind.OUT | Kind.ERR:
            stream = "out" if record.kind == Kind.OUT else "err"
            yield from _lines(record, stream, at, after)
        case Kind.KEEPER:
            yield Line(stream="keeper", text=_text(record.payload), at=at, offset=record.end)
        case Kind.MESSAGE:
            yield _message(record, at)
        case Kind.DATAGRAM:
            yield Datagram(data=record.payload, at=at, offset=record.end)
        case _:
            return


def _lines(record: Record, stream: OutputStream, at: datetime, after: int) -> Iterator[Line]:
    for piece in pieces(record.payload, is_last=record.is_last):
        offset = record.start + piece.end
        if offset > after:
            data = piece.data if piece.is_continued else piece.data.removesuffix(b"\r")
            yield Line(stream=stream, text=_text(data), at=at, offset=offset, is_continued=piece.is_continued)


def _message(record: Record, at: datetime) -> Item:
    try:
        message: object = _parsed(record.payload)
    except (ValueError, RecursionError) as error:
        message = error
    if isinstance(message, dict):
        return SideMessage(message=cast("dict[str, Any]", message), at=at, offset=record.end)
    said = _text(record.payload[:200])
    return Line(stream="keeper", text=f"a message that is no JSON object: {said}", at=at, offset=record.end)


def _parsed(payload: bytes) -> object:
    """Read JSON: quickly, as a result may be large, and else as Python does, which forgives more."""
    try:
        return from_json(payload)
    except ValueError:
        return json.loads(payload)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
