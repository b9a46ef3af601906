"""Rehearsals: run a whole task in memory, and kill it at every moment that matters.

The records, the fold and the execution are the real ones; only the journal is a list, and time moves by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Never

from labwright.core.model import Cause, Run, RunState, Step
from labwright.core.request import Request
from labwright.journal import records
from labwright.journal.fold import apply
from labwright.plan.tasks import Task
from labwright.run.clients import not_provided
from labwright.run.effects import child_id
from labwright.run.ends import End
from labwright.run.execution import Execution
from labwright.run.recording import record_of
from labwright.run.steps import FINISHED
from labwright.testing.clock import ManualClock
from labwright.testing.fake import FakeContext, LogLine

Moment = Literal["before its record", "after its record"]
MakeContext = Callable[[], FakeContext]

RUN = "run_rehearsal"
ATTEMPTS = 1000
"""Attempts after which a rehearsal gives up on a run that does not end."""


@dataclass(frozen=True)
class Crash:
    """One death of the process, when a step had ended; `ran_again` names the steps that ran once more after it."""

    step: str
    position: int
    moment: Moment
    ran_again: tuple[str, ...]
    run: Run


@dataclass(frozen=True)
class CrashReport:
    """What a rehearsal has seen: the undisturbed run, and each crash."""

    undisturbed: Run
    crashes: tuple[Crash, ...]

    def __str__(self) -> str:
        lines = [f"undisturbed: {_ending(self.undisturbed)}"]
        for crash in self.crashes:
            again = ", ".join(crash.ran_again) or "nothing"
            lines.append(f"killed {_when(crash)}: {again} ran again; {_ending(crash.run)}")
        return "\n".join(lines)


class Died(BaseException):
    """The process is killed here; no code of a task may catch it."""


@dataclass
class MemoryRun:
    """One run whose records are a list; a `Recorder`."""

    task: Task
    context: FakeContext
    deaths: set[tuple[int, Moment]] = field(default_factory=set[tuple[int, Moment]])
    killed: dict[int, str] = field(default_factory=dict[int, str])
    ran_again: list[str] = field(default_factory=list[str])

    def request(self, params: Mapping[str, Any]) -> None:
        """Make the run."""
        target = self.context.services().target
        requested = records.Requested(
            task=self.task.name,
            params=dict(params),
            cause=Cause(kind="operator", id="rehearsal"),
            target=target.name if target else None,
        )
        self.run: Run = apply(None, self._dated(requested), RUN) or _impossible()

    async def to_its_end(self) -> Run:
        """Run attempt after attempt, through waits, retries and deaths."""
        for attempt in range(1, ATTEMPTS):
            self._start(attempt)
            try:
                self._finish(await self._execution().run())
            except Died:
                self._append(records.AttemptLost(token=self.run.token, reason="killed by the rehearsal"))
            if self.run.state.is_final:
                return self.run
            self._pass_time()
        raise AssertionError(
            f"the task {self.task.name!r} has not ended after {ATTEMPTS} attempts: {_ending(self.run)}"
        )

    async def step_started(self, step: Step) -> None:
        """Keep the record that a step which must not be repeated is about to run."""
        self._append(records.StepStarted(token=self.run.token, step=step))

    async def step_ended(self, step: Step) -> None:
        """Keep the record of a step, unless the process dies first."""
        self._die(step, "before its record")
        self._append(records.StepEnded(token=self.run.token, step=step))
        self._die(step, "after its record")

    async def spawn(self, request: Request, number: int | str) -> str:
        """Keep the request for a child."""
        if request not in self.context.spawned:
            self.context.spawned.append(request)
        return child_id(RUN, number)

    def child_runs(self) -> Never:
        """Say that children are only kept as requests here."""
        raise not_provided("what became of its children", {}, "run it in a lab()", ".with_fleet(...) for ctx.fleet")

    def log(self, level: str, text: str, fields: Mapping[str, Any]) -> None:
        """Keep a line of the log."""
        self.context.lines.append(LogLine(level, text, fields))

    def progress(self, done: float, total: float | None, text: str) -> None:
        """Keep how far a step was."""
        self.context.progressed.append((done, total, text))

    def _execution(self) -> Execution:
        services = dataclasses.replace(self.context.services(), watch=self._watch)
        return Execution(self.task, self.run, self, services)

    def _watch(self, step: Step) -> None:
        recorded = {done.position for done in self.run.steps if done.state in FINISHED}
        if step.position in recorded:
            raise AssertionError(f"the recorded step {step.name!r} runs again")
        if step.position in self.killed:
            self.ran_again.append(self.killed.pop(step.position))

    def _start(self, attempt: int) -> None:
        names = tuple(step.name for step in self.task.steps) if not self.run.steps else None
        self._append(records.Started(token=self.run.token + 1, attempt=attempt, worker="rehearsal", steps=names))

    def _finish(self, end: End) -> None:
        if end.step is not None:
            self._die(end.step, "before its record")
        self._append(record_of(end, self.run.token))
        if end.step is not None and not self.run.state.is_final:
            self._die(end.step, "after its record")
        if self.run.stuck is not None:
            self._append(records.AttemptLost(token=self.run.token, reason="its step did not end"))

    def _die(self, step: Step, moment: Moment) -> None:
        if step.state in FINISHED and (step.position, moment) in self.deaths:
            self.deaths.discard((step.position, moment))
            if moment == "before its record":
                self.killed[step.position] = step.name
            raise Died

    def _append(self, record: records.Record) -> None:
        self.run = apply(self.run, self._dated(record), RUN) or _impossible()

    def _dated(self, record: records.Record) -> Any:
        return record.model_copy(update={"at": self.context.now()})

    def _pass_time(self) -> None:
        clock, due = self.context.clock, self.run.next_attempt_at
        if due is not None and isinstance(clock, ManualClock):
            clock.advance(max(0.0, (due - clock.now()).total_seconds()))


async def run_task(task: Task, context: FakeContext | None = None, *, params: Mapping[str, Any] | None = None) -> Run:
    """Run a whole task in memory, retries, sleeps and waits included, and give the run as it ended.

    Parameters come from `params`, else from the context. Time is the context's manual clock, which jumps over pauses.

    Raises:
        ParameterError: the parameters do not fit the task.
    """
    return (await _run(task, context or FakeContext(), params)).run


async def crash_after_every_step(
    task: Task,
    make_context: MakeContext = FakeContext,
    *,
    params: Mapping[str, Any] | None = None,
    same_result: bool = True,
) -> CrashReport:
    """Kill the process after each step's end, once before and once after its record, and let the run go on each time.

    `make_context` makes a fresh world for each of these runs. Every one must end like the undisturbed run (with
    `same_result`, with an equal result too), except that a step with `repeat=False` killed before its record fails the
    run with kind `lost`, as it would in life.

    Raises:
        AssertionError: a run ended otherwise; the message tells the story.
    """
    undisturbed = await _run(task, make_context(), params)
    crashes: list[Crash] = []
    for step in undisturbed.run.steps:
        for moment in _moments(step, undisturbed.run):
            memory = await _run(task, make_context(), params, {(step.position, moment)})
            crash = Crash(step.name, step.position, moment, tuple(memory.ran_again), memory.run)
            _check(task, undisturbed.run, crash, same_result=same_result)
            crashes.append(crash)
    return CrashReport(undisturbed.run, tuple(crashes))


async def run_every_step_twice(
    task: Task,
    make_context: MakeContext = FakeContext,
    *,
    params: Mapping[str, Any] | None = None,
    same_result: bool = True,
) -> CrashReport:
    """Run the task once with a death before the record of every step, so that each runs twice; it must end the same.

    Steps with `repeat=False` run once.

    Raises:
        AssertionError: it ended otherwise; the message tells the story.
    """
    undisturbed = await _run(task, make_context(), params)
    once = {step.name for step in task.steps if not step.repeat}
    twice = [step for step in undisturbed.run.steps if step.state in FINISHED and step.name not in once]
    deaths: set[tuple[int, Moment]] = {(step.position, "before its record") for step in twice}
    memory = await _run(task, make_context(), params, deaths)
    names = ", ".join(step.name for step in twice)
    crash = Crash(names, -1, "before its record", tuple(memory.ran_again), memory.run)
    _check(task, undisturbed.run, crash, same_result=same_result)
    return CrashReport(undisturbed.run, (crash,))


async def _run(
    task: Task,
    context: FakeContext,
    params: Mapping[str, Any] | None,
    deaths: set[tuple[int, Moment]] | None = None,
) -> MemoryRun:
    memory = MemoryRun(task, context, set(deaths or ()))
    memory.request(task.validated(dict(context.params) if params is None else params))
    await memory.to_its_end()
    return memory


def _moments(step: Step, run: Run) -> tuple[Moment, ...]:
    if step.state not in FINISHED:
        return ()
    is_last = step.position == max(other.position for other in run.steps)
    return ("before its record",) if is_last else ("before its record", "after its record")


def _check(task: Task, undisturbed: Run, crash: Crash, *, same_result: bool) -> None:
    if crash.run.error is not None and crash.run.error.kind == "lost" and crash.moment == "before its record":
        return
    is_same = crash.run.state is undisturbed.state and (not same_result or crash.run.result == undisturbed.result)
    if not is_same:
        again = ", ".join(crash.ran_again) or "nothing"
        raise AssertionError(
            f"the task {task.name!r} does not survive a crash.\n"
            f"  Undisturbed, {_ending(undisturbed)}.\n"
            f"  Killed {_when(crash)}, {again} ran again, and {_ending(crash.run)}.\n"
            "  A step may run more than once: let it look at what is there before it acts, or mark it repeat=False."
        )


def _when(crash: Crash) -> str:
    if crash.position < 0:
        return f"before the record of each of its steps ({crash.step})"
    return f"when step {crash.position + 1}, {crash.step!r}, had ended, {crash.moment} was written"


def _ending(run: Run) -> str:
    if run.error is not None and run.state is not RunState.SUCCEEDED:
        return f"the run ended {run.state} ({run.error.kind}: {run.error.message})"
    return f"the run ended {run.state} with result {run.result!r}"


def _impossible() -> Run:
    raise AssertionError("a rehearsal's run vanished")
