"""A task's function (`@task`): runs its body and does its steps, each once, giving recorded outputs back in order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from labwright.core.errors import Finding, LabwrightError, NotApplicable, TerminalError, TransientError, UsageError
from labwright.core.model import ErrorRecord, Step
from labwright.core.plain import from_plain, to_plain
from labwright.plan.steps import Argument, StepFunction
from labwright.plan.tasks import TaskFunction, bind
from labwright.run.attempt import Attempt
from labwright.run.context import TaskContext
from labwright.run.effects import BODY, Leave, Place, RunEffects
from labwright.run.ends import Aborted, End, Stuck, changed
from labwright.run.judgement import judge
from labwright.run.steps import FINISHED, Broke, Done, StepRunner, Stopped, Verdict, stop_error
from labwright.run.stopping import awaited, uninterrupted
from labwright.run.threads import Outcome, Raised, Returned
from labwright.run.views import Marks

if TYPE_CHECKING:
    from labwright.run.execution import Execution


class FunctionTask:
    """One attempt of a task that is a function."""

    def __init__(self, execution: Execution, attempt: Attempt, runner: StepRunner) -> None:
        self._execution = execution
        self._stop = execution.stop
        self._attempt = attempt
        self._runner = runner
        self._recorded = {step.position: step for step in execution.before.steps}
        self._next = 0
        self._end: End | None = None
        self._doing: list[asyncio.Task[Verdict]] = []
        self._raised: dict[int, tuple[BaseException, Broke]] = {}
        self._caught: list[Step] = []
        place = Place.of(execution.before, BODY, "")
        self._effects = RunEffects(place, execution.recorder, execution.services.clock, self.do)
        self._marks = Marks()

    async def run(self) -> End:
        """Run the body, and wait for steps that it began and did not await."""
        outcome = await self._stop.supervise(
            awaited(self._call), grace=self._execution.grace, tell=lambda: setattr(self._effects, "cancelled", True)
        )
        if outcome is None:
            error = stop_error(
                self._stop, f"the task did not end within {self._execution.grace:g} s after it was told to"
            )
            return Stuck(reason=self._stop.reason or "aborted", error=error)
        await self._settle(outcome)
        if isinstance(outcome, Returned) or self._effects.left is not None:
            await self._record_caught()
        self._stop.look_at_clock()
        return self._end or self._conclude(outcome)

    async def do(self, definition: StepFunction[..., Any], params: Mapping[str, Any]) -> Any:
        """Do a step, or give back what it gave before."""
        if not isinstance(definition, StepFunction):  # pyright: ignore[reportUnnecessaryIsInstance] - user's input
            raise UsageError(f"{definition!r} is no step", because="ctx.do takes a step", cure="write @step above it")
        if self._end is not None:
            raise Leave
        if self._stop.reason is not None:
            raise asyncio.CancelledError
        position, self._next = self._next, self._next + 1
        recorded = self._recorded.get(position)
        if recorded is not None and (recorded.state in FINISHED or recorded.caught):
            return self._replay(recorded, definition)
        await self._record_caught()
        return await self._do_now(definition, position, params)

    async def _call(self) -> Any:
        function: TaskFunction = self._execution.task.function or _nothing
        context = TaskContext(self._attempt, self._effects, self._marks)
        return await function(context, **_chosen(self._execution.task.parameters.names, self._attempt.params))

    def _replay(self, recorded: Step, definition: StepFunction[..., Any]) -> Any:
        if recorded.name != definition.name:
            self._end = changed(self._execution.task.name, recorded, definition.name)
            raise Leave
        if recorded.error is not None:
            raise _error_of(recorded.error)
        self._execution.keep(recorded)
        return from_plain(recorded.output)

    async def _do_now(self, definition: StepFunction[..., Any], position: int, params: Mapping[str, Any]) -> Any:
        doing = asyncio.create_task(self._perform(definition, position, params))
        self._doing.append(doing)
        try:
            verdict = await asyncio.shield(doing)
        except asyncio.CancelledError:
            if self._end is None and self._stop.reason is None:  # the body itself gives this step up
                doing.cancel()
            raise
        if isinstance(verdict, Done) and not verdict.whole_task:
            return from_plain(verdict.step.output)
        if isinstance(verdict, Broke):
            error = _error_of(verdict.judgement.error, verdict.judgement.retry_after)
            self._raised[id(error)] = (error, verdict)
            self._caught.append(verdict.step)
            raise error from verdict.error
        self._end = self._end or self._ending(verdict)
        raise Leave

    def _ending(self, verdict: Verdict) -> End:
        if isinstance(verdict, Done):  # and the rest of the task skipped; its record is written
            return self._execution.success(None)
        return self._execution.conclude(verdict)

    async def _perform(self, definition: StepFunction[..., Any], position: int, params: Mapping[str, Any]) -> Verdict:
        try:
            arguments = bind(definition, _required(definition, self._attempt.params), self._execution.outputs, params)
        except LabwrightError as error:
            return self._runner.fail(definition, position, error)
        verdict = await self._runner.perform(definition, position, arguments)
        if isinstance(verdict, Done):
            self._execution.keep(verdict.step)
            await uninterrupted(self._execution.recorder.step_ended(verdict.step))
        return verdict

    async def _record_caught(self) -> None:
        """Record failures that the body has caught, now that it goes on: it will see them again."""
        while self._caught:
            step = self._caught.pop(0).model_copy(update={"caught": True})
            await uninterrupted(self._execution.recorder.step_ended(step))

    async def _settle(self, outcome: Outcome) -> None:
        pending = {doing for doing in self._doing if not doing.done()}
        has_failed = isinstance(outcome, Raised) and self._end is None and self._effects.left is None
        if has_failed and self._stop.reason is None:  # else they have heard it themselves
            for doing in pending:
                doing.cancel()
        if pending:
            await asyncio.wait(pending)
        for doing in self._doing:
            if doing.cancelled():
                continue
            verdict = doing.result()  # raises an error of the recorder, whatever the body has made of it
            if isinstance(verdict, Stuck):
                self._end = verdict
            elif isinstance(verdict, Stopped):
                self._caught.append(verdict.step)
        if self._stop.unfinished and not isinstance(self._end, Stuck):
            await self._wait_for_the_deaf()

    async def _wait_for_the_deaf(self) -> None:
        """Wait for steps that the body gave up and that did not hear it: the run must not end beside them."""
        _, running = await asyncio.wait(self._stop.unfinished, timeout=self._execution.grace)
        if running:
            error = LabwrightError(
                "a step that the task gave up is still running",
                because=f"it did not end within {2 * self._execution.grace:g} s after it was told to",
                cure="let the step look at ctx.cancelled, or give it more time",
            )
            self._end = Stuck(reason=self._stop.reason or "timeout", error=ErrorRecord.of(error, kind="timeout"))

    def _conclude(self, outcome: Outcome) -> End:
        if self._stop.reason == "aborted":
            return Aborted(reason=self._stop.text, step=self._last_caught())
        if self._effects.left is not None and self._stop.reason is None:
            return self._effects.left
        match outcome:
            case Returned(value):
                return self._unasked() or self._succeeded(to_plain(value))
            case Raised(NotApplicable() as error):
                return self._succeeded(None, note=error.message)
            case Raised(Finding() as error):
                return self._succeeded(None, note=error.message, finding=True)
            case Raised(error):
                return self._failed(error)

    def _succeeded(self, value: Any, *, note: str | None = None, finding: bool = False) -> End:
        if self._effects.left is not None:  # told to stop while it was leaving
            return self._execution.stopped(None, "the task was waiting")
        if note is not None:
            self._marks.notes.append(note)
        if self._stop.reason == "timeout":
            self._marks.notes.append(f"ended {self._stop.late_by():.1f} s after the {self._stop.deadline}")
        said = Step(
            name="",
            position=self._next,
            finding=finding,
            note="; ".join(self._marks.notes) or None,
            result=to_plain(self._marks.result),
        )
        last = max(self._execution.finished.items(), default=(0, None), key=lambda item: item[0])[1]
        result = value if value is not None else last.output if last is not None else None
        return self._execution.success(self._last_caught(), result=result, extra=said)

    def _failed(self, error: BaseException) -> End:
        if self._stop.reason is not None:
            return self._execution.stopped(self._last_caught(), "the task's function was running")
        if id(error) in self._raised:
            return self._execution.conclude(self._raised[id(error)][1])
        return self._execution.failure(judge(error), self._last_caught())

    def _last_caught(self) -> Step | None:
        return self._caught[-1] if self._caught else None

    def _unasked(self) -> End | None:
        """Find a step that the run has done before and that the body has not asked for this time."""
        for position in sorted(self._execution.finished):
            if position >= self._next:
                return changed(self._execution.task.name, self._execution.finished[position], None)
        return None


def _required(definition: StepFunction[..., Any], params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Offer the task's parameters for what a step cannot do without; its own defaults win over them."""
    return _chosen(tuple(argument.name for argument in definition.signature.arguments if _needs(argument)), params)


def _needs(argument: Argument) -> bool:
    return argument.is_required


def _chosen(names: tuple[str, ...], params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: params[name] for name in names if name in params}


def _error_of(record: ErrorRecord, retry_after: float = 0.0) -> LabwrightError:
    if record.kind == TransientError.kind:
        return TransientError(record.message, retry_after or None, because=record.because, cure=record.cure)
    return TerminalError(record.message, because=record.because, cure=record.cure)


async def _nothing(_: TaskContext) -> None:
    """Stand for a function that is not there."""
