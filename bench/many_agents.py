"""Serves many agents in one process, each with its name, ledger and connection: `many_agents.py STATE FIRST COUNT`.

Prints `ready` once all are here; ends with its standard input. Started by bench_fleet.py.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from agents import Bench

from labwright.agents.serving import serving
from labwright.journal.connection import Address

AT_ONCE = 20


async def main(state: Path, first: int, count: int) -> None:
    """Serve them until standard input ends."""
    places = asyncio.Semaphore(AT_ONCE)

    async def begin(stack: AsyncExitStack, number: int) -> None:
        name = f"bench-{number}"
        agent = serving(
            Bench,
            name=name,
            locate=lambda: Address.read(state / "connection.json"),
            state_dir=state,
            labels={"kind": "bench", "number": str(number)},
        )
        async with places:
            await stack.enter_async_context(agent)

    async with AsyncExitStack() as stack:
        await asyncio.gather(*(begin(stack, number) for number in range(first, first + count)))
        gc.collect()
        gc.freeze()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
