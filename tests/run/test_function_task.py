"""One attempt of a task that is a function."""

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from labwright.core.errors import Finding, NotApplicable, TerminalError, TransientError
from labwright.core.model import Run, Step, StepState
from labwright.core.request import Request
from labwright.plan.tasks import Retry, Task, output_of, step, task, wait_for
from labwright.run.context import BlockingContext, TaskContext
from labwright.run.execution import Aborted, End, Failed, RetryLater, Stuck, Succeeded, Waiting
from labwright.testing import ManualClock
from tests.run.memory import AT, Memory, execution_of, make_run, run_once

WEIGH = output_of("weigh")

RAN: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


@step
async def weigh(ctx: TaskContext, sample: int) -> tuple[int, int]:
    RAN.append(sample)
    return (sample, 2 * sample)


@step
async def fails(ctx: TaskContext, kind: str = "transient") -> None:
    RAN.append("fails")
    raise {"transient": TransientError("busy"), "terminal": TerminalError("gone"), "bug": ValueError("bug")}[kind]


@step
async def nap(ctx: TaskContext) -> str:
    await ctx.sleep(60)
    RAN.append("napped")
    return "awake"


def resumed(memory: Memory, end: End | None = None, run: Run | None = None) -> Run:
    run = run or make_run()
    steps = {step.position: step for step in (*run.steps, *memory.ended)}
    waits = dict(run.waits)
    if end is not None and end.step is not None:
        steps[end.step.position] = end.step
    if isinstance(end, Waiting):
        waits[f"{end.position}:{end.number}"] = end.until
    filled = (steps.get(number, Step(name="?", position=number)) for number in range(max(steps, default=-1) + 1))
    return run.model_copy(update={"steps": tuple(filled), "waits": waits})


async def test_steps_are_done_in_any_control_flow_and_recorded_one_by_one(memory: Memory) -> None:
    @task
    async def weigh_all(ctx: TaskContext, *, count: int = 3) -> Any:
        return [await ctx.do(weigh, sample=number) for number in range(count) if number != 1]

    end = await run_once(weigh_all, make_run(params={"count": "3"}), memory)

    assert isinstance(end, Succeeded)
    assert end.result == [[0, 0], [2, 4]]
    assert [(step.name, step.position) for step in memory.ended] == [("weigh", 0), ("weigh", 1)]
    assert end.step is None


async def test_recorded_steps_give_their_outputs_back_in_order(memory: Memory) -> None:
    @task
    async def weigh_all(ctx: TaskContext) -> Any:
        return [await ctx.do(weigh, sample=number) for number in range(3)]

    first = await run_once(weigh_all, memory=memory)
    RAN.clear()
    memory.ended.pop()
    second = await run_once(weigh_all, resumed(memory))

    assert isinstance(first, Succeeded)
    assert isinstance(second, Succeeded)
    assert first.result == second.result
    assert RAN == [2]


async def test_parallel_steps_are_matched_by_the_order_in_which_they_were_begun(memory: Memory) -> None:
    @step
    async def slow(ctx: TaskContext, number: int) -> int:
        RAN.append(number)
        await asyncio.sleep(0.001 * (3 - number))
        return number

    @task
    async def parallel(ctx: TaskContext) -> Any:
        return await asyncio.gather(*(ctx.do(slow, number=number) for number in range(3)))

    await run_once(parallel, memory=memory)
    assert [step.position for step in memory.ended] == [2, 1, 0]
    memory.ended.pop(1)
    RAN.clear()
    end = await run_once(parallel, resumed(memory))

    assert isinstance(end, Succeeded)
    assert end.result == [0, 1, 2]
    assert RAN == [1]


