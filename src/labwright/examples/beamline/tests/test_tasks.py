"""Whole tasks run in memory: sleeps, waits and retries included, and killed at every moment that matters."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from beamline import simulated
from beamline.tasks import archive, find_crystal, make_room, reduce
from labwright import Request, Task
from labwright.testing import FakeContext, crash_after_every_step, run_every_step_twice, run_task

MakeContext = Callable[..., FakeContext]


@pytest.fixture(autouse=True)
def _quick_hardware(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Let the simulated hardware answer at once: a rehearsal does not wait, so files would never grow old enough."""
    monkeypatch.setattr(simulated, "WRITING_S", 0)
    monkeypatch.setattr(simulated, "MOUNTING_S", 0)


def test_a_reduction_writes_results_and_asks_for_their_archiving(context: MakeContext) -> None:
    ctx = context()

    run = asyncio.run(run_task(reduce, ctx, params={"dcid": 7, "images": 10, "visit": "mx12345-6"}))

    assert run.state == "succeeded"
    assert run.result["spots"] > 0
    assert ctx.spawned == [
        Request("archive", dcid=7, visit="mx12345-6", file=run.result["file"], priority=-1),
    ]


def test_archiving_waits_for_the_tape(context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "MOUNTING_S", 3600)  # the robot is slow, so every attempt fails softly

    run = asyncio.run(run_task(archive, context(), params={"dcid": 7, "visit": "mx12345-6", "file": "results.json"}))

    assert run.state == "failed"
    assert run.error is not None
    assert (run.error.kind, run.attempt) == ("transient", 10)


def test_a_host_with_nothing_to_remove_is_still_looked_at(context: MakeContext) -> None:
    run = asyncio.run(run_task(make_room, context(keep_collections=2, disks_since=2016)))

    assert [step.state for step in run.steps] == ["skipped", "succeeded"]
    assert run.finding


@pytest.mark.parametrize(
    ("task", "params"),
    [
        (reduce, {"dcid": 7, "images": 4, "visit": "mx12345-6"}),
        (find_crystal, {"dcid": 8, "images": 6, "rows": 3}),
    ],
)
def test_a_task_survives_a_crash_after_every_step(context: MakeContext, task: Task, params: dict[str, object]) -> None:
    report = asyncio.run(crash_after_every_step(task, context, params=params, same_result=False))

    assert len(report.crashes) > len(task.steps)


def test_every_step_of_the_archive_may_run_twice(context: MakeContext, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.touch()
    params = {"dcid": 7, "visit": "mx12345-6", "file": str(results)}

    asyncio.run(run_every_step_twice(archive, context, params=params, same_result=False))
