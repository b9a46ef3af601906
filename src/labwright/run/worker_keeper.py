"""The workers of a lab: a lock file for each, so that survivors of a killed `serve` are counted, not doubled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import Process
from pathlib import Path

from labwright.run.processes import lock_holder, lock_released, start_python

PARENT = "labwright.run.worker_parent"
STOP_S = 8.0
KILLED_S = 2.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
STEADY_S = 10.0
STANDARD_ERROR = 2
"""Where steps print to: the standard output of a command belongs to its answer."""


class WorkerKeeper:
    """Keeps some workers of a site up; `tied` makes them end with this process."""

    def __init__(self, folder: Path, state_dir: Path, count: int, *, tied: bool = False) -> None:
        self._folder = folder
        self._state_dir = state_dir
        self._slots = [slot_file(state_dir, number) for number in range(count)]
        self._life = os.pipe() if tied else None
        self._started: dict[Path, asyncio.Task[Process]] = {}

    async def run(self) -> None:
        """Keep them up for ever."""
        async with asyncio.TaskGroup() as group:
            for slot in self._slots:
                group.create_task(self._keep(slot))

    async def _keep(self, slot: Path) -> None:
        pause = FIRST_PAUSE_S
        while True:
            if lock_holder(slot) is not None:
                await lock_released(slot)
            began = time.monotonic()
            args = ["--site", str(self._folder), "--state", str(self._state_dir), "--slot", str(slot)]
            fds = (self._life[0],) if self._life else ()
            args += ["--life", str(self._life[0])] if self._life else []
            starting = asyncio.create_task(start_python(PARENT, args, stdout=STANDARD_ERROR, pass_fds=fds))
            self._started[slot] = starting
            process = await asyncio.shield(starting)
            await process.wait()
            pause = FIRST_PAUSE_S if time.monotonic() - began > STEADY_S else min(pause * 2, LONGEST_PAUSE_S)
            await asyncio.sleep(pause)

    async def stop(self) -> None:
        """End them all, whoever started them."""
        await asyncio.gather(*(self._stop(slot) for slot in self._slots))
        if self._life is not None:
            for descriptor in self._life:
                os.close(descriptor)
            self._life = None

    async def _stop(self, slot: Path) -> None:
        """End a worker: the one that was started here, also where it does not hold its lock yet, or a survivor."""
        if slot in self._started:
            process = await self._started[slot]
            if process.returncode is None:
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_S):
                        await process.wait()
        await asyncio.to_thread(stop_holder, slot)


def slot_file(state_dir: Path, number: int) -> Path:
    """Name the lock file of a worker."""
    return state_dir / "workers" / f"{number}.lock"


def slots_held(state_dir: Path) -> list[Path]:
    """Give the lock files that some worker holds."""
    return [path for path in sorted((state_dir / "workers").glob("*.lock")) if lock_holder(path) is not None]


def stop_holder(lock: Path, patience_s: float = STOP_S) -> None:
    """Ask the holder of a lock to end, and kill its group when it does not within that many seconds."""
    pid = lock_holder(lock)
    if not pid:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        if lock_holder(lock) is None:
            return
        time.sleep(0.02)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it leads no group of its own
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while lock_holder(lock) == pid and time.monotonic() < until + KILLED_S:
        time.sleep(0.02)
