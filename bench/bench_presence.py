"""Presence at scale: what 1 000 and 5 000 agents that are merely here cost, and how soon a killed one is seen as gone.

nats-server and `serve` are processes of their own, as for a user. The agents share a few processes, each with its own
connection and the code by which every agent announces itself; what they cost is not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import psutil
from support import row, spread

from labwright.client import AsyncLab, connect_async
from labwright.journal.connection import Address, Connection
from labwright.journal.presence import watch
from labwright.run.settings import load_settings

HERE = Path(__file__).resolve().parent
CROWDS = ((1000, 5.0, 70.0), (5000, 20.0, 90.0))
"""How many agents, the most that nats-server and `serve` may take together in percent of a core, and for how many
seconds they settle before that is measured: very many slow down."""
SHARING = 4
"""So many processes share the agents."""
MEASURE_S = 20.0
KILLS = 3
VICTIMS = 10
GONE_S = 3.0


async def main() -> None:
    """Measure each crowd on a lab of its own."""
    for count, most, settle_s in CROWDS:
        async with served() as (lab, pids), crowd(lab, count) as victims:
            await asyncio.sleep(settle_s)
            await cost(count, most, pids)
            await listing(lab, count)
            await deaths(lab, count, victims)


@contextlib.asynccontextmanager
async def served() -> AsyncGenerator[tuple[AsyncLab, list[int]]]:
    """Start `serve`, and give the lab and the pids of `serve` and nats-server."""
    with tempfile.TemporaryDirectory(prefix="labwright-bench-", ignore_cleanup_errors=True) as folder:
        site = Path(folder)
        (site / "labwright.toml").write_text("[workers]\nprocesses = 0\n")
        labwright = str(Path(sys.executable).with_name("labwright"))
        process = await asyncio.create_subprocess_exec(labwright, "serve", "--json", cwd=site, stdout=PIPE)
        try:
            assert process.stdout is not None
            await process.stdout.readline()
            settings = load_settings(site, os.environ)
            async with connect_async(settings=settings) as lab:
                status = await lab.ask("status")
                yield lab, [status["pid"], status["nats_pid"]]
        finally:
            process.terminate()
            await process.wait()


@contextlib.asynccontextmanager
async def crowd(lab: AsyncLab, count: int) -> AsyncGenerator[dict[str, Process]]:
    """Have that many agents be here; gives the processes of those that may be killed, by how their names begin."""
    began = time.perf_counter()
    victims = [f"v{number}" for number in range(KILLS)]
    sizes = {f"c{number}": count // SHARING for number in range(SHARING)}
    sizes["c0"] -= KILLS * VICTIMS
    sizes |= dict.fromkeys(victims, VICTIMS)
    async with contextlib.AsyncExitStack() as stack:
        coming = (stack.enter_async_context(some(lab, prefix, size)) for prefix, size in sizes.items())
        processes = dict(zip(sizes, await asyncio.gather(*coming), strict=True))
        print(f"{count} agents came in {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
        yield {prefix: processes[prefix] for prefix in victims}


@contextlib.asynccontextmanager
async def some(lab: AsyncLab, prefix: str, count: int) -> AsyncGenerator[Process]:
    """Have some agents be here, in one process."""
    connection_file = lab.settings.state_dir / "connection.json"
    command = (str(HERE / "crowd.py"), str(connection_file), prefix, str(count))
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=PIPE)
    try:
        assert process.stdout is not None
        said = await process.stdout.readline()
        assert said == b"ready\n", said
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def cost(count: int, most: float, pids: list[int]) -> None:
    """Take the processor time of both over a while."""
    before, began = [seconds(pid) for pid in pids], time.monotonic()
    await asyncio.sleep(MEASURE_S)
    took = time.monotonic() - began
    serve, nats = (100 * (seconds(pid) - was) / took for pid, was in zip(pids, before, strict=True))
    detail = f"serve {serve:.1f} %, nats-server {nats:.1f} %"
    row(f"{count} agents present", serve + nats, "% of a core", at_most=most, detail=detail)


def seconds(pid: int) -> float:
    """Tell how much processor time a process has taken."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


async def listing(lab: AsyncLab, count: int) -> None:
    """List all that are here; on a machine that is too busy some may just be away."""
    times: list[float] = []
    listed: list[int] = []
    for _ in range(5):
        began = time.perf_counter()
        listed.append(len(await lab.agents()))
        times.append((time.perf_counter() - began) * 1000)
    detail = f"{spread(times, 0)}, {min(listed)} of them listed"
    row(f"list of {count} agents", statistics.median(times), "ms", detail=detail)


async def deaths(lab: AsyncLab, count: int, victims: Mapping[str, Process]) -> None:
    """Kill processes with a few agents, and tell when the last of each is seen as gone, by push and by `serve`."""
    pushed: list[float] = []
    served: list[float] = []
    for prefix, process in victims.items():
        watching = asyncio.create_task(all_gone(lab, prefix))
        await asyncio.sleep(2)
        began = time.monotonic()
        process.kill()
        asking = asyncio.create_task(not_told(lab, prefix))
        pushed.append(await asyncio.wait_for(watching, 30) - began)
        served.append(await asyncio.wait_for(asking, 30) - began)
    most = GONE_S if count == CROWDS[0][0] else None
    row(f"a killed one of {count} is gone, pushed", max(pushed), "s", at_most=most, detail=spread(pushed))
    row(f"a killed one of {count} is gone for serve", max(served), "s", at_most=most, detail=spread(served))


async def all_gone(lab: AsyncLab, prefix: str) -> float:
    """Watch as any process does; gives the moment at which the last was told to be gone."""
    here: set[str] = set()
    async with Connection(lambda: Address.read(lab.settings.state_dir / "connection.json")) as connection:
        async for seen in watch(connection, "agent"):
            if seen is None or not seen.name.startswith(f"{prefix}-"):
                continue
            if seen.body is not None:
                here.add(seen.name)
            else:
                here.discard(seen.name)
                if not here:
                    break
    return time.monotonic()


async def not_told(lab: AsyncLab, prefix: str) -> float:
    """Ask `serve` until none is told any more; gives that moment."""
    while True:
        if not any(agent["name"].startswith(f"{prefix}-") for agent in await lab.ask("agents")):
            return time.monotonic()
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main())
