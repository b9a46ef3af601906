"""The spool of a script: an append-only file of framed records, so that any bytes survive and a torn end is seen.

The keeper alone writes it, whoever follows the script reads it by offset. A frame is a header, a check sum and the
payload; a reader stops at the first frame that is not whole, which is one still being written, or torn by a crash.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections import deque
from enum import IntEnum
from typing import NamedTuple

MAGIC = b"LW"
HEAD = struct.Struct("<2sBBId")
CHECK = struct.Struct("<I")
FRAME_BYTES = HEAD.size + CHECK.size
LAST = 1
"""The flag of the record that ends a stream of output."""
WAITING_BYTES = 128 * 1024 * 1024


class Kind(IntEnum):
    """What the payload of a record is."""

    OUT = 1
    ERR = 2
    KEEPER = 3
    """A remark of the keeper itself."""
    MESSAGE = 4
    """One line of JSON from the side channel."""
    DATAGRAM = 5


class Record(NamedTuple):
    """One record as it was read; its payload stands in the file from `start` to `end`."""

    kind: int
    flags: int
    at: float
    payload: bytes
    start: int
    end: int

    @property
    def is_last(self) -> bool:
        """Tell whether nothing more comes from this stream."""
        return bool(self.flags & LAST)


def framed(kind: int, payload: bytes, at: float, flags: int = 0) -> bytes:
    """Give the bytes of one record; `at` is in seconds since 1970."""
    head = HEAD.pack(MAGIC, kind, flags, len(payload), at)
    return b"".join((head, CHECK.pack(zlib.crc32(payload, zlib.crc32(head))), payload))


def read_record(descriptor: int, offset: int) -> Record | None:
    """Read the record whose frame begins at this offset; None where there is no whole one (yet)."""
    frame = os.pread(descriptor, FRAME_BYTES, offset)
    if len(frame) < FRAME_BYTES or not frame.startswith(MAGIC):
        return None
    _, kind, flags, length, at = HEAD.unpack_from(frame)
    (check,) = CHECK.unpack_from(frame, HEAD.size)
    start = offset + FRAME_BYTES
    if os.fstat(descriptor).st_size < start + length:
        return None
    payload = _read(descriptor, start, length)
    if zlib.crc32(payload, zlib.crc32(frame[: HEAD.size])) != check:
        return None
    return Record(kind, flags, at, payload, start, start + length)


def frame_of(descriptor: int, position: int) -> int:
    """Give the offset of the frame in which a position stands; at the end of a frame, that of the next one."""
    offset = 0
    while offset < position:
        frame = os.pread(descriptor, HEAD.size, offset)
        if len(frame) < HEAD.size or not frame.startswith(MAGIC):
            return offset
        end = offset + FRAME_BYTES + HEAD.unpack(frame)[3]
        if position < end:
            return offset
        offset = end
    return offset


def _read(descriptor: int, start: int, length: int) -> bytes:
    parts: list[bytes] = []
    while length and (part := os.pread(descriptor, length, start)):
        parts.append(part)
        start += len(part)
        length -= len(part)
    return b"".join(parts)


class SpoolWriter:
    """Appends records to a new file; what does not fit on the disk is refused whole, so that it stays readable.

    Raises:
        FileExistsError: the file is there already; who made it may have started the script.
    """

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        self._size = 0
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self.lost = 0
        """How many records that should have been kept found no room."""

    @property
    def is_waiting(self) -> bool:
        """Tell whether records wait for room on the disk."""
        return bool(self._waiting)

    def append(self, frame: bytes) -> bool:
        """Write a record behind those that wait; False where there is no room for it."""
        return self.retry() and self._write(frame)

    def keep(self, frame: bytes) -> None:
        """Write a record, or hold it in memory until there is room for it."""
        if self.append(frame):
            return
        if self._waiting_bytes + len(frame) > WAITING_BYTES:
            self.lost += 1
            return
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)

    def retry(self) -> bool:
        """Write what waits; True where nothing waits any more."""
        while self._waiting and self._write(self._waiting[0]):
            self._waiting_bytes -= len(self._waiting.popleft())
        return not self._waiting

    def finish(self) -> None:
        """Write what still waits, or count it as lost."""
        if not self.retry():
            self.lost += len(self._waiting)
            self._waiting.clear()

    def sync(self) -> None:
        """Bring everything to the disk and close the file."""
        with contextlib.suppress(OSError):
            os.fsync(self._descriptor)
        os.close(self._descriptor)

    def _write(self, frame: bytes) -> bool:
        rest = memoryview(frame)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            return False
        self._size += len(frame)
        return True
