"""A durable step above the bare append: a task of 100 empty steps, beside appends of the same size in the same run."""

from __future__ import annotations

import asyncio
import statistics
import time

from support import ask_for, bench_lab, row, spread

from labwright.client import AsyncLab
from labwright.core.model import Step, StepState, utc_now
from labwright.journal.records import StepEnded

ROUNDS = 7
APPENDS = 100
TARGET_RATIO = 1.5


async def main() -> None:
    """Take turns."""
    appends: list[float] = []
    steps: list[float] = []
    async with bench_lab() as lab:
        await lab.wait(lab.follow_runs(await ask_for(lab, "hundred", 1)))
        for number in range(ROUNDS):
            appends.append(await _append_ms(lab, number))
            steps.append(await _step_ms(lab))
    ratio = statistics.median(step / bare for step, bare in zip(steps, appends, strict=True))
    row("journal append", statistics.median(appends), "ms", detail=spread(appends, 3))
    row("durable step", statistics.median(steps), "ms", detail=spread(steps, 3))
    row(
        "durable step / append",
        ratio,
        "x",
        at_most=TARGET_RATIO,
        detail="median of the rounds' ratios",
    )


async def _append_ms(lab: AsyncLab, number: int) -> float:
    """Append records like those of a step, one after the other, to a subject that nobody folds."""
    seq = 0
    began = time.perf_counter()
    for position in range(APPENDS):
        step = Step(
            name="nothing", position=position, state=StepState.SUCCEEDED, started_at=utc_now(), ended_at=utc_now()
        )
        seq = await lab.journal.append(f"audit.bench{number}", StepEnded(token=1, step=step), after=seq)
    return (time.perf_counter() - began) / APPENDS * 1000


async def _step_ms(lab: AsyncLab) -> float:
    """Run the task of 100 steps, and give the milliseconds of one from the moments of its first and last."""
    runs = await ask_for(lab, "hundred", 1)
    run = (await lab.wait(lab.follow_runs(runs)))[runs.runs[0]]
    first, last = run.steps[0].started_at, run.steps[-1].started_at
    assert first is not None
    assert last is not None
    return (last - first).total_seconds() / (len(run.steps) - 1) * 1000


if __name__ == "__main__":
    asyncio.run(main())
