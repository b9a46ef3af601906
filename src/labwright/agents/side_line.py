"""A script's end of its side channel: JSON objects to the agent, reliably, and the word to end back.

Standard library only: scripts import it. Outside an agent there is nobody to talk to, and nothing happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
from typing import Any

from labwright.agents.channels import connected, message_in

SOCKET = "LABWRIGHT_SCRIPT_SOCKET"


class SideLine:
    """The side channel of this process; a fork gets one of its own."""

    def __init__(self, path: str | None = None) -> None:
        self._path = path or os.environ.get(SOCKET, "")
        self._socket: socket.socket | None = None
        self._pid = 0
        self._sending = threading.Lock()
        self._held = b""

    def say(self, message: dict[str, Any]) -> bool:
        """Send an object that JSON can say; tells whether somebody is there."""
        line = json.dumps(message).encode() + b"\n"
        with self._sending:
            peer = self._connected()
            if peer is None:
                return False
            try:
                peer.sendall(line)
            except OSError:
                return False
            return True

    def hear(self, wait_s: float | None = 0) -> list[dict[str, Any]] | None:
        """Give what has come, after waiting at most so long (None: for ever); None where nobody is there any more."""
        with self._sending:
            peer = self._connected()
        if peer is None:
            return None
        try:
            if not select.select([peer], [], [], wait_s)[0]:
                return []
            data = peer.recv(65536)
        except (OSError, ValueError):
            return None
        if not data:
            return None
        *lines, self._held = (self._held + data).split(b"\n")
        return [message_in(line) for line in lines]

    def _connected(self) -> socket.socket | None:
        if self._path and self._pid != os.getpid():
            self._pid = os.getpid()
            self._socket, self._held = None, b""
            with contextlib.suppress(OSError):
                self._socket = connected(self._path)
        return self._socket
