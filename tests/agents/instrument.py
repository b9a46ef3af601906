"""An agent for tests that need it in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

from labwright import Agent, BlockingSession, Session, operation, process


class Instrument(Agent):
    """Something to be controlled."""

    def __init__(self, port: str = "none", sizes: tuple[int, ...] = ()) -> None:
        self.port = port
        self.sizes = sizes

    @operation
    async def nothing(self, session: Session) -> None:
        """Do nothing."""

    @operation(at_once=100)
    async def sleep(self, session: Session, seconds: float = 60) -> str:
        """Sleep."""
        await asyncio.sleep(seconds)
        return "slept"

    @operation(timeout=60, lock="smurf", adopt=True, grace=2)
    async def run(self, session: Session, script: str, args: tuple[str, ...] = ()) -> int | None:
        """Run a script."""
        end = await session.script(script, args)
        return end.exit_code

    @operation(lock="smurf", queue=True, grace=1)
    async def turn(self, session: Session, seconds: float = 0) -> None:
        """Wait for its turn."""
        await asyncio.sleep(seconds)

    @operation(timeout=60, grace=1)
    def compute(self, session: BlockingSession, number: int, how: str = "well") -> int:
        """Compute in a child process."""
        session.update(pid=os.getpid(), port=self.port, sizes=self.sizes)
        session.log(f"computing {number}")
        while how == "hang":
            time.sleep(0.05)
        if how == "die":
            os._exit(3)
        if how == "raise":
            raise ValueError("that does not compute")
        while how == "polite":
            session.check()
            time.sleep(0.05)
        if how == "slow":
            time.sleep(3)
        return number * 2

    @operation(thread=True, grace=0.5)
    def think(self, session: BlockingSession, how: str = "well") -> str:
        """Compute in a thread."""
        session.update(how=how)
        while how == "hang":
            time.sleep(0.05)
        if how == "stone":
            end = time.monotonic() + 60
            while time.monotonic() < end:
                with contextlib.suppress(BaseException):  # it ignores everything
                    time.sleep(0.05)
        return self.port

    @process(startup=True, grace=1)
    async def watch(self, session: Session) -> None:
        """Count."""
        async for number in session.every(0.05):
            session.update(number=number)

    @operation
    async def write(self, session: Session, path: str) -> str:
        """Write and announce a file."""
        await asyncio.to_thread(Path(path).write_text, "data")
        return (await self.register_file(path, session=session.id, kind="data")).id


class Hesitant(Instrument):
    """An instrument that cannot be opened."""

    async def open(self) -> None:
        """Try for ever."""
        (self.state_dir / "opening").touch()
        await asyncio.sleep(600)


class Changed(Agent):
    """An instrument whose operation takes something else now."""

    @operation(timeout=60, lock="smurf", adopt=True, grace=2)
    async def run(self, session: Session, number: int) -> None:
        """Run nothing."""
