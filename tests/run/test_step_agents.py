"""Steps that use agents: bound to their run, found again after a crash, begun anew after a failure, aborted with it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from labwright import Agent, Session, operation
from labwright.agents.serving import serving as serving_agent
from labwright.client import AsyncLab, connect_async
from labwright.core.errors import TransientError
from labwright.core.model import Run, RunState, SessionState
from labwright.core.request import Request
from labwright.run.engine import locator
from labwright.run.settings import load_settings
from labwright.server import serving

pytestmark = pytest.mark.timeout(90)
LONG_S = 30.0
PACKAGE = """\
import os
from pathlib import Path

from labwright import Retry, Task, step

PLACE = Path(__file__).resolve().parent.parent


@step
async def measure(ctx, how: str = "well"):
    session = await ctx.agent("bench-1").measure.start(how=how)
    with (PLACE / "started.txt").open("a") as file:
        file.write(f"{session.id} {os.getpid()}\\n")
    return (await session.succeeded()).result


@step
def blocking(ctx):
    return ctx.agent("bench-1").count().result


@step
async def twice(ctx):
    agent = ctx.agent("bench-1")
    return [(await agent.count()).result, (await agent.count()).result]


retry = Retry(attempts=3, first=0.05, jitter=0)
one = Task("measure", steps=[measure], retry=retry)
two = Task("blocking", steps=[blocking], retry=retry)
three = Task("twice", steps=[twice], retry=retry)
"""


class Bench(Agent):
    """An agent in the process of the test, which sees what it does."""

    def __init__(self) -> None:
        self.counted = 0
        self.measured: list[str] = []
        self.go = asyncio.Event()

    @operation(lock="bench")
    async def measure(self, session: Session, how: str) -> int:
        """Measure until the test says go."""
        self.measured.append(session.id)
        if how == "later" and len(self.measured) == 1:
            raise TransientError("not warm yet")
        if how == "broken":
            raise ValueError("a wire is broken")
        if how == "wait":
            await self.go.wait()
        return len(self.measured)

    @operation
    async def count(self, session: Session) -> int:
        """Count calls."""
        self.counted += 1
        return self.counted


class Here:
    def __init__(self, folder: Path, lab: AsyncLab, bench: Bench) -> None:
        self.folder = folder
        self.lab = lab
        self.bench = bench

    async def run(self, task: str, **params: object) -> Run:
        requested = await self.lab.request(Request(task, params=params))
        return (await self.lab.wait(self.lab.follow_runs(requested), timeout_s=LONG_S))[requested.runs[0]]

    async def started(self) -> list[list[str]]:
        """Wait until a step has started a session, and give what was started, and by whom."""
        async with asyncio.timeout(LONG_S):
            while not (self.folder / "started.txt").exists():
                await asyncio.sleep(0.01)
        return [line.split() for line in (self.folder / "started.txt").read_text().splitlines()]


@asynccontextmanager
async def a_lab(folder: Path) -> AsyncGenerator[Here]:
    (folder / "steplab").mkdir(parents=True)
    (folder / "steplab" / "__init__.py").write_text(PACKAGE)
    (folder / "labwright.toml").write_text('[site]\npackage = "steplab"\n')
    settings = load_settings(folder, {})
    bench = Bench()
    async with (
        serving(settings, tied=True),
        connect_async(settings=settings) as lab,
        serving_agent(bench, name="bench-1", locate=locator(settings), state_dir=folder / ".labwright"),
    ):
        yield Here(folder, lab, bench)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncGenerator[Here]:
    async with a_lab(tmp_path / "site") as here:
        yield here


async def test_a_step_calls_an_agent_and_its_session_names_the_run(here: Here) -> None:
    run = await here.run("measure", how="well")
    assert (run.state, run.result) == (RunState.SUCCEEDED, 1)
    (session_id,) = here.bench.measured
    session = await here.lab.session_shown(session_id)
    assert (session["run"], session["operation"], session["state"]) == (run.id, "measure", "succeeded")


async def test_a_blocking_step_does_the_same(here: Here) -> None:
    run = await here.run("blocking")
    assert (run.state, run.result) == (RunState.SUCCEEDED, 1)


async def test_two_calls_in_one_step_are_two_sessions(here: Here) -> None:
    assert (await here.run("twice")).result == [1, 2]


async def test_a_step_repeated_after_a_crash_finds_the_session_that_it_had_started(here: Here) -> None:
    requested = await here.lab.request(Request("measure", how="wait"))
    ((first, worker),) = await here.started()
    os.kill(int(worker), signal.SIGKILL)
    async with asyncio.timeout(LONG_S):
        while len(lines := await here.started()) < 2:
            await asyncio.sleep(0.01)
    assert [line[0] for line in lines] == [first, first]
    here.bench.go.set()
    run = (await here.lab.wait(here.lab.follow_runs(requested), timeout_s=LONG_S))[requested.runs[0]]
    assert (run.state, here.bench.measured) == (RunState.SUCCEEDED, [first])


async def test_a_step_tried_again_after_a_transient_failure_begins_anew(here: Here) -> None:
    run = await here.run("measure", how="later")
    assert (run.state, run.result) == (RunState.SUCCEEDED, 2)
    assert len(set(here.bench.measured)) == 2


async def test_a_run_retried_by_hand_begins_anew(here: Here) -> None:
    run = await here.run("measure", how="broken")
    assert run.state is RunState.FAILED
    assert run.error is not None
    assert "a wire is broken" in run.error.message
    reopened = await here.lab.retry(run.id)
    async with asyncio.timeout(LONG_S):
        async for shown in here.lab.watch([reopened.id]):
            if shown["state"] == "failed" and len(here.bench.measured) == 2:
                break
    assert len(set(here.bench.measured)) == 2


async def test_aborting_the_run_aborts_the_session(here: Here) -> None:
    requested = await here.lab.request(Request("measure", how="wait"))
    ((session_id, _),) = await here.started()
    await here.lab.abort(requested.runs[0])
    run = (await here.lab.wait(here.lab.follow_runs(requested), timeout_s=LONG_S))[requested.runs[0]]
    assert run.state is RunState.ABORTED
    session = await here.lab.agent("bench-1").session(session_id).wait(LONG_S)
    assert session.state is SessionState.ABORTED


async def test_an_agent_that_is_not_there_is_worth_another_try(here: Here) -> None:
    (here.folder / "steplab" / "__init__.py").write_text(PACKAGE.replace("bench-1", "bench-2"))
    await here.lab.ask("reload")
    run = await here.run("blocking")
    assert run.state is RunState.FAILED
    assert run.error is not None
    assert run.error.kind == "transient"
    assert "bench-2" in run.error.message
    assert run.attempt == 3
