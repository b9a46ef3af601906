"""Many agents in one process for `bench_presence`: each announces itself on its own connection, and does no more.

`crowd.py CONNECTION_FILE PREFIX COUNT` says `ready` once all are here, and goes on until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from labwright.agents.agent import Agent
from labwright.agents.announcing import PING_S, Announcing
from labwright.agents.description import Description
from labwright.agents.operation import AnyOperation, operations_of
from labwright.agents.serving import connection_name
from labwright.journal.connection import Address, Connection
from labwright.journal.journal import Journal

AT_ONCE = 50


class One:
    """One of the crowd, as far as it is described."""

    site: Path | None = None
    agent = Agent()
    operations: dict[str, AnyOperation] = operations_of(Agent)

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.labels: Mapping[str, str] = {"crate": str(number // 8), "slot": str(number % 8), "kind": "smurf"}


async def main(connection_file: Path, prefix: str, count: int) -> None:
    """Have them come, a few at a time, and stay."""
    places = asyncio.Semaphore(AT_ONCE)
    here = asyncio.Semaphore(0)

    async def be(number: int) -> None:
        name = f"{prefix}-{number}"
        description = Description(One(name, number))
        connection = Connection(lambda: Address.read(connection_file), name=connection_name(name), ping_s=PING_S)
        async with places:
            await connection.__aenter__()
            announcing = Announcing(Journal(connection), name, lambda: description.brief)
            running = asyncio.create_task(announcing.run())
            await announcing.may_act.wait()
        here.release()
        await running

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(be(number))
        for _ in range(count):
            await here.acquire()
        print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
