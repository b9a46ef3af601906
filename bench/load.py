"""A client in a process of its own, as every user's is. Each use prints one JSON object.

    load.py SITE runs COUNT       requests one at a time for the latency, then that many for the throughput
    load.py SITE events COUNT     that many events, until all are decided

The moment of a first step is what the step itself says.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from support import WRITERS, ask_for

from labwright.client import AsyncLab, connect_async
from labwright.journal.follow import follow
from labwright.journal.journal import STREAM

SINGLE = 150
DECIDED = b'"type":"decided"'


async def measure_runs(lab: AsyncLab, count: int) -> dict[str, float]:
    """Measure latency and throughput of runs."""
    waits = sorted([await _single(lab) for _ in range(SINGLE)])
    began = time.perf_counter()
    await lab.wait(lab.follow_runs(await ask_for(lab, "one", count)))
    took = time.perf_counter() - began
    return {
        "runs_per_s": count / took,
        "first_step_p50_ms": waits[SINGLE // 2],
        "first_step_p99_ms": waits[SINGLE * 99 // 100],
    }


async def measure_events(lab: AsyncLab, count: int) -> dict[str, float]:
    """Send events, and count their decisions as they come into the journal."""
    places = asyncio.Semaphore(WRITERS)
    before = await lab.journal.last_seq()

    async def send(number: int) -> None:
        async with places:
            await lab.emit({"type": "bench.event", "id": f"{before}-{number}", "data": {"kind": -1, "n": number}})

    began = time.perf_counter()
    sending = asyncio.gather(*(send(number) for number in range(count)))
    decided = 0
    async for messages in follow(lab.journal.connection, STREAM, ["event.>"], after=before):
        decided += sum(DECIDED in message.data for message in messages)
        if decided >= count:
            break
    await sending
    return {"decisions_per_s": count / (time.perf_counter() - began)}


async def main(site: str, what: str, count: int) -> None:
    """Connect, measure, print."""
    async with connect_async(site) as lab:
        print(json.dumps(await (measure_runs if what == "runs" else measure_events)(lab, count)))


async def _single(lab: AsyncLab) -> float:
    """Ask for one run, and give the milliseconds from the request's acknowledgement to its first step."""
    runs = await ask_for(lab, "one", 1)
    accepted = time.time_ns()
    ended = await lab.wait(lab.follow_runs(runs))
    return (ended[runs.runs[0]].result - accepted) / 1e6


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
