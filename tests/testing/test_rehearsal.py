"""Rehearsals: whole tasks in memory, killed at every moment."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labwright.core.errors import ParameterError, TerminalError, TransientError
from labwright.core.model import RunState
from labwright.core.request import Request
from labwright.plan.tasks import Retry, StepFunction, Task, output_of, step, task, wait_for
from labwright.run.context import BlockingContext, TaskContext
from labwright.testing import FakeContext, ManualClock, crash_after_every_step, run_every_step_twice, run_task
from labwright.testing.rehearsal import MemoryRun, Moment

MEASURE = output_of("measure")


@step
async def open_valve(ctx: TaskContext) -> str:
    (await ctx.client("valve"))["open"] = True
    return "open"


@step
def measure(ctx: BlockingContext, volume: int) -> int:
    return volume * 2


@step
async def book(ctx: TaskContext, measured: int = MEASURE) -> int:
    account = await ctx.client("account")
    account["booked"] = measured
    return account["booked"]


@step
async def book_carelessly(ctx: TaskContext, measured: int = MEASURE) -> int:
    account = await ctx.client("account")
    account["booked"] += measured
    return account["booked"]


def world() -> FakeContext:
    return FakeContext().with_client("valve", {}).with_client("account", {"booked": 0}).with_params(volume=3)


careful = Task("careful", steps=[open_valve, measure, book])
careless = Task("careless", steps=[open_valve, measure, book_carelessly])


async def test_a_task_runs_in_memory_to_its_end() -> None:
    run = await run_task(careful, world())

    assert run.state is RunState.SUCCEEDED
    assert run.result == 6
    assert [step.output for step in run.steps] == ["open", 6, 6]


async def test_retries_and_sleeps_take_no_real_time() -> None:
    clock, tries = ManualClock(), [1, 2]

    @step
    async def flaky(ctx: TaskContext) -> None:
        await ctx.sleep(3600)
        if tries:
            tries.pop()
            raise TransientError("busy", retry_after=600)

    run = await run_task(Task("flaky", steps=[flaky]), FakeContext(clock=clock))

    assert run.state is RunState.SUCCEEDED
    assert clock.monotonic() == 3600 + 2 * 600


async def test_a_task_that_fails_ends_failed() -> None:
    @step
    async def busy(ctx: TaskContext) -> None:
        raise TransientError("busy")

    run = await run_task(Task("busy", steps=[busy], retry=Retry(attempts=3)))

    assert run.state is RunState.FAILED
    assert run.error is not None
    assert "after 3 attempts" in run.error.message


async def test_parameters_are_checked_first() -> None:
    with pytest.raises(ParameterError):
        await run_task(careful, world(), params={"volume": "much"})


async def test_a_careful_task_survives_every_crash() -> None:
    report = await crash_after_every_step(careful, world)

    assert [(crash.step, crash.moment, crash.ran_again) for crash in report.crashes] == [
        ("open_valve", "before its record", ("open_valve",)),
        ("open_valve", "after its record", ()),
        ("measure", "before its record", ("measure",)),
        ("measure", "after its record", ()),
        ("book", "before its record", ("book",)),
    ]
    assert "ran again" in str(report)


async def test_a_careless_task_is_found_out_with_a_story() -> None:
    with pytest.raises(AssertionError) as caught:
        await crash_after_every_step(careless, world)

    story = str(caught.value)
    assert "'careless' does not survive a crash" in story
    assert "book_carelessly" in story
    assert "result 12" in story


async def test_every_step_runs_twice() -> None:
    report = await run_every_step_twice(careful, world)

    assert report.crashes[0].ran_again == ("open_valve", "measure", "book")
    with pytest.raises(AssertionError, match="book_carelessly"):
        await run_every_step_twice(careless, world)


async def test_a_step_not_to_be_repeated_is_lost_instead() -> None:
    shots: list[int] = []

    @step(repeat=False)
    async def expose(ctx: TaskContext) -> None:
        shots.append(1)

    report = await crash_after_every_step(Task("expose", steps=[expose, measure]), world, same_result=False)

    lost = report.crashes[0].run
    assert lost.error is not None
    assert lost.error.kind == "lost"
    assert len(shots) == 1 + len(report.crashes)


async def test_tasks_that_are_functions_are_rehearsed_too() -> None:
    @task
    async def weighing(ctx: TaskContext, *, volume: int) -> Any:
        total = 0
        for number in range(3):
            total += await ctx.do(measure, volume=volume + number)
            await ctx.sleep(60)
        try:
            await ctx.do(forbidden)
        except TerminalError:
            total += 100
        await ctx.spawn(Request("child"))
        return total

    @step
    async def forbidden(ctx: TaskContext) -> None:
        raise TerminalError("no")

    report = await crash_after_every_step(weighing, world)
    await run_every_step_twice(weighing, world)

    assert report.undisturbed.result == 100 + 2 * (3 + 4 + 5)
    assert len(report.crashes) == 6


Make = Callable[[list[tuple[int, str]], int], StepFunction[..., Any]]


def plain(log: list[tuple[int, str]], number: int) -> StepFunction[..., Any]:
    @step(name=f"step-{number}")
    async def act(ctx: TaskContext) -> int:
        log.append((number, "ran"))
        return sum(value for value in ctx.outputs.values() if isinstance(value, int)) + number

    return act


def sleeping(log: list[tuple[int, str]], number: int) -> StepFunction[..., Any]:
    @step(name=f"step-{number}")
    async def act(ctx: TaskContext) -> int:
        await ctx.sleep(10)
        await ctx.sleep(20)
        log.append((number, "ran"))
        return len(ctx.outputs)

    return act


def conditional(log: list[tuple[int, str]], number: int) -> StepFunction[..., Any]:
    begun: list[Any] = []

    async def holds(ctx: TaskContext) -> bool:
        begun.append(ctx.now())
        if (ctx.now() - begun[0]).total_seconds() < 12:
            return False
        log.append((number, "ran"))
        return True

    return wait_for(holds, every=5, timeout=60, name=f"step-{number}")


@given(
    kinds=st.lists(st.sampled_from([plain, sleeping, conditional]), min_size=1, max_size=5),
    deaths=st.sets(st.tuples(st.integers(0, 4), st.sampled_from(["before its record", "after its record"]))),
    as_function=st.booleans(),
)
@settings(max_examples=60, deadline=None)
async def test_killed_anywhere_no_recorded_step_runs_again_and_results_are_equal(
    kinds: list[Make], deaths: set[tuple[int, Moment]], as_function: bool
) -> None:
    log: list[tuple[int, str]] = []

    def make() -> Task:
        log.clear()
        steps = [kind(log, number) for number, kind in enumerate(kinds)]

        async def body(ctx: TaskContext) -> Any:
            return [await ctx.do(definition) for definition in steps]

        return task(name="t")(body) if as_function else Task("t", steps=steps)

    undisturbed = await run_task(make())
    memory = MemoryRun(make(), FakeContext(), set(deaths))
    memory.request({})
    killed = await memory.to_its_end()

    assert killed.state is undisturbed.state is RunState.SUCCEEDED
    assert killed.result == undisturbed.result
    fired = deaths - memory.deaths
    for number in range(len(kinds)):
        before_record = (number, "before its record") in fired
        assert log.count((number, "ran")) == (2 if before_record else 1)
