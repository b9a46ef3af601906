"""What a server and its site process say to each other: frames of JSON, errors among them, and the board.

The board is a few bytes of shared memory where a process writes what it is doing at this moment. It costs no message,
and it can still be read when the process has crashed or hangs.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
import traceback
from collections.abc import Iterator
from typing import IO, Any, cast

from pydantic_core import from_json, to_json

from labwright.core import errors
from labwright.core.errors import LabwrightError

HEAD = struct.Struct(">I")
SLOTS = struct.Struct("=QQ")
EXTRAS = ("retry_after", "position", "findings", "name")
"""What some classes of errors carry besides what all have."""


class SiteCodeError(LabwrightError):
    """The site's code raised an error that Labwright does not know."""

    kind = "bug"


def frame(message: object) -> bytes:
    """Write a message with its length before it."""
    return frame_text(to_json(message, by_alias=True))


def frame_text(text: bytes) -> bytes:
    """Write a message that is JSON already."""
    return HEAD.pack(len(text)) + text


class FrameReader:
    """Takes bytes as they come and gives whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Add bytes; yield the messages that are complete."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= HEAD.size:
            end = start + HEAD.size + HEAD.unpack_from(buffer, start)[0]
            if len(buffer) < end:
                break
            message = from_json(bytes(buffer[start + HEAD.size : end]))
            start = end
            yield message
        del buffer[:start]


def error_to_wire(error: Exception) -> dict[str, Any]:
    """Describe an error so that the other side can raise it again."""
    if not isinstance(error, LabwrightError):
        text = "".join(traceback.format_exception(error))
        message = f"the site's code failed: {type(error).__name__}: {error}"
        return {"class": SiteCodeError.__name__, "message": message, "because": "see the traceback", "note": text}
    extras = {name: getattr(error, name) for name in EXTRAS if hasattr(error, name)}
    base = {"class": type(error).__name__, "message": error.message, "because": error.because, "cure": error.cure}
    return {**base, "extras": extras}


def error_from_wire(wire: dict[str, Any]) -> LabwrightError:
    """Make the error that the other side described."""
    found: object = getattr(errors, wire["class"], SiteCodeError)
    kind = cast("type[LabwrightError]", found)
    error = kind.__new__(kind)
    LabwrightError.__init__(error, wire["message"], because=wire.get("because", ""), cure=wire.get("cure", ""))
    for name, value in wire.get("extras", {}).items():
        setattr(error, name, tuple(cast("list[Any]", value)) if isinstance(value, list) else value)
    if note := wire.get("note"):
        error.add_note(note)
    return error


class Board:
    """Shared memory that says which call a process is executing, and how many steps it has made.

    A step is what the process does between two looks at what has come in. Call 0 is none.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self._memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._steps, self.call = self.read()

    @classmethod
    def make(cls) -> Board:
        """Make a board on a file that has no name."""
        file = tempfile.TemporaryFile(prefix="labwright-board-")  # noqa: SIM115 - the board closes it
        file.truncate(mmap.PAGESIZE)
        return cls(file)

    def enter(self, call: int) -> int:
        """Write that a step of a call begins; give the call in which this happens."""
        before, self.call = self.call, call
        self._steps += 1
        SLOTS.pack_into(self._memory, 0, self._steps, call)
        return before

    def read(self) -> tuple[int, int]:
        """Give the number of steps, and the call that is being executed."""
        steps, call = SLOTS.unpack_from(self._memory, 0)
        return steps, call

    def close(self) -> None:
        """Let the memory go."""
        self._memory.close()
        self.file.close()
