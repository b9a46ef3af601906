"""One attempt of a task that is a list of steps."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import pytest

from labwright.core.errors import Finding, NotApplicable, TerminalError, TransientError
from labwright.core.model import Step, StepState, Target
from labwright.plan.providers import provides
from labwright.plan.tasks import Retry, Task, output_of, step, wait_for
from labwright.run.context import BlockingContext, TaskContext
from labwright.run.execution import Aborted, Failed, RetryLater, Stuck, Succeeded, Waiting
from labwright.testing import ManualClock
from tests.run.memory import AT, Memory, execution_of, make_run, run_once

FIRST = output_of("first")
MAKE = output_of("make")


@step
async def first(ctx: TaskContext) -> int:
    return 1


@step
async def second(ctx: TaskContext, number: int = FIRST) -> int:
    return number + 1


@step
async def busy(ctx: TaskContext) -> None:
    raise TransientError("the server is busy")


def raising(error: BaseException) -> Any:
    @step
    async def broken(ctx: TaskContext) -> None:
        raise error

    return broken


def finished(name: str, position: int, output: Any = None) -> Step:
    return Step(name=name, position=position, state=StepState.SUCCEEDED, output=output, attempts=1)


class TestSteps:
    async def test_all_steps_run_in_order_and_the_last_travels_in_the_end(self, memory: Memory) -> None:
        end = await run_once(Task("t", steps=[first, second]), memory=memory)

        assert isinstance(end, Succeeded)
        assert end.result == 2
        assert [step.name for step in memory.ended] == ["first"]
        assert end.step is not None
        assert (end.step.name, end.step.position, end.step.state) == ("second", 1, StepState.SUCCEEDED)

    async def test_finished_steps_do_not_run_again_and_their_outputs_are_there(self, memory: Memory) -> None:
        end = await run_once(Task("t", steps=[first, second]), make_run(steps=(finished("first", 0, 41),)), memory)

        assert isinstance(end, Succeeded)
        assert end.result == 42
        assert memory.ended == []

    async def test_outputs_are_the_same_before_and_after_a_crash(self) -> None:
        seen: list[Any] = []

        @step
        async def make(ctx: TaskContext) -> Any:
            return {"pair": (1, 2), "raw": b"x", "nan": float("nan"), 5: "five", "odd": object}

        @step
        async def take(ctx: TaskContext, made: Any = MAKE) -> None:
            seen.append((made, ctx.outputs["make"]))

        making = Task("t", steps=[make, take])
        memory = Memory()
        await run_once(making, memory=memory)
        await run_once(making, make_run(steps=tuple(memory.ended)))

        assert repr(seen[0]) == repr(seen[1])
        assert seen[0][0]["pair"] == [1, 2]
        assert seen[0][0]["raw"] == b"x"

    async def test_the_same_step_may_stand_twice(self, memory: Memory) -> None:
        end = await run_once(Task("t", steps=[first, second, first]), memory=memory)

        assert isinstance(end, Succeeded)
        assert end.result == 1
        assert [(step.name, step.position) for step in memory.ended] == [("first", 0), ("second", 1)]

    async def test_a_step_gets_parameters_by_name_and_typed(self) -> None:
        @step
        async def take(ctx: TaskContext, dcid: int, limit: float = 0.5) -> Any:
            return [dcid, limit, ctx.params.dcid, ctx.params["limit"]]

        end = await run_once(take, make_run(params={"dcid": "7"}))

        assert isinstance(end, Succeeded)
        assert end.result == [7, 0.5, 7, 0.5]

    async def test_parameters_that_no_longer_fit_fail_the_run(self) -> None:
        @step
        async def take(ctx: TaskContext, dcid: int) -> None: ...

        end = await run_once(take, make_run(params={"dcid": "x"}))

        assert isinstance(end, Failed)
        assert end.error.kind == "usage"

    async def test_a_result_that_was_set_survives_a_crash(self, memory: Memory) -> None:
        @step
        async def decide(ctx: TaskContext) -> str:
            ctx.set_result({"chosen": 5})
            return "output"

        deciding = Task("t", steps=[decide, first])
        await run_once(deciding, memory=memory)
        end = await run_once(deciding, make_run(steps=tuple(memory.ended)))

        assert isinstance(end, Succeeded)
        assert end.result == {"chosen": 5}

    @pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), "\ud800", (number for number in range(3))])
    async def test_any_output_can_be_recorded(self, value: Any) -> None:
        @step
        def odd(ctx: BlockingContext) -> Any:
            return value

        end = await run_once(odd)

        assert isinstance(end, Succeeded)
        assert end.step is not None
        assert end.step.model_dump_json()

    async def test_a_coroutine_that_nobody_awaited_is_a_bug(self) -> None:
        async def work() -> None: ...

        @step
        def forgets(ctx: BlockingContext) -> Any:
            return work()

        end = await run_once(forgets)

        assert isinstance(end, Failed)
        assert "async def" in end.error.message

    async def test_errors_of_the_recorder_leave_the_execution(self, memory: Memory) -> None:
        memory.fails = ConnectionError("journal")

        with pytest.raises(ConnectionError):
            await run_once(Task("t", steps=[first, second]), memory=memory)

    async def test_who_watches_is_told_each_step(self) -> None:
        seen: list[str] = []

        await run_once(Task("t", steps=[first, second]), watch=lambda step: seen.append(step.name))

        assert seen == ["first", "second"]


class TestChangedCode:
    async def test_steps_may_be_added_after_what_is_done(self) -> None:
        end = await run_once(Task("t", steps=[first, second]), make_run(steps=(finished("first", 0, 1),)))

        assert isinstance(end, Succeeded)

    @pytest.mark.parametrize("steps", [[busy, first], [busy]])
    async def test_a_finished_step_that_is_not_where_it_was_fails_the_run(self, steps: list[Any]) -> None:
        end = await run_once(Task("t", steps=steps), make_run(steps=(finished("first", 0, 1),)))

        assert isinstance(end, Failed)
        assert end.error.kind == "changed"
        assert "'first'" in end.error.because

    async def test_waits_of_a_step_that_was_replaced_do_not_count_for_the_new_one(self) -> None:
        @step
        async def nap(ctx: TaskContext) -> None:
            await ctx.sleep(5)

        before = make_run(steps=(Step(name="old", position=0, state=StepState.RUNNING),), waits={"0:0": AT})

        assert isinstance(await run_once(nap, before), Waiting)


class TestEnds:
    async def test_a_transient_error_is_tried_again_after_the_policys_pause(self) -> None:
        clock = ManualClock()
        trying = Task("t", steps=[busy], retry=Retry(first=10, jitter=0))

        end = await run_once(trying, make_run(failures=2), clock=clock)

        assert isinstance(end, RetryLater)
        assert end.at == clock.now() + timedelta(seconds=40)
        assert end.step is not None
        assert (end.step.state, end.error.kind) == (StepState.FAILED, "transient")

    async def test_a_longer_pause_that_the_error_asks_for_wins(self) -> None:
        end = await run_once(raising(TransientError("busy", retry_after=100)))

        assert isinstance(end, RetryLater)
        assert end.at == AT + timedelta(seconds=100)

    async def test_the_last_attempt_says_how_often_it_was_tried(self) -> None:
        end = await run_once(Task("t", steps=[busy], retry=Retry(attempts=3)), make_run(failures=2))

        assert isinstance(end, Failed)
        assert end.error.kind == "transient"
        assert "did not succeed after 3 attempts" in end.error.message
        assert "the server is busy" in end.error.message

    async def test_a_terminal_error_fails_the_run_at_once(self) -> None:
        end = await run_once(raising(TerminalError("no such certificate")))

        assert isinstance(end, Failed)
        assert end.error.kind == "terminal"

    @pytest.mark.parametrize(
        "error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), TimeoutError(), asyncio.CancelledError()]
    )
    async def test_anything_else_is_a_bug_and_ends_only_the_run(self, error: BaseException) -> None:
        end = await run_once(raising(error))

        assert isinstance(end, Failed)
        assert end.error.kind == "bug"
        assert end.error.traceback

    @pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), StopIteration()])
    async def test_a_bug_in_a_blocking_step_ends_only_the_run(self, error: BaseException) -> None:
        @step
        def broken(ctx: BlockingContext) -> None:
            raise error

        end = await run_once(broken)

        assert isinstance(end, Failed)
        assert end.error.kind == "bug"

    async def test_a_step_that_does_not_apply_is_skipped_with_its_reason(self, memory: Memory) -> None:
        end = await run_once(Task("t", steps=[raising(NotApplicable("not managed")), first]), memory=memory)

        assert isinstance(end, Succeeded)
        assert end.note == "not managed"
        assert end.result == 1
        assert memory.ended[0].state is StepState.SKIPPED

    async def test_the_rest_of_the_task_can_be_skipped_too(self) -> None:
        end = await run_once(Task("t", steps=[first, raising(NotApplicable("done", whole_task=True)), busy]))

        assert isinstance(end, Succeeded)
        assert end.note == "done"

    async def test_a_finding_is_a_success_that_is_flagged_even_after_a_crash(self, memory: Memory) -> None:
        checking = Task("t", steps=[raising(Finding("rotation is due")), first])
        await run_once(checking, memory=memory)

        end = await run_once(checking, make_run(steps=tuple(memory.ended)))

        assert isinstance(end, Succeeded)
        assert end.finding
        assert end.note == "rotation is due"


class TestNotToBeRepeated:
    async def test_its_beginning_is_recorded_first(self, memory: Memory) -> None:
        @step(repeat=False)
        async def expose(ctx: TaskContext) -> None:
            assert [step.name for step in memory.started] == ["expose"]

        assert isinstance(await run_once(expose, memory=memory), Succeeded)
        assert memory.started[0].state is StepState.RUNNING

    async def test_other_steps_cost_no_such_record(self, memory: Memory) -> None:
        await run_once(first, memory=memory)

        assert memory.started == []

    async def test_it_is_lost_if_its_worker_died_in_it(self) -> None:
        @step(repeat=False)
        async def expose(ctx: TaskContext) -> None:
            raise AssertionError

        before = make_run(steps=(Step(name="expose", position=0, state=StepState.RUNNING),))
        end = await run_once(expose, before)

        assert isinstance(end, Failed)
        assert end.error.kind == "lost"
        assert "'expose'" in end.error.message

    async def test_it_cannot_wait_durably(self) -> None:
        @step(repeat=False)
        async def expose(ctx: TaskContext) -> None:
            await ctx.sleep(1)

        end = await run_once(expose)

        assert isinstance(end, Failed)
        assert end.error.kind == "terminal"
        assert "must not be repeated" in end.error.message


class TestWaiting:
    async def test_a_sleep_leaves_the_step_and_is_over_when_it_runs_again(self) -> None:
        @step
        async def nap(ctx: TaskContext) -> str:
            await ctx.sleep(60)
            await ctx.sleep(30)
            return "awake"

        end = await run_once(nap)
        assert isinstance(end, Waiting)
        assert (end.until, end.position, end.number) == (AT + timedelta(seconds=60), 0, 0)
        assert end.waiting_for.kind == "sleep"
        assert end.step is not None

        end = await run_once(nap, make_run(waits={"0:0": end.until}, steps=(end.step,)))
        assert isinstance(end, Waiting)
        assert end.number == 1
        assert end.step is not None
        assert end.step.attempts == 1

        end = await run_once(nap, make_run(waits={"0:0": AT, "0:1": AT}, steps=(end.step,)))
        assert isinstance(end, Succeeded)
        assert end.result == "awake"

    async def test_a_step_that_catches_everything_still_waits(self) -> None:
        @step
        async def greedy(ctx: TaskContext) -> str:
            try:
                await ctx.sleep(60)
            except BaseException:  # noqa: BLE001 - what is tested
                return "swallowed"
            return "slept"

        assert isinstance(await run_once(greedy), Waiting)

    async def test_a_sleep_inside_a_task_group_waits_too(self) -> None:
        @step
        async def grouped(ctx: TaskContext) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.sleep(60))
                group.create_task(asyncio.sleep(60))

        assert isinstance(await run_once(grouped), Waiting)

    @pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e12])
    async def test_a_sleep_that_is_no_duration_is_refused(self, seconds: float) -> None:
        @step
        async def nap(ctx: TaskContext) -> None:
            await ctx.sleep(seconds)

        end = await run_once(nap)

        assert isinstance(end, Failed)
        assert end.error.kind == "usage"

    async def test_a_sleep_of_nothing_is_over_at_once(self) -> None:
        @step
        async def nap(ctx: TaskContext) -> None:
            await ctx.sleep(0)
            await ctx.sleep(-1)

        assert isinstance(await run_once(nap), Succeeded)

    @pytest.mark.parametrize("kind", ["async", "blocking"])
    async def test_a_condition_is_asked_until_it_holds_or_its_time_is_over(self, kind: str) -> None:
        clock = ManualClock()
        answers: list[Any] = []

        async def served(ctx: TaskContext) -> Any:
            return answers.pop(0)

        def served_blocking(ctx: BlockingContext) -> Any:
            return answers.pop(0)

        waiting = Task("t", steps=[wait_for(served if kind == "async" else served_blocking, every=5, timeout=12)])
        run = make_run()

        async def ask(*given: Any) -> Any:
            nonlocal run
            answers[:] = given
            end = await run_once(waiting, run, clock=clock)
            if isinstance(end, Waiting):
                clock.advance((end.until - clock.now()).total_seconds())
                waits = {**run.waits, f"{end.position}:{end.number}": end.until}
                run = run.model_copy(update={"waits": waits, "steps": (end.step,)})
            return end

        pauses = [(await ask(False)).until - AT for _ in range(3)]
        assert [pause.total_seconds() for pause in pauses] == [5, 10, 12]
        assert len(run.waits) == 2

        end = await ask("yes")
        assert isinstance(end, Succeeded)
        assert end.result == "yes"

        end = await ask(False)
        assert isinstance(end, Failed)
        assert end.error.kind == "timeout"
        assert "12 s" in end.error.message


class TestDeadlines:
    async def test_a_step_is_cancelled_when_the_attempts_time_is_over(self) -> None:
        heard: list[str] = []

        @step
        async def slow(ctx: TaskContext) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                heard.append(f"cancelled={ctx.cancelled}")

        end = await run_once(Task("t", steps=[slow, first], timeout=0.01))

        assert isinstance(end, Failed)
        assert end.error.kind == "timeout"
        assert "timeout of 0.01 s" in end.error.message
        assert "'slow'" in end.error.because
        assert heard == ["cancelled=True"]
        assert end.step is not None
        assert end.step.state is StepState.FAILED

    async def test_it_is_tried_again_if_the_policy_says_so(self) -> None:
        @step
        async def slow(ctx: TaskContext) -> None:
            await asyncio.sleep(60)

        again = Retry(timeouts=True, attempts=2)

        assert isinstance(await run_once(Task("t", steps=[slow], timeout=0.01, retry=again)), RetryLater)
        end = await run_once(Task("t", steps=[slow], timeout=0.01, retry=again), make_run(failures=1))
        assert isinstance(end, Failed)
        assert "2 attempts" in end.error.message

    async def test_a_success_after_the_deadline_stays_a_success_with_a_note(self) -> None:
        clock = ManualClock()

        @step
        async def slow(ctx: TaskContext) -> str:
            clock.advance(61.5)
            return "done"

        end = await run_once(Task("t", steps=[slow], timeout=60), clock=clock)

        assert isinstance(end, Succeeded)
        assert end.result == "done"
        assert end.note == "slow ended 1.5 s after the timeout of 60 s"

    async def test_a_success_while_being_cancelled_stays_a_success(self) -> None:
        @step
        async def stubborn(ctx: TaskContext) -> str:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return "finished all the same"
            return "?"

        end = await run_once(Task("t", steps=[stubborn], timeout=0.01))

        assert isinstance(end, Succeeded)
        assert end.note is not None

    async def test_a_late_success_in_the_middle_is_kept_though_the_attempt_is_over(self) -> None:
        clock = ManualClock()

        @step
        async def slow(ctx: TaskContext) -> str:
            clock.advance(61)
            return "done"

        end = await run_once(Task("t", steps=[slow, first], timeout=60), clock=clock)

        assert isinstance(end, Failed)
        assert end.error.kind == "timeout"
        assert end.step is not None
        assert end.step.state is StepState.SUCCEEDED

    async def test_the_total_timeout_counts_from_the_first_start_and_is_final(self) -> None:
        clock = ManualClock()
        clock.advance(100)
        limited = Task("t", steps=[first], total_timeout=90, retry=Retry(timeouts=True))

        end = await run_once(limited, make_run(started_at=AT), clock=clock)

        assert isinstance(end, Failed)
        assert "total timeout of 90 s" in end.error.message

    async def test_no_attempt_is_planned_for_after_the_total_timeout(self) -> None:
        limited = Task("t", steps=[busy], total_timeout=90, retry=Retry(first=100))

        end = await run_once(limited, make_run(started_at=AT))

        assert isinstance(end, Failed)
        assert end.error.kind == "timeout"
        assert "the server is busy" in end.error.message

    async def test_a_step_that_does_not_hear_is_stuck(self) -> None:
        release = threading.Event()

        @step
        def deaf(ctx: BlockingContext) -> None:
            release.wait(10)

        end = await run_once(Task("t", steps=[deaf], timeout=0.01))
        release.set()

        assert isinstance(end, Stuck)
        assert (end.reason, end.error.kind) == ("timeout", "timeout")

    async def test_a_blocking_step_hears_it_at_its_next_call(self) -> None:
        began = threading.Event()

        @step
        def working(ctx: BlockingContext) -> None:
            began.set()
            while True:
                ctx.progress(1, 2)
                threading.Event().wait(0.001)

        end = await run_once(Task("t", steps=[working], timeout=0.02))

        assert isinstance(end, Failed)
        assert end.error.kind == "timeout"


class TestAbort:
    async def test_a_running_step_hears_it_at_once(self) -> None:
        began = asyncio.Event()

        @step
        async def slow(ctx: TaskContext) -> None:
            began.set()
            await asyncio.sleep(60)

        execution = execution_of(Task("t", steps=[slow]))
        running = asyncio.create_task(execution.run())
        await began.wait()
        execution.abort("wrong sample")
        end = await running

        assert isinstance(end, Aborted)
        assert end.reason == "wrong sample"
        assert end.step is not None
        assert end.step.error is not None
        assert end.step.error.kind == "aborted"

    async def test_no_step_begins_after_it(self) -> None:
        execution = execution_of(Task("t", steps=[raising(AssertionError())]))
        execution.abort("never mind")

        assert isinstance(await execution.run(), Aborted)

    async def test_a_step_that_does_not_hear_it_is_stuck(self) -> None:
        began, release = threading.Event(), threading.Event()

        @step
        def deaf(ctx: BlockingContext) -> None:
            began.set()
            release.wait(10)

        execution = execution_of(Task("t", steps=[deaf]))
        running = asyncio.create_task(execution.run())
        await asyncio.to_thread(began.wait)
        execution.abort("now")
        end = await running
        release.set()

        assert isinstance(end, Stuck)
        assert end.reason == "aborted"

    async def test_a_waiting_call_of_a_blocking_step_ends(self) -> None:
        entered = asyncio.Event()

        @provides("slow")
        async def slow(target: Any) -> AsyncGenerator[Any]:
            entered.set()
            await asyncio.sleep(0.05)
            yield "client"

        seen: list[type[BaseException]] = []

        @step
        def asks(ctx: BlockingContext) -> None:
            try:
                ctx.client("slow")
            except BaseException as error:
                seen.append(type(error))
                raise

        execution = execution_of(Task("t", steps=[asks]), providers={"slow": slow})
        running = asyncio.create_task(execution.run())
        await entered.wait()
        execution.abort("now")

        assert isinstance(await running, Aborted)
        assert seen == [asyncio.CancelledError]

    async def test_cancelling_the_caller_cancels_the_step(self) -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        @step
        async def slow(ctx: TaskContext) -> None:
            began.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        running = asyncio.create_task(run_once(slow))
        await began.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

        assert ended.is_set()


class TestClients:
    async def test_a_client_is_made_once_and_closed_at_the_end_in_reverse_order(self) -> None:
        story: list[str] = []

        def make(kind: str) -> Any:
            @provides(kind)
            async def provider(target: Any) -> AsyncGenerator[Any]:
                story.append(f"open {kind} for {target.name}")
                yield kind.upper()
                story.append(f"close {kind}")

            return provider

        @step
        async def use(ctx: TaskContext) -> Any:
            return [await ctx.client("a"), await ctx.client("b"), await ctx.client("a")]

        end = await run_once(
            Task("t", steps=[use, use]), target=Target(name="x"), providers={kind: make(kind) for kind in ("a", "b")}
        )

        assert isinstance(end, Succeeded)
        assert end.result == ["A", "B", "A"]
        assert story == ["open a for x", "open b for x", "close b", "close a"]

    async def test_it_is_closed_in_the_task_that_opened_it_even_after_a_timeout(self) -> None:
        tasks: list[Any] = []

        @provides("a")
        async def provider(target: Any) -> AsyncGenerator[Any]:
            tasks.append(asyncio.current_task())
            try:
                yield "A"
            finally:
                tasks.append(asyncio.current_task())

        @step
        async def use(ctx: TaskContext) -> None:
            await ctx.client("a")
            await asyncio.sleep(60)

        end = await run_once(Task("t", steps=[use], timeout=0.02), providers={"a": provider})

        assert isinstance(end, Failed)
        assert len(tasks) == 2
        assert tasks[0] is tasks[1]

    async def test_one_that_cannot_be_closed_is_logged_and_does_not_change_the_end(self, memory: Memory) -> None:
        @provides("a")
        async def provider(target: Any) -> AsyncGenerator[Any]:
            yield "A"
            raise ValueError("cannot close")

        @step
        async def use(ctx: TaskContext) -> Any:
            return await ctx.client("a")

        end = await run_once(use, memory=memory, providers={"a": provider})

        assert isinstance(end, Succeeded)
        assert memory.lines[0][1] == "a client could not be closed"

    async def test_one_that_cannot_be_made_fails_the_step_with_its_own_error(self) -> None:
        @provides("a")
        async def provider(target: Any) -> AsyncGenerator[Any]:
            raise TransientError("no connection")
            yield

        @step
        async def use(ctx: TaskContext) -> None:
            await ctx.client("a")

        assert isinstance(await run_once(use, providers={"a": provider}), RetryLater)
