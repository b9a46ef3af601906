"""What becomes of a script's output in its keeper: spooled up to a limit, and written to a log file where one is asked.

Nothing here can hurt the script: what finds no room, on the disk or below the limit, is dropped and counted.
"""

from __future__ import annotations

import contextlib
import os
import time

from labwright.agents.lines import LineCutter
from labwright.agents.spool import LAST, Kind, SpoolWriter, framed

READ_BYTES = 256 * 1024


class Stream:
    """One of the two pipes that a script writes to."""

    def __init__(self, kind: Kind, descriptor: int, output: Output) -> None:
        self._kind = kind
        self._descriptor = descriptor
        self._output = output
        self._cutter = LineCutter()
        self.is_at_end = False
        os.set_blocking(descriptor, False)

    def fileno(self) -> int:
        """Give the descriptor to wait on."""
        return self._descriptor

    def read(self) -> bool:
        """Take what is there; False where nothing was."""
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        self.is_at_end = not data
        if block := self._cutter.feed(data):
            self._output.take(self._kind, block)
        return bool(data)

    def drain(self) -> None:
        """Take everything that is there, and the line that never ended."""
        while self.read():
            pass
        if rest := self._cutter.rest():
            self._output.take(self._kind, rest, is_last=True)


class Output:
    """Keeps both streams together, up to a limit."""

    def __init__(self, spool: SpoolWriter, limit_bytes: int, log_file: LogFile | None) -> None:
        self._spool = spool
        self._left = limit_bytes
        self._log_file = log_file
        self.lines_dropped = 0
        self.bytes_dropped = 0

    def take(self, kind: Kind, block: bytes, *, is_last: bool = False) -> None:
        """Keep a block of a stream; with `is_last`, the line that ends the stream without an end of its own."""
        kept = self._below_limit(block)
        if len(kept) < len(block):
            self._drop(block[len(kept) :], is_last=is_last)
        if not kept:
            return
        if self._log_file is not None:
            self._log_file.write(kind, kept)
        if not self._spool.append(framed(kind, kept, time.time(), LAST if is_last else 0)):
            self._drop(kept, is_last=is_last)

    def remark(self, text: str) -> None:
        """Say something in the keeper's own name."""
        self._spool.keep(framed(Kind.KEEPER, text.encode(errors="backslashreplace"), time.time()))
        if self._log_file is not None:
            self._log_file.write(Kind.KEEPER, f"labwright: {text}\n".encode(errors="backslashreplace"))

    def _below_limit(self, block: bytes) -> bytes:
        if len(block) <= self._left:
            self._left -= len(block)
            return block
        kept = block[: block.rfind(b"\n", 0, max(self._left, 0)) + 1]
        if self._left >= 0:
            self._left = -1
            self.remark("the limit of its output is reached; what the script writes from here on is dropped")
        return kept

    def _drop(self, block: bytes, *, is_last: bool) -> None:
        self.bytes_dropped += len(block)
        self.lines_dropped += block.count(b"\n") + is_last


class LogFile:
    """A file to which both streams are appended, each line behind the time in UTC.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        self._descriptor = os.open(path, flags, 0o666)
        self._unfinished: int | None = None
        self.failures = 0
        """How often something could not be written."""

    def write(self, kind: int, block: bytes) -> None:
        """Append a block; a line that another stream left unfinished is ended first."""
        stamp = _stamp()
        text = block.removesuffix(b"\n").replace(b"\n", b"\n" + stamp)
        before = b"" if self._unfinished == kind else stamp if self._unfinished is None else b"\n" + stamp
        is_finished = block.endswith(b"\n")
        self._unfinished = None if is_finished else kind
        self._append(before + text + (b"\n" if is_finished else b""))

    def finish(self) -> None:
        """End the last line, and close the file."""
        if self._unfinished is not None:
            self._append(b"\n")
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            self.failures += 1


def _stamp() -> bytes:
    now = time.time()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return f"{moment}.{int(now * 1000) % 1000:03d}Z ".encode()
