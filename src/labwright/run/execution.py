"""The execution of one attempt of one run, in this process: it knows steps and deadlines, and nothing of the journal.

What must survive goes through a `Recorder`; how the attempt ended comes back as one of the classes in `run/ends.py`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from labwright.core.errors import LabwrightError
from labwright.core.model import ErrorRecord, Run, Step, StepState
from labwright.core.plain import from_plain
from labwright.plan.tasks import Task, bind
from labwright.run.attempt import Attempt
from labwright.run.clients import Clients
from labwright.run.effects import Recorder
from labwright.run.ends import Aborted, End, Failed, RetryLater, Stuck, Succeeded, Waiting, changed
from labwright.run.judgement import Judgement
from labwright.run.services import Services
from labwright.run.steps import FINISHED, Broke, Done, StepRunner, Stopped, Verdict, stop_error
from labwright.run.stopping import Stop, deadline_of, uninterrupted
from labwright.run.views import Named, RunInfo

__all__ = [
    "Aborted",
    "End",
    "Execution",
    "Failed",
    "Recorder",
    "RetryLater",
    "Services",
    "Stuck",
    "Succeeded",
    "Waiting",
]

GRACE = 5.0
"""Seconds in which a step must end after it was told to."""


class Execution:
    """One attempt: `end = await Execution(task, run, recorder, services).run()`.

    `run` is the run as folded from its records, at the beginning of this attempt. Errors of the recorder, and a
    cancellation of the caller, leave `run` as exceptions after the clients have been closed.
    """

    def __init__(self, task: Task, run: Run, recorder: Recorder, services: Services, *, grace: float = GRACE) -> None:
        self.task = task
        self.services = services
        self.recorder = recorder
        self.before = run
        self.stop = Stop(services.clock)
        self.grace = grace
        self.finished: dict[int, Step] = {step.position: step for step in run.steps if step.state in FINISHED}
        self.outputs: dict[str, Any] = {}

    def abort(self, reason: str) -> None:
        """Ask for an early end; call it on the loop that runs the execution."""
        self.stop.abort(reason)

    async def run(self) -> End:
        """Run the attempt to its end."""
        deadline = deadline_of(self.services.clock, self.task.timeout, self.task.total_timeout, self.before.started_at)
        with self.stop.armed(deadline):
            self.stop.look_at_clock()
            if self.stop.reason is not None:
                return self.stopped(None, "it had not begun a step")
            try:
                params = self.task.parameters.typed(self.before.params)
            except LabwrightError as error:
                return Failed(error=ErrorRecord.of(error))
            return await self._with_clients(params)

    async def _with_clients(self, params: dict[str, Any]) -> End:
        attempt = Attempt(
            run=RunInfo.of(self.before),
            number=max(self.before.attempt, 1),
            params=Named("parameter", params),
            outputs=Named("output", self.outputs),
            services=self.services,
            clients=Clients(self.services.providers, self.services.target),
        )
        try:
            end = await self._steps(attempt)
        except BaseException:
            await uninterrupted(attempt.close(self.grace, self._report_unclosed))
            raise
        if not isinstance(end, Stuck):  # else its step may still use them, and the process ends anyway
            await uninterrupted(attempt.close(self.grace, self._report_unclosed))
        return end

    async def _steps(self, attempt: Attempt) -> End:
        from labwright.run.function_task import FunctionTask

        if lost := self._lost_step():
            return lost
        runner = StepRunner(self.before, attempt, self.recorder, self.stop, self.grace)
        if self.task.function is not None:
            return await FunctionTask(self, attempt, runner).run()
        if changed := self._changed():
            return changed
        for step in self.finished.values():
            self.keep(step)
        return await self._list_of_steps(attempt, runner)

    async def _list_of_steps(self, attempt: Attempt, runner: StepRunner) -> End:
        last = len(self.task.steps) - 1
        for position, definition in enumerate(self.task.steps):
            if position in self.finished:
                continue
            try:
                arguments = bind(definition, attempt.params, self.outputs, {})
            except LabwrightError as error:
                return self.conclude(runner.fail(definition, position, error))
            verdict = await runner.perform(definition, position, arguments)
            if not isinstance(verdict, Done):
                return self.conclude(verdict)
            self.keep(verdict.step)
            if self.stop.reason == "aborted":
                return Aborted(reason=self.stop.text, step=verdict.step)
            if verdict.whole_task or position == last:
                return self.success(verdict.step)
            if self.stop.reason is not None:
                return self.stopped(verdict.step, f"{last - position} more steps were to come")
            await uninterrupted(self.recorder.step_ended(verdict.step))
        return self.success(None)

    def keep(self, step: Step) -> None:
        """Remember a step that has finished, and its output in the form that also comes back after a crash."""
        self.finished[step.position] = step
        self.outputs[step.name] = from_plain(step.output)

    def success(self, step: Step | None, *, result: Any = None, extra: Step | None = None) -> Succeeded:
        """End well; the result is what was set, else what is given, else the last step's output."""
        steps = [self.finished[position] for position in sorted(self.finished)]
        steps += [extra] if extra is not None else []
        chosen = [said.result for said in steps if said.result is not None]
        last = steps[-1].output if steps else None
        notes = list(dict.fromkeys(said.note for said in steps if said.note))
        return Succeeded(
            result=chosen[-1] if chosen else result if result is not None else last,
            note="; ".join(notes) or None,
            finding=any(said.finding for said in steps),
            step=step,
        )

    def conclude(self, verdict: Verdict) -> End:
        """Turn the end of a step that did not succeed into the end of the attempt."""
        match verdict:
            case Broke(step=step, judgement=judgement):
                return self.failure(judgement, step)
            case Stopped(step=step):
                return self.stopped(step, f"the step {step.name!r} was running")
            case Done(step=step):
                return self.success(step)
            case Waiting() | Stuck():
                return verdict

    def failure(self, judgement: Judgement, step: Step | None) -> End:
        """Decide whether a failed attempt is tried again."""
        if not judgement.is_transient:
            return Failed(error=judgement.error, step=step)
        return self._again(judgement.error, step, judgement.retry_after)

    def stopped(self, step: Step | None, because: str) -> End:
        """End early, as the word to stop says."""
        error = stop_error(self.stop, because)
        if self.stop.reason != "timeout":
            return Aborted(reason=self.stop.text, step=step)
        is_final = self.stop.deadline is not None and self.stop.deadline.is_total
        if is_final or not self.task.retry.timeouts:
            return Failed(error=error, step=step)
        return self._again(error, step, 0.0)

    def _again(self, error: ErrorRecord, step: Step | None, retry_after: float) -> End:
        failures = self.before.failures + 1
        if not self.task.retry.allows_another(failures):
            return Failed(error=_exhausted(error, failures), step=step)
        pause = max(self.task.retry.delay(failures, self.services.random()), retry_after)
        at = self.services.clock.now() + timedelta(seconds=pause)
        deadline = self.stop.deadline
        if deadline is not None and deadline.moment is not None and at >= deadline.moment:
            return Failed(error=_too_late(error, self.task.total_timeout or 0.0), step=step)
        return RetryLater(error=error, at=at, step=step)

    def _lost_step(self) -> Failed | None:
        """Find a step that must not be repeated and was begun by an attempt that is gone."""
        for step in self.before.steps:
            has_waited = any(key.startswith(f"{step.position}:") for key in self.before.waits)
            if step.state is StepState.RUNNING and not has_waited and not self._is_repeatable(step):
                lost = LabwrightError(
                    f"it is not known what became of the step {step.name!r}",
                    because="its worker died while it ran, and it must not be repeated by itself",
                    cure="see what it did, then retry the run (which runs the step again) or leave it",
                )
                error = ErrorRecord.of(lost, kind="lost")
                failed = step.model_copy(update={"state": StepState.FAILED, "error": error})
                return Failed(error=error, step=failed)
        return None

    def _is_repeatable(self, step: Step) -> bool:
        steps = self.task.steps
        return step.position < len(steps) and steps[step.position].name == step.name and steps[step.position].repeat

    def _changed(self) -> Failed | None:
        """Find a finished step that is not where it was: finished steps must be the first ones, in their order."""
        names = [definition.name for definition in self.task.steps]
        for place, position in enumerate(sorted(self.finished)):
            step = self.finished[position]
            if place != position or place >= len(names) or names[place] != step.name:
                return changed(self.task.name, step, names[place] if place < len(names) else None)
        return None

    def _report_unclosed(self, kind: str, error: BaseException) -> None:
        self.recorder.log("warning", "a client could not be closed", {"client": kind, "error": repr(error)})


def _exhausted(error: ErrorRecord, attempts: int) -> ErrorRecord:
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    return error.model_copy(update={"message": f"did not succeed after {times}: {error.message}"})


def _too_late(error: ErrorRecord, total_s: float) -> ErrorRecord:
    message = f"no time is left for another attempt within the total timeout of {total_s:g} s: {error.message}"
    cure = "give the task a longer total_timeout, then retry the run"
    late = ErrorRecord.of(LabwrightError(message, because=error.because, cure=cure), kind="timeout")
    return late.model_copy(update={"traceback": error.traceback})
