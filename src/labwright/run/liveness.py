"""Who of the workers is alive: told by the kernel on this host, by presence elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable

import psutil

from labwright.core.errors import UnreachableError
from labwright.core.logs import get_logger
from labwright.journal.connection import Connection, NoResponderError
from labwright.journal.presence import ProcessIdentity, start_of

PING_S = 2.0

log = get_logger(__name__)


class Liveness:
    """Watches worker processes, and calls `gone(name)` once for each that has certainly ended."""

    def __init__(self, connection: Connection, gone: Callable[[str, str], None], lease_s: float) -> None:
        self._connection = connection
        self._gone = gone
        self._lease_s = lease_s
        self._watched: dict[str, int] = {}
        self._silent: dict[str, asyncio.Task[None]] = {}
        self._ended: set[str] = set()
        self._suspended_until = 0.0

    def watch(self, name: str) -> None:
        """Begin to watch a worker that has an attempt open, or has announced itself."""
        if name in self._watched or name in self._ended:
            return
        identity = ProcessIdentity.parse(name)
        if identity is None or not identity.is_here:
            return
        try:
            descriptor = os.pidfd_open(identity.pid)
        except OSError:
            self._end(name, "its process has ended")
            return
        if not identity.is_alive:
            os.close(descriptor)
            self._end(name, "its process has ended")
            return
        self._watched[name] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._seen_ending, name)

    def silent(self, name: str) -> None:
        """Note that a worker's presence has run out; after a whole lease and an unanswered ping it is given up."""
        if name not in self._silent and name not in self._ended:
            self._silent[name] = asyncio.create_task(self._outwait(name))

    def heard(self, name: str) -> None:
        """Note that a worker is here."""
        task = self._silent.pop(name, None)
        if task is not None:
            task.cancel()
        self.watch(name)

    def suspend(self, seconds: float) -> None:
        """Give nobody up by silence for that long, as after a step of the clock."""
        self._suspended_until = max(self._suspended_until, time.monotonic() + seconds)

    def close(self) -> None:
        """Stop watching."""
        for task in self._silent.values():
            task.cancel()
        for name in list(self._watched):
            self._unwatch(name)

    async def _outwait(self, name: str) -> None:
        """Give a worker up after a whole lease on one connection and an unanswered ping; `heard` ends the waiting."""
        while True:
            await self._connection.wait_connected()
            generation = self._connection.generation
            await asyncio.sleep(self._lease_s)
            if self._is_busy(name):
                log.warning("a worker is silent, and its process lives: a step may hold the interpreter", worker=name)
                continue
            is_same = generation == self._connection.generation
            if not await self._answers(name) and is_same and time.monotonic() >= self._suspended_until:
                break
        self._kill(name)
        self._silent.pop(name, None)
        self._end(name, f"it was silent for {self._lease_s:g} s and did not answer")

    @staticmethod
    def _is_busy(name: str) -> bool:
        """Tell whether a silent worker is a process of this host that runs: then only deadlines end its steps."""
        identity = ProcessIdentity.parse(name)
        if identity is None or not identity.is_here or not identity.is_alive:
            return False
        with contextlib.suppress(psutil.Error):
            return psutil.Process(identity.pid).status() not in {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP}
        return False

    async def _answers(self, name: str) -> bool:
        """Ping a worker; where the connection is lost meanwhile nothing is known, so it counts as answered."""
        try:
            await self._connection.request(f"worker.{name}.ping", timeout_s=PING_S)
        except (NoResponderError, TimeoutError):
            return False
        except UnreachableError:
            return True
        return True

    def _kill(self, name: str) -> None:
        """End a process of this host that answers no more: only then may others go on with what it held."""
        identity = ProcessIdentity.parse(name)
        if identity is not None and identity.is_here and identity.is_alive:
            log.warning("killing a worker that does not answer", worker=name)
            with contextlib.suppress(OSError):
                os.kill(identity.pid, signal.SIGKILL)

    def _seen_ending(self, name: str) -> None:
        self._unwatch(name)
        self._end(name, "its process has ended")

    def _unwatch(self, name: str) -> None:
        descriptor = self._watched.pop(name, None)
        if descriptor is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def _end(self, name: str, reason: str) -> None:
        self._unwatch(name)
        self._kill_group(name)
        self._ended.add(name)
        self._gone(name, reason)

    @staticmethod
    def _kill_group(name: str) -> None:
        """End what a dead worker's steps have started on this host, before others go on with its runs."""
        identity = ProcessIdentity.parse(name)
        if identity is not None and identity.is_here and start_of(identity.pid) in {None, identity.start}:
            with contextlib.suppress(OSError):
                os.killpg(identity.pid, signal.SIGKILL)

    def is_ended(self, name: str) -> bool:
        """Tell whether that worker is known to have ended."""
        return name in self._ended
