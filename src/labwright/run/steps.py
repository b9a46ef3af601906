"""One step, once: runs it under the attempt's deadline and says how it ended. Shared by both kinds of task."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labwright.core.errors import Finding, LabwrightError, NotApplicable
from labwright.core.model import ErrorRecord, Run, Step, StepState
from labwright.core.plain import to_plain
from labwright.plan.steps import StepFunction
from labwright.run.attempt import Attempt
from labwright.run.bridge import LoopBridge
from labwright.run.context import BlockingContext, TaskContext
from labwright.run.effects import Place, Recorder, RunEffects
from labwright.run.ends import Stuck, Waiting
from labwright.run.judgement import Judgement, judge
from labwright.run.stopping import Stop, awaited, uninterrupted
from labwright.run.threads import THREADS, Outcome, Raised, Returned, run_in_thread
from labwright.run.views import Marks

FINISHED = frozenset({StepState.SUCCEEDED, StepState.SKIPPED})


@dataclass(frozen=True, kw_only=True)
class Done:
    """The step succeeded or was skipped; with `whole_task` the rest is skipped too."""

    step: Step
    whole_task: bool = False


@dataclass(frozen=True, kw_only=True)
class Broke:
    """The step failed."""

    step: Step
    error: BaseException
    judgement: Judgement


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """The step was told to end, and did not succeed before it did."""

    step: Step


Verdict = Done | Broke | Stopped | Waiting | Stuck


class StepRunner:
    """Runs the steps of one attempt."""

    def __init__(self, run: Run, attempt: Attempt, recorder: Recorder, stop: Stop, grace: float) -> None:
        self._run = run
        self._recorded = {step.position: step for step in run.steps}
        self._attempt = attempt
        self._recorder = recorder
        self._stop = stop
        self._grace = grace
        self._threads = asyncio.Semaphore(THREADS)

    async def perform(self, definition: StepFunction[..., Any], position: int, arguments: Mapping[str, Any]) -> Verdict:
        """Run a step to its end, which is not recorded yet."""
        begun = self._begin(definition, position)
        if not definition.repeat:
            await uninterrupted(self._recorder.step_started(begun))
        self._attempt.services.watch(begun)
        effects = RunEffects(self._place(definition, position), self._recorder, self._attempt.services.clock)
        marks = Marks()
        outcome = await self._supervised(definition, arguments, effects, marks)
        self._stop.look_at_clock()
        return self._verdict(begun, outcome, effects, marks)

    def fail(self, definition: StepFunction[..., Any], position: int, error: Exception) -> Broke:
        """Say that a step failed before it could run."""
        judgement = judge(error)
        return Broke(
            step=self._ended(self._begin(definition, position), error=judgement.error), error=error, judgement=judgement
        )

    def _begin(self, definition: StepFunction[..., Any], position: int) -> Step:
        known = self._recorded.get(position)
        if known is None or known.name != definition.name:
            known = Step(name=definition.name, position=position)
        goes_on = known.state is StepState.RUNNING
        return Step(
            name=definition.name,
            position=position,
            state=StepState.RUNNING,
            attempts=known.attempts if goes_on else known.attempts + 1,
            started_at=known.started_at or self._attempt.services.clock.now(),
        )

    def _place(self, definition: StepFunction[..., Any], position: int) -> Place:
        known = self._recorded.get(position)
        is_same = known is None or known.name == definition.name
        return Place.of(self._run, position, definition.name, repeat=definition.repeat, is_same=is_same)

    async def _supervised(
        self, definition: StepFunction[..., Any], arguments: Mapping[str, Any], effects: RunEffects, marks: Marks
    ) -> Outcome | None:
        bridge = LoopBridge(asyncio.get_running_loop())

        def tell() -> None:
            effects.cancelled = True
            bridge.cancel()

        if definition.is_blocking:
            blocking = BlockingContext(self._attempt, effects, bridge, marks)
            work = self._threaded(lambda: _finished_value(definition.function(blocking, **arguments)), tell)
        else:
            context = TaskContext(self._attempt, effects, marks)
            work = awaited(lambda: definition.function(context, **arguments))
        return await self._stop.supervise(work, grace=self._grace, tell=tell)

    async def _threaded(self, function: Any, tell: Any) -> Outcome:
        async with self._threads:
            return await run_in_thread(function, tell)

    def _verdict(self, begun: Step, outcome: Outcome | None, effects: RunEffects, marks: Marks) -> Verdict:
        if outcome is None:
            return self._stuck(begun)
        if effects.left is not None and self._stop.reason is None:
            return dataclasses.replace(effects.left, step=begun.model_copy(update={"note": _joined(marks.notes)}))
        if done := self._success(begun, outcome, effects, marks):
            return done
        error = outcome.error if isinstance(outcome, Raised) else asyncio.CancelledError()
        if self._stop.reason is not None:
            return Stopped(step=self._ended(begun, error=self._stop_error(begun.name), marks=marks))
        judgement = judge(error)
        return Broke(step=self._ended(begun, error=judgement.error, marks=marks), error=error, judgement=judgement)

    def _success(self, begun: Step, outcome: Outcome, effects: RunEffects, marks: Marks) -> Done | None:
        match outcome:
            case Returned(value) if effects.left is None:
                return Done(step=self._ended(begun, output=to_plain(value), marks=marks))
            case Raised(NotApplicable() as error):
                marks.notes.append(error.message)
                step = self._ended(begun, marks=marks).model_copy(update={"state": StepState.SKIPPED})
                return Done(step=step, whole_task=error.whole_task)
            case Raised(Finding() as error):
                marks.notes.append(error.message)
                return Done(step=self._ended(begun, marks=marks).model_copy(update={"finding": True}))
            case _:
                return None

    def _ended(
        self, begun: Step, *, output: Any = None, error: ErrorRecord | None = None, marks: Marks | None = None
    ) -> Step:
        marks = marks or Marks()
        if error is None and self._stop.reason == "timeout":
            marks.notes.append(f"{begun.name} ended {self._stop.late_by():.1f} s after the {self._stop.deadline}")
        return begun.model_copy(
            update={
                "state": StepState.SUCCEEDED if error is None else StepState.FAILED,
                "ended_at": self._attempt.services.clock.now(),
                "output": output,
                "error": error,
                "note": _joined(marks.notes),
                "result": to_plain(marks.result),
            }
        )

    def _stuck(self, begun: Step) -> Stuck:
        error = self._stop_error(begun.name, f"it did not end within {self._grace:g} s after it was told to")
        return Stuck(reason=self._stop.reason or "aborted", error=error, step=self._ended(begun, error=error))

    def _stop_error(self, step: str, more: str = "") -> ErrorRecord:
        return stop_error(self._stop, f"the step {step!r} was running" + (f"; {more}" if more else ""))


def stop_error(stop: Stop, because: str) -> ErrorRecord:
    """Describe an end that came early."""
    if stop.reason == "timeout":
        cure = "give the task a longer timeout, or split the step"
        return ErrorRecord.of(LabwrightError(stop.text, because=because, cure=cure), kind="timeout")
    return ErrorRecord.of(LabwrightError(stop.text, because=because, cure="retry the run to go on"), kind="aborted")


def _finished_value(value: Any) -> Any:
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError("the step returned a coroutine that nobody awaits: make it `async def`")
    return value


def _joined(notes: list[str]) -> str | None:
    return "; ".join(dict.fromkeys(str(to_plain(note)) for note in notes)) or None
