"""The relay: a UDP socket of the script's own, whose datagrams are kept and go on unchanged to where they were meant.

Linux hands a datagram over on loopback within the sender's call, so that after the script's end nothing can still be
on its way: the relay is drained as soon as its socket is empty.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable

BUFFER_BYTES = 64 * 1024 * 1024
BUFFER_FORCED = 33
"""SO_RCVBUFFORCE of Linux, for those who may; the others get what `net.core.rmem_max` allows."""
MEMORY_INFO = 55
"""SO_MEMINFO of Linux: nine counters, the last one of datagrams that found no room."""
BATCH = 64
LARGEST = 65_536


class Relay:
    """Receives for one script; `take` is given each datagram, `onward` is where it goes on to (None: nowhere)."""

    def __init__(self, onward: tuple[int, tuple[str, int]] | None, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)  # noqa: FBT003 - the method takes it by position only
        _widen(self._socket)
        self._socket.bind(("127.0.0.1", 0))
        self._onward = None if onward is None else onward[1]
        self._sender = None if onward is None else socket.socket(onward[0], socket.SOCK_DGRAM)
        if self._sender is not None:
            self._sender.setblocking(False)  # noqa: FBT003 - as above
        self.received = 0
        self.not_forwarded = 0

    @property
    def port(self) -> int:
        """Tell where the script is to send to, on loopback."""
        return int(self._socket.getsockname()[1])

    @property
    def overflowed(self) -> int:
        """Tell how many datagrams found the socket's buffer full."""
        try:
            return int(struct.unpack("9I", self._socket.getsockopt(socket.SOL_SOCKET, MEMORY_INFO, 36))[8])
        except (OSError, struct.error):
            return 0

    def fileno(self) -> int:
        """Give the descriptor to wait on."""
        return self._socket.fileno()

    def read(self) -> bool:
        """Take what has come, at most a batch; False where nothing was there."""
        batch: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while len(batch) < BATCH:
                batch.append(self._socket.recv(LARGEST))
        for datagram in batch:
            self._take(datagram)
            self._forward(datagram)
        self.received += len(batch)
        return bool(batch)

    def drain(self) -> None:
        """Take everything that has come."""
        while self.read():
            pass

    def _forward(self, datagram: bytes) -> None:
        if self._sender is None or self._onward is None:
            self.not_forwarded += 1
            return
        try:
            self._sender.sendto(datagram, self._onward)
        except OSError:
            self.not_forwarded += 1


def _widen(receiver: socket.socket) -> None:
    for option in (socket.SO_RCVBUF, BUFFER_FORCED):
        with contextlib.suppress(OSError):
            receiver.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
