"""A worker's parent: keeps one worker process up, and kills its whole group when it ends, however it ends.

`python -m` this module. It holds nothing but the life of its child, so it stays up when a step crashes the interpreter.
A child that is being replaced after a reload finishes what it has beside the new one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Sequence
from pathlib import Path

from labwright.run.processes import adopt_orphans, die_with_parent, hold_lock, kill_adopted, start_python

CHILD = "labwright.run.worker_process"
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 10.0
STEADY_S = 10.0
STOP_S = 6.0


class WorkerParent:
    """Keeps a worker process up until told to end."""

    def __init__(self, args: Sequence[str]) -> None:
        self._args = tuple(args)
        self._children: set[asyncio.Task[None]] = set()
        self._processes: set[Process] = set()
        self._replace = asyncio.Event()
        self._told = asyncio.Event()

    async def run(self) -> None:
        """Keep a child up."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told.set)
        loop.add_signal_handler(signal.SIGHUP, self._replace.set)
        keeper = asyncio.create_task(self._keep())
        await self._told.wait()
        keeper.cancel()
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        if self._children:
            await asyncio.wait(self._children, timeout=STOP_S)
        for process in list(self._processes):
            _kill_group(process.pid)

    async def _keep(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            self._replace.clear()
            child = asyncio.create_task(self._one())
            self._children.add(child)
            child.add_done_callback(self._children.discard)
            replaced = asyncio.create_task(self._replace.wait())
            await asyncio.wait([child, replaced], return_when=asyncio.FIRST_COMPLETED)
            replaced.cancel()
            if child.done():
                steady = time.monotonic() - began > STEADY_S
                pause = FIRST_PAUSE_S if steady else min(pause * 2, LONGEST_PAUSE_S)
                await asyncio.sleep(pause)

    async def _one(self) -> None:
        """Run one child to its end, and end what it leaves behind."""
        read, write = os.pipe()
        try:
            process = await start_python(CHILD, [*self._args, "--life", str(read)], pass_fds=(read,))
        finally:
            os.close(read)
        self._processes.add(process)
        try:
            await process.wait()
        finally:
            _kill_group(process.pid)
            os.close(write)
            self._processes.discard(process)
            if not self._processes:
                kill_adopted()


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def main() -> None:
    """Keep a worker of a site up; with `--slot`, only one process at a time does for that lock."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--site", required=True)
    parser.add_argument("--state")
    parser.add_argument("--slot", type=Path)
    parser.add_argument("--pool", action="append", default=[])
    parser.add_argument("--life", type=int)
    options = parser.parse_args()
    if options.life is not None:
        die_with_parent(options.life)
    if options.slot is not None and hold_lock(options.slot) is None:
        sys.exit(0)
    args = ["--site", options.site]
    if options.state is not None:
        args += ["--state", options.state]
    for pool in options.pool:
        args += ["--pool", pool]
    adopt_orphans()
    asyncio.run(_main(args))


async def _main(args: Sequence[str]) -> None:
    await WorkerParent(args).run()


if __name__ == "__main__":
    main()
