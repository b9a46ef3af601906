"""Events decided per second, end to end: appended by a client, decided by 50 rules, and the decision appended."""

from __future__ import annotations

import asyncio
import statistics

from support import bench_lab, in_own_process, row, spread

ROUNDS = 5
TARGET = 2000
EVENTS = 3000
RULES = "\n\n" + "\n".join(f"rule_{number} = numbered({number})" for number in range(50)) + "\n"


async def main() -> None:
    """Send events whose kind no rule knows, so that decisions and nothing else are measured."""
    async with bench_lab(RULES) as lab:
        rates = [
            (await in_own_process("load.py", lab.settings.folder, "events", EVENTS))["decisions_per_s"]
            for _ in range(ROUNDS)
        ]
    value = statistics.median(rates)
    row(
        "event to durable decision",
        value,
        "decisions/s",
        at_least=TARGET,
        detail=spread(rates, 0),
    )


if __name__ == "__main__":
    asyncio.run(main())
