"""Kills the processes of a lab at moments from a seed, and starts `serve` again as a service manager would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from asyncio.subprocess import Process
from collections import Counter
from pathlib import Path

import psutil

from labwright.journal.nats_server import EmbeddedServer
from labwright.run.settings import load_settings
from labwright.run.worker_keeper import slots_held
from labwright.server import stop

KINDS = ("serve", "worker", "worker parent", "nats-server", "after a step's end", "serve and nats-server")
SERVE = (
    "import asyncio, os, sys; from pathlib import Path; from labwright.run.settings import load_settings; "
    "from labwright.server import serve; "
    "asyncio.run(serve(load_settings(Path(sys.argv[1]), os.environ), lambda text: None))"
)


class Chaos:
    """One lab under attack."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.state_dir = folder / ".labwright"
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self._serve: Process | None = None
        self._log = (folder / "serve.log").open("ab")

    async def start(self) -> None:
        """Start `serve`."""
        self._serve = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVE, str(self.folder), stdout=self._log, stderr=self._log, process_group=0
        )

    async def attack(self, kills: int, pause_s: float) -> None:
        """Kill that many times, a pause apart on average."""
        plan = [kind for _ in range(kills // len(KINDS) + 1) for kind in self.random.sample(KINDS, len(KINDS))]
        for kind in plan[:kills]:
            await asyncio.sleep(self.random.uniform(0.2, 1.8) * pause_s)
            await self._kill(kind)
            self.done[kind] += 1

    async def _kill(self, kind: str) -> None:
        if kind == "after a step's end":
            (self.folder / "deaths" / str(self.done.total())).touch()
        if kind.startswith("worker"):
            self._kill_worker(is_parent=kind == "worker parent")
        if "nats-server" in kind:
            pid = EmbeddedServer(self.state_dir).pid()
            if pid is not None:
                _kill(pid)
        if kind.startswith("serve"):
            await self.stop_serve(signal.SIGKILL)
            await self.start()

    def _kill_worker(self, *, is_parent: bool) -> None:
        parents = [int(slot.read_text() or 0) for slot in slots_held(self.state_dir)]
        if not parents:
            return
        parent = self.random.choice(parents)
        if is_parent:
            _kill(parent)
            return
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(parent).children():
                _kill(child.pid)

    async def stop_serve(self, number: int) -> None:
        """End `serve` and wait for it."""
        if self._serve is not None and self._serve.returncode is None:
            self._serve.send_signal(number)
            await self._serve.wait()

    async def close(self) -> None:
        """End everything, also what a `serve` that was killed has left."""
        await self.stop_serve(signal.SIGTERM)
        await stop(load_settings(self.folder, {}))
        self._log.close()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
