"""The small agent of the kill tests: an operation of every kind on one piece of hardware, which is a file."""

from __future__ import annotations

from pathlib import Path

from labwright import Agent, BlockingSession, Session, operation, process
from tests.kill import hold

SCRIPT = Path(hold.__file__)


class Machine(Agent):
    """Hardware that only one may hold."""

    def __init__(self, place: Path) -> None:
        self.place = place

    @operation(timeout=30, at_once=3, grace=1)
    async def rest(self, session: Session, seconds: float) -> float:
        """Rest on the agent's loop, without the hardware."""
        await session.sleep(seconds)
        return seconds

    @operation(timeout=60, lock="hardware", queue=True, grace=1)
    async def turn(self, session: Session, seconds: float) -> None:
        """Wait for the hardware, and hold it on the agent's loop."""
        with hold.taken(self.place, self.name, 0):
            await session.sleep(seconds)

    @operation(timeout=60, lock="hardware", grace=1)
    def block(self, session: BlockingSession, seconds: float, ways: list[str]) -> str:
        """Hold the hardware in a child process."""
        hold.hold(self.place, self.name, 0, seconds, ways)
        return session.id

    @operation(timeout=60, lock="hardware", adopt=True, grace=1)
    async def run(self, session: Session, seconds: float, ways: list[str]) -> list[int | None]:
        """Hold the hardware in two scripts, one after the other."""
        codes: list[int | None] = []
        for number in (1, 2):
            words = [self.place, self.name, number, seconds / 2, *ways]
            end = await session.script(str(SCRIPT), [str(word) for word in words])
            session.update({"ended": {str(number): end.summary}})
            codes.append(end.exit_code)
        return codes

    @process(startup=True)
    async def watch(self, session: Session) -> None:
        """Count, from the start of the agent on."""
        async for number in session.every(0.5):
            session.update(count=number)