async def test_a_sleep_of_the_body_and_of_a_step_is_over_once(memory: Memory) -> None:
    @task
    async def sleepy(ctx: TaskContext) -> Any:
        await ctx.do(weigh, sample=1)
        await ctx.sleep(10)
        said = await ctx.do(nap)
        await ctx.wait_until(lambda: RAN.count("napped") > 0, every=5)
        return said

    end = await run_once(sleepy, memory=memory)
    assert isinstance(end, Waiting)
    assert (end.position, end.number, end.step) == (-1, 0, None)

    run = resumed(memory, end)
    end = await run_once(sleepy, run, memory)
    assert isinstance(end, Waiting)
    assert (end.position, end.number) == (1, 0)
    assert end.until == AT + timedelta(seconds=60)

    end = await run_once(sleepy, resumed(memory, end, run), memory)
    assert isinstance(end, Succeeded)
    assert end.result == "awake"
    assert RAN == [1, "napped"]


async def test_other_steps_under_way_end_and_are_recorded_before_the_run_waits(memory: Memory) -> None:
    @step
    async def slow(ctx: TaskContext) -> str:
        await asyncio.sleep(0.005)
        return "slow"

    @task
    async def mixed(ctx: TaskContext) -> Any:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.do(nap))
            group.create_task(ctx.do(slow))

    end = await run_once(mixed, memory=memory)

    assert isinstance(end, Waiting)
    assert [step.name for step in memory.ended] == ["slow"]


@pytest.mark.parametrize(
    ("kind", "caught"), [("transient", TransientError), ("terminal", TerminalError), ("bug", TerminalError)]
)
async def test_a_failure_that_the_body_catches_comes_back_after_a_crash(
    memory: Memory, kind: str, caught: type[Exception]
) -> None:
    @task
    async def tolerant(ctx: TaskContext) -> Any:
        try:
            await ctx.do(fails, kind=kind)
        except caught as error:
            said = str(error)
        else:
            said = ""
        await ctx.do(weigh, sample=1)
        await ctx.sleep(5)
        return said

    end = await run_once(tolerant, memory=memory)
    again = await run_once(tolerant, resumed(memory, end), memory)

    assert isinstance(again, Succeeded)
    assert again.result
    assert RAN == ["fails", 1]


async def test_a_failure_that_the_body_lets_through_is_the_runs() -> None:
    @task
    async def strict(ctx: TaskContext, *, kind: str) -> None:
        await ctx.do(fails, kind=kind)

    ends = {kind: await run_once(strict, make_run(params={"kind": kind})) for kind in ("transient", "terminal", "bug")}

    assert isinstance(ends["transient"], RetryLater)
    for kind in ("terminal", "bug"):
        end = ends[kind]
        assert isinstance(end, Failed)
        assert end.error.kind == kind
        assert end.step is not None
        assert end.step.state is StepState.FAILED


async def test_a_failed_step_runs_again_in_the_next_attempt(memory: Memory) -> None:
    @task(retry=Retry(attempts=3))
    async def strict(ctx: TaskContext) -> None:
        await ctx.do(weigh, sample=1)
        await ctx.do(fails)

    end = await run_once(strict, memory=memory)
    await run_once(strict, resumed(memory, end), memory)

    assert RAN == [1, "fails", "fails"]


async def test_a_new_error_of_the_body_counts_with_its_causes() -> None:
    @task
    async def gives_up(ctx: TaskContext) -> None:
        try:
            await ctx.do(fails)
        except TransientError as error:
            raise TerminalError("enough") from error

    end = await run_once(gives_up)

    assert isinstance(end, Failed)
    assert end.error.message == "enough"


async def test_other_code_fails_the_run(memory: Memory) -> None:
    @task
    async def one(ctx: TaskContext) -> None:
        await ctx.do(weigh, sample=1)
        await ctx.sleep(1)

    @task
    async def other(ctx: TaskContext) -> None:
        try:
            await ctx.do(nap)
        except Exception:  # noqa: BLE001 - the body cannot hide it
            return

    @task
    async def shorter(ctx: TaskContext) -> None: ...

    end = await run_once(one, memory=memory)
    for changed in (other, shorter):
        again = await run_once(changed, resumed(memory, end))

        assert isinstance(again, Failed)
        assert again.error.kind == "changed"
        assert "'weigh'" in again.error.because


