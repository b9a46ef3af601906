"""Fleets: an operation that does nothing on 32 and on 1 000 agents, by the client and as a run, beside OCS.

Our agents share two processes (`many_agents.py`), each with its own connection, ledger and presence; OCS's 32 are
processes of their own behind a crossbar router and are called from a thread each, as its clients do it. In the same
rounds; where OCS could not be installed, ours is measured alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from support import row, spread

from labwright.agents.fleet import Asked, FleetCall, Reach
from labwright.client import AsyncLab, connect_async
from labwright.core.ids import hashed_id, new_id
from labwright.journal.presence import watch
from labwright.plan.fan_out import FanOut
from labwright.run.settings import load_settings
from labwright.server import serving

HERE = Path(__file__).resolve().parent
OCS = HERE.parent / ".venv-ocs" / "bin" / "python"
PROCESSES = 2
ROUNDS = 3
CALLS = 20
WARM_UP = 3
FEW, MANY = 32, 1000


async def main() -> None:
    """Measure few agents beside OCS, and many."""
    ours: list[float] = []
    as_runs: list[float] = []
    theirs: list[float] = []
    for _ in range(ROUNDS):
        async with lab_with(FEW) as lab:
            ours.append(statistics.median(await called(lab, FEW, CALLS)))
            as_runs.append(statistics.median(await called_as_run(lab, CALLS)))
        theirs += await of_ocs()
    row(f"an operation on {FEW} agents", statistics.median(ours), "ms", at_most=15, detail=spread(ours))
    row("the same as a run, request to result", statistics.median(as_runs), "ms", detail=spread(as_runs))
    if theirs:
        row("the same on OCS, a thread for each agent", statistics.median(theirs), "ms", detail=spread(theirs))
        ratio = statistics.median(peer / mine for mine, peer in zip(ours, theirs, strict=True))
        row("OCS / ours", ratio, "x", detail="median of the rounds")
    async with lab_with(MANY) as lab:
        times = await called(lab, MANY, CALLS // 2)
    row(f"an operation on {MANY} agents", statistics.median(times), "ms", at_most=300, detail=spread(times))


@contextlib.asynccontextmanager
async def lab_with(count: int) -> AsyncGenerator[AsyncLab]:
    """Serve a site with so many agents."""
    with tempfile.TemporaryDirectory(prefix="labwright-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "labwright.toml").touch()
        settings = load_settings(folder, {})
        async with serving(settings, tied=True) as server, connect_async(settings=settings) as lab:
            await server.dispatcher.wait_for_workers(1)
            houses = [
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    str(HERE / "many_agents.py"),
                    str(settings.state_dir),
                    str(first),
                    str(count // PROCESSES),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
                for first in range(0, count, count // PROCESSES)
            ]
            for house in houses:
                assert house.stdout is not None
                await house.stdout.readline()
            await here(lab, count)
            yield lab
            for house in houses:
                assert house.stdin is not None
                house.stdin.close()
                await house.wait()


async def here(lab: AsyncLab, count: int) -> None:
    """Wait until so many agents are here."""
    names: set[str] = set()
    async for seen in watch(lab.journal.connection, "agent"):
        names |= {seen.name} if seen is not None else set()
        if len(names) >= count:
            return


async def called(lab: AsyncLab, count: int, calls: int) -> list[float]:
    """Call the operation on all from this process, and give the milliseconds of each call."""
    names = [f"bench-{number}" for number in range(count)]
    asked = Asked(operation="nothing", params={}, how=FanOut())
    times: list[float] = []
    for _ in range(WARM_UP + calls):
        call = new_id("call")
        reach = Reach(
            journal=lab.journal,
            sender="bench",
            session_id=lambda name, number, call=call: hashed_id("ses", call, name, number),
        )
        began = time.perf_counter()
        result = await FleetCall(reach, names, asked).run()
        times.append((time.perf_counter() - began) * 1000)
        assert result.succeeded, result.counts
        await asyncio.sleep(0.3 + count / 1000)  # the records of the sessions follow behind
    return times[WARM_UP:]


async def called_as_run(lab: AsyncLab, calls: int) -> list[float]:
    """Call the operation as `labwright call` does, by a run, and give the milliseconds of each call."""
    fleet = lab.fleet("kind=bench")
    times: list[float] = []
    for _ in range(WARM_UP + calls):
        began = time.perf_counter()
        result = await fleet.nothing()
        times.append((time.perf_counter() - began) * 1000)
        assert result.succeeded, result.counts
        await asyncio.sleep(0.3)
    return times[WARM_UP:]


async def of_ocs() -> list[float]:
    """Have OCS measured once, if it is there."""
    if not (OCS.with_name("crossbar")).exists():
        return []
    process = await asyncio.create_subprocess_exec(
        str(OCS), str(HERE / "peer_ocs.py"), str(CALLS), str(FEW), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return [json.loads(said.splitlines()[-1])["fan_out_p50_ms"]] if process.returncode == 0 else []


if __name__ == "__main__":
    asyncio.run(main())
