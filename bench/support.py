"""What several benches share: a lab on a site of their own, and how figures are printed."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from labwright.client import AsyncLab, RequestedRuns, connect_async
from labwright.core.model import Cause
from labwright.core.request import Request
from labwright.run.requesting import requested, run_id_for
from labwright.run.settings import load_settings
from labwright.server import serving

WRITERS = 64
SITE = '''\
import time

from labwright import Request, Task, step
from labwright.conditions import event_type, fact
from labwright.decide.rules import Rule


@step
async def note_the_moment(ctx):
    """Tell when this step began, in nanoseconds."""
    return time.time_ns()


@step
async def nothing(ctx):
    """Do nothing."""


one = Task("one", steps=[note_the_moment])
hundred = Task("hundred", steps=[nothing] * 100)


def numbered(number):
    """Make one of many rules of which few match."""

    def chosen(scenario):
        yield Request("one")

    return Rule(f"bench:{number}", event_type("bench.*") & fact("kind", number % 25), chosen)
'''


def row(
    name: str, value: float, unit: str, *, at_least: float | None = None, at_most: float | None = None, detail: str
) -> None:
    """Print one figure, and whether it reaches its target where it has one."""
    fields: dict[str, object] = {"name": name, "value": round(value, 3), "unit": unit, "detail": detail}
    if at_least is not None:
        fields |= {"target": at_least, "reached": value >= at_least}
    if at_most is not None:
        fields |= {"target": at_most, "reached": value <= at_most}
    print(json.dumps(fields), flush=True)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Tell the least, the median and the greatest of some rounds."""
    figures = " / ".join(f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{figures} (min/median/max of {len(values)})"


@asynccontextmanager
async def bench_lab(extra: str = "") -> AsyncGenerator[AsyncLab]:
    """Start `serve` with one worker on a site made for benches; each of them is a process of its own, as for a user."""
    with tempfile.TemporaryDirectory(prefix="labwright-bench-", ignore_cleanup_errors=True) as folder:
        site = Path(folder)
        (site / "benchlab").mkdir()
        (site / "benchlab" / "__init__.py").write_text(SITE + extra)
        (site / "labwright.toml").write_text('[site]\npackage = "benchlab"\n')
        settings = load_settings(site, os.environ)
        async with serving(settings, tied=True) as server, connect_async(settings=settings) as lab:
            await server.dispatcher.wait_for_workers(1)
            yield lab


async def ask_for(lab: AsyncLab, task: str, count: int) -> RequestedRuns:
    """Append that many requests, 64 at a time, as a busy client would."""
    places = asyncio.Semaphore(WRITERS)

    async def one() -> tuple[str, int]:
        request = Request(task)
        record = requested(request, target=None, cause=Cause(kind="operator", id="bench"), by="bench")
        run_id = run_id_for(request, None)
        async with places:
            seq, _ = await lab.journal.create(f"run.{run_id}", record, content=record.content)
        return run_id, seq

    made = await asyncio.gather(*(one() for _ in range(count)))
    return RequestedRuns(
        runs=tuple(run_id for run_id, _ in made), targets=(None,) * count, seq=min(seq for _, seq in made)
    )


async def in_own_process(script: str, *args: object) -> dict[str, float]:
    """Run a script of this folder as a process, and give the last line that it prints."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, args)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{script} ended with {process.returncode}")
    return json.loads(said.splitlines()[-1])