async def test_a_step_not_to_be_repeated_is_lost_after_a_crash_in_it(memory: Memory) -> None:
    @step(repeat=False)
    async def expose(ctx: TaskContext) -> None:
        RAN.append("expose")

    @task
    async def exposing(ctx: TaskContext) -> None:
        await ctx.do(expose)

    await run_once(exposing, memory=memory)
    end = await run_once(exposing, make_run(steps=tuple(memory.started)))

    assert isinstance(end, Failed)
    assert end.error.kind == "lost"
    assert RAN == ["expose"]


async def test_arguments_are_given_or_taken_from_outputs_and_parameters() -> None:
    @step
    async def add(ctx: TaskContext, base: int, weighed: list[int] = WEIGH, days: int = 1) -> int:
        return base + sum(weighed) + days

    @task
    async def adding(ctx: TaskContext, *, base: int = 100, days: int = 50) -> int:
        await ctx.do(weigh, sample=1)
        return await ctx.do(add) + await ctx.do(add, base=0, weighed=[], days=0)

    end = await run_once(adding)

    assert isinstance(end, Succeeded)
    assert end.result == 104


@pytest.mark.parametrize("given", [{"wrong": 1}, {}])
async def test_arguments_that_do_not_fit_are_named(given: dict[str, Any]) -> None:
    @task
    async def wrong(ctx: TaskContext) -> None:
        await ctx.do(weigh, **given)

    end = await run_once(wrong)

    assert isinstance(end, Failed)
    assert "sample" in end.error.message + end.error.because


async def test_the_body_itself_may_end_in_each_way() -> None:
    @task
    async def skips(ctx: TaskContext) -> None:
        raise NotApplicable("nothing to do")

    @task
    async def finds(ctx: TaskContext) -> None:
        raise Finding("rotation is due")

    @task
    async def bug(ctx: TaskContext) -> None:
        raise KeyError("x")

    skipped, found, failed = [await run_once(which) for which in (skips, finds, bug)]

    assert isinstance(skipped, Succeeded)
    assert skipped.note == "nothing to do"
    assert isinstance(found, Succeeded)
    assert found.finding
    assert isinstance(failed, Failed)
    assert failed.error.kind == "bug"


async def test_a_step_that_skips_the_whole_task_ends_it(memory: Memory) -> None:
    @step
    async def done_already(ctx: TaskContext) -> None:
        raise NotApplicable("done already", whole_task=True)

    @task
    async def skipping(ctx: TaskContext) -> None:
        await ctx.do(done_already)
        await ctx.do(weigh, sample=1)

    end = await run_once(skipping, memory=memory)

    assert isinstance(end, Succeeded)
    assert end.note == "done already"
    assert RAN == []


async def test_conditions_can_be_waited_for() -> None:
    clock = ManualClock()

    @task
    async def waits(ctx: TaskContext) -> Any:
        return await ctx.do(wait_for(lambda ctx: ctx.now() > AT, name="later", every=5))

    end = await run_once(waits, clock=clock)
    assert isinstance(end, Waiting)
    clock.advance(5)
    assert end.step is not None
    end = await run_once(waits, make_run(waits={"0:0": end.until}, steps=(end.step,)), clock=clock)

    assert isinstance(end, Succeeded)
    assert end.result is True


async def test_children_have_numbers_that_come_again(memory: Memory) -> None:
    @step
    async def parent(ctx: TaskContext) -> list[str]:
        return [await ctx.spawn(Request("child")), await ctx.spawn(Request("child"))]

    @task
    async def spawning(ctx: TaskContext) -> Any:
        return [await ctx.spawn(Request("mine")), *(await ctx.do(parent)), *(await ctx.do(parent))]

    await run_once(spawning, memory=memory)
    first = [number for _, number in memory.children]
    memory.children.clear()
    await run_once(spawning, memory=memory)

    assert [number for _, number in memory.children] == first
    assert len(set(first)) == 5


