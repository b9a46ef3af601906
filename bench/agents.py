"""The agent that is measured: an operation that does nothing, and one that runs scripts. Started by bench_agents.py."""

from __future__ import annotations

from labwright import Agent, Session, operation


class Bench(Agent):
    """Does nothing, quickly."""

    @operation
    async def nothing(self, session: Session) -> None:
        """Do nothing."""

    @operation(adopt=True)
    async def run(self, session: Session, script: str) -> int | None:
        """Run a script to its end."""
        return (await session.script(script)).exit_code
