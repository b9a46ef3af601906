"""The keeper's two unix sockets: `side`, over which a script speaks, and `control`, over which agents follow it.

Both carry lines of JSON. Nobody who reads slowly or not at all can hold the keeper up.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
from collections.abc import Callable
from typing import Any, cast

LARGEST_MESSAGE = 96 * 1024 * 1024
READ_BYTES = 256 * 1024
LONGEST_PATH = 100
"""The kernel takes no longer path of a unix socket than 107 bytes."""


def connected(path: str) -> socket.socket:
    """Connect to a unix socket, however long its path is.

    Raises:
        OSError: nobody listens there.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = -1
    try:
        if len(os.fsencode(path)) > LONGEST_PATH:
            folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # noqa: PTH120 - light
            path = f"/proc/self/fd/{folder}/{os.path.basename(path)}"  # noqa: PTH119 - as above
        made.connect(path)
    except OSError:
        made.close()
        raise
    finally:
        if folder >= 0:
            os.close(folder)
    return made


class Channel:
    """A listening socket in the current folder and those who are connected; `take` is given each line that comes."""

    def __init__(self, selector: selectors.BaseSelector, name: str, take: Callable[[bytes], None]) -> None:
        self._selector = selector
        self._take = take
        self._peers: dict[socket.socket, bytearray] = {}
        self._said: list[bytes] = []
        self.too_large = 0
        """How many lines were dropped for their size."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108 - pathlib is not light
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(name)
        self._listener.listen(128)
        self._listener.setblocking(False)  # noqa: FBT003 - the method takes it by position only
        selector.register(self._listener, selectors.EVENT_READ, self.accept)

    def accept(self) -> None:
        """Let everybody in who waits."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.add(self._listener.accept()[0])

    def add(self, peer: socket.socket) -> None:
        """Take somebody in, and repeat to them what was said for all."""
        peer.setblocking(False)  # noqa: FBT003 - as above
        self._peers[peer] = bytearray()
        self._selector.register(peer, selectors.EVENT_READ, lambda: self._read(peer))
        for line in self._said:
            _send(peer, line)

    def say(self, message: object, *, for_all: bool = False) -> None:
        """Send a message to everybody, and with `for_all` also to those who come later."""
        line = json.dumps(message).encode() + b"\n"
        if for_all:
            self._said.append(line)
        for peer in self._peers:
            _send(peer, line)

    def drain(self) -> None:
        """Take everything that has been sent, also by those who were not let in yet."""
        self.accept()
        for peer in list(self._peers):
            while self._read(peer):
                pass

    def close(self) -> None:
        """Hang up."""
        for each in (self._listener, *self._peers):
            each.close()

    def _read(self, peer: socket.socket) -> bool:
        try:
            data = peer.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._forget(peer)
            return False
        *lines, rest = data.split(b"\n")
        held = self._peers[peer]
        for line in lines:
            self._hear(bytes(held) + line)
            held.clear()
        if len(held) <= LARGEST_MESSAGE:
            held += rest
        return True

    def _hear(self, line: bytes) -> None:
        if len(line) > LARGEST_MESSAGE:
            self.too_large += 1
        elif line:
            self._take(line)

    def _forget(self, peer: socket.socket) -> None:
        if self._peers.pop(peer, None) is not None:
            self._selector.unregister(peer)
            peer.close()


def message_in(line: bytes) -> dict[str, Any]:
    """Read a line; what is no JSON object is an empty one."""
    try:
        message: object = json.loads(line)
    except ValueError:
        return {}
    return cast("dict[str, Any]", message) if isinstance(message, dict) else {}


def _send(peer: socket.socket, line: bytes) -> None:
    """Send without waiting; who does not read misses it: a script that does not listen, an agent that wakes anyway."""
    with contextlib.suppress(OSError):
        peer.send(line)