async def test_an_abort_ends_body_and_step(memory: Memory) -> None:
    began = asyncio.Event()

    @step
    async def slow(ctx: TaskContext) -> None:
        began.set()
        await asyncio.sleep(60)

    @task
    async def slow_task(ctx: TaskContext) -> None:
        await ctx.do(slow)

    execution = execution_of(slow_task, memory=memory)
    running = asyncio.create_task(execution.run())
    await began.wait()
    execution.abort("enough")

    assert isinstance(await running, Aborted)


async def test_a_deadline_ends_body_and_step() -> None:
    @step
    async def slow(ctx: TaskContext) -> None:
        await asyncio.sleep(60)

    @task(timeout=0.01)
    async def slow_task(ctx: TaskContext) -> None:
        await ctx.do(slow)

    end = await run_once(slow_task)

    assert isinstance(end, Failed)
    assert end.error.kind == "timeout"


async def test_a_success_after_the_deadline_stays_a_success_with_a_note() -> None:
    clock = ManualClock()

    @task(timeout=10)
    async def late(ctx: TaskContext) -> str:
        clock.advance(12)
        return "done"

    end = await run_once(late, clock=clock)

    assert isinstance(end, Succeeded)
    assert end.result == "done"
    assert end.note == "ended 2.0 s after the timeout of 10 s"


async def test_a_body_may_give_a_step_up(memory: Memory) -> None:
    @step
    async def slow(ctx: TaskContext) -> None:
        await asyncio.sleep(60)

    @task
    async def impatient(ctx: TaskContext) -> str:
        try:
            async with asyncio.timeout(0.01):
                await ctx.do(slow)
        except TimeoutError:
            return "gave up"
        return "?"

    end = await run_once(impatient, memory=memory)

    assert isinstance(end, Succeeded)
    assert end.result == "gave up"


async def test_errors_of_the_recorder_leave_the_execution_though_the_body_catches_them(memory: Memory) -> None:
    @task
    async def greedy(ctx: TaskContext) -> str:
        try:
            await ctx.do(weigh, sample=1)
        except Exception:  # noqa: BLE001 - what is tested
            return "swallowed"
        return "?"

    memory.fails = ConnectionError("journal")
    with pytest.raises(ConnectionError):
        await run_once(greedy, memory=memory)


async def test_steps_have_no_steps() -> None:
    @step
    async def nested(ctx: TaskContext) -> None:
        await ctx.do(weigh, sample=1)

    end = await run_once(Task("t", steps=[nested]))

    assert isinstance(end, Failed)
    assert end.error.kind == "usage"


@pytest.mark.parametrize("how", ["aborted", "given up"])
async def test_a_step_that_does_not_hear_makes_the_run_stuck(how: str) -> None:
    began, release = threading.Event(), threading.Event()

    @step
    def deaf(ctx: BlockingContext) -> None:
        began.set()
        release.wait(10)

    @task
    async def impatient(ctx: TaskContext) -> None:
        try:
            async with asyncio.timeout(0.01 if how == "given up" else None):
                await ctx.do(deaf)
        except TimeoutError:
            return

    execution = execution_of(impatient)
    running = asyncio.create_task(execution.run())
    await asyncio.to_thread(began.wait)
    if how == "aborted":
        execution.abort("enough")
    end = await running
    release.set()

    assert isinstance(end, Stuck)


async def test_an_aborted_step_is_shown_with_the_run() -> None:
    began = asyncio.Event()

    @step
    async def slow(ctx: TaskContext) -> None:
        began.set()
        await asyncio.sleep(60)

    @task
    async def slow_task(ctx: TaskContext) -> None:
        await ctx.do(slow)

    execution = execution_of(slow_task)
    running = asyncio.create_task(execution.run())
    await began.wait()
    execution.abort("enough")
    end = await running

    assert isinstance(end, Aborted)
    assert end.step is not None
    assert end.step.name == "slow"
