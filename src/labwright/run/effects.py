"""What the context of a real execution does: waits by leaving the step, children and words through the recorder."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, Protocol, Self

from labwright.core.clock import Clock, to_text
from labwright.core.errors import TerminalError, UsageError, WaitTimeoutError
from labwright.core.ids import hashed_id
from labwright.core.model import Instant, Run, RunState, Step, WaitingFor
from labwright.core.request import Request
from labwright.plan.steps import StepFunction
from labwright.run.ends import Waiting

RUNS = "runs"
"""What a run waits for whose children are to end."""

BODY = -1
"""The position under which a task's function itself waits and spawns; its steps count from 0."""

SPAWNS = 10_000
"""Children that one step may have."""

LONGEST_SLEEP = 10 * 366 * 86400.0

MOST_FAILURES = 5
"""An attempt is seldom tried again more often before its run fails."""

LOOK_AGAIN_S = 3600.0
"""A run that waits for others is looked at again after this time, should its wake-up be lost."""

Do = Callable[[StepFunction[..., Any], Mapping[str, Any]], Awaitable[Any]]


class ChildRuns(Protocol):
    """The children of a run, as it asks for them and acts on them."""

    async def states(self, ids: Sequence[str]) -> tuple[dict[str, RunState], int]:
        """Tell where those of these runs stand that exist, and the sequence up to which that holds at least."""
        ...

    async def run(self, run_id: str) -> Run | None:
        """Give one run as it is now; None where it does not exist."""
        ...

    async def is_tried_again(self, run_id: str, number: int) -> bool:
        """Tell whether a child was opened again, for the opening of its parent of that number."""
        ...

    async def try_again(self, run_id: str, number: int) -> bool:
        """Open a child again that has ended without success; tells whether it is there."""
        ...

    async def abort(self, run_id: str, reason: str) -> None:
        """Have a child ended early."""
        ...


class Recorder(Protocol):
    """Where an execution writes what must survive; each method returns once that is durable."""

    async def step_started(self, step: Step) -> None:
        """Write that a step which must not be repeated is about to run."""
        ...

    async def step_ended(self, step: Step) -> None:
        """Write a step that has ended and is not the run's last: succeeded, skipped, or failed and caught."""
        ...

    async def spawn(self, request: Request, number: int | str) -> str:
        """Make a child run, once for each number, and give its id; a step that runs again repeats its numbers."""
        ...

    def child_runs(self) -> ChildRuns:
        """Give what knows this run's children.

        Raises:
            NotProvidedError: nobody does here.
        """
        ...

    def log(self, level: str, text: str, fields: Mapping[str, Any]) -> None:
        """Write to the run's log; not durable at once, never blocks."""
        ...

    def progress(self, done: float, total: float | None, text: str) -> None:
        """Show how far the run is; never blocks."""
        ...


def child_id(run: str, number: int | str) -> str:
    """Give the id of a run's child of that number."""
    return hashed_id("run", run, number)


class Leave(BaseException):
    """A step gives its worker back; no user code should catch it, so it is no Exception."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in its run a context stands."""

    position: int
    name: str
    repeat: bool = True
    waits: Mapping[str, Instant]
    """Waits of the run that are over, by `position:number`."""
    tries: str = ""
    """How often the run was opened again and tried again: what its steps begin on agents is then begun anew."""
    result: Any = None
    """What the step gave as its run's result when it failed, before the run was opened again."""

    @classmethod
    def of(cls, run: Run, position: int, name: str, *, repeat: bool = True, is_same: bool = True) -> Self:
        """Give a place in a run; its waits are those of a step now gone where it is not the same as was recorded."""
        return cls(
            position=position,
            name=name,
            repeat=repeat,
            waits=run.waits if is_same else {},
            tries=f"{run.reopened}.{run.failures}",
            result=next((step.result for step in run.steps if step.position == position and is_same), None),
        )

    def over(self, number: int) -> Instant | None:
        """Give until when that wait of this place lasted, if it is over."""
        return self.waits.get(f"{self.position}:{number}")


class RunEffects:
    """The effects of one step, or of a task's function, in a real execution."""

    def __init__(self, place: Place, recorder: Recorder, clock: Clock, do: Do | None = None) -> None:
        self.cancelled = False
        self.left: Waiting | None = None
        self._place = place
        self._recorder = recorder
        self._clock = clock
        self._do = do
        self._waits = 0
        self._spawns = 0
        self._calls = 0

    def log(self, level: str, text: str, fields: Mapping[str, Any]) -> None:
        """Write to the run's log, under the step's name."""
        self._recorder.log(level, text, {"step": self._place.name, **fields} if self._place.name else fields)

    def progress(self, done: float, total: float | None, text: str) -> None:
        """Show how far the step is."""
        self._recorder.progress(done, total, text)

    def sleep(self, seconds: float) -> None:
        """Return if this sleep is over, else leave the step until it is."""
        self._check("ctx.sleep", seconds)
        number = self._next_wait()
        if seconds > 0 and self._place.over(number) is None:
            self._leave(number, seconds, "sleep")

    def polling(self, every: float, timeout: float | None, text: str) -> Callable[[], None]:
        """Give what is called after each answer that was false.

        It takes two numbers, so that a wait of any length keeps two entries: the first tells when it began.
        """
        self._check("ctx.wait_until", every if timeout is None else max(every, timeout))
        first, later = self._next_wait(), self._next_wait()
        first_pause = every if timeout is None else min(every, timeout)

        def again() -> None:
            now = self._clock.now()
            first_end = self._place.over(first)
            waited = 0.0 if first_end is None else (now - first_end).total_seconds() + first_pause
            if timeout is not None and waited >= timeout:
                raise WaitTimeoutError(
                    f"{text!r} did not hold within {timeout:g} s",
                    because=f"it was asked for {waited:.0f} s, every {every:g} s, and was never true",
                    cure="see why, or give it more time, then retry the run",
                )
            pause = every if timeout is None else min(every, timeout - waited)
            self._leave(first if first_end is None else later, pause, "condition", text)

        return again

    async def spawn(self, request: Request) -> str:
        """Make a child run."""
        if self._spawns >= SPAWNS:
            raise TerminalError(
                f"a step may have {SPAWNS} children, and {self._place.name!r} wants more",
                because="each child is a run of its own",
                cure="give each child more to do, or split the step",
            )
        number = self._place.position * SPAWNS + self._spawns
        self._spawns += 1
        return await self._recorder.spawn(request, number)

    async def child(self, request: Request, name: str) -> str:
        """Make this step's child run of that name, or find it; gives its id."""
        return await self._recorder.spawn(request, f"{self._place.position}.{name}")

    def child_id(self, run: str, name: str) -> str:
        """Give the id that the child of that name has, or will have."""
        return child_id(run, f"{self._place.position}.{name}")

    def child_runs(self) -> ChildRuns:
        """Give what knows the run's children."""
        return self._recorder.child_runs()

    async def ended(self, run_id: str) -> Run:
        """Give a child run once it has ended; until then leave the step."""
        self._check("a wait for a run", 0)
        children = self.child_runs()
        states, seen = await children.states([run_id])
        run = await children.run(run_id) if states.get(run_id, RunState.PENDING).is_final else None
        if run is None:
            self.leave_for_runs(seen, f"{run_id} to end")
        return run

    def leave_for_runs(self, seen: int, text: str) -> NoReturn:
        """Leave the step until a child run ends whose end is behind that sequence."""
        self._check("a wait for runs", 0)
        until = self._clock.now() + timedelta(seconds=LOOK_AGAIN_S)
        self.left = self.left or Waiting(
            until=until,
            waiting_for=WaitingFor(kind=RUNS, detail=text, seen=seen),
            position=self._place.position,
            number=self._next_wait(),
        )
        raise Leave

    @property
    def result_before(self) -> Any:
        """What this step gave to `ctx.set_result` when it failed, before somebody had its run tried again."""
        return self._place.result

    def next_call(self) -> tuple[str, str]:
        """Give the step's name, and what tells this call of an agent from all others of the run."""
        self._calls += 1
        place = self._place
        return place.name, f"{place.position}.{place.name}.{place.tries}.{self._calls}"

    def calls_before(self, reopened: int) -> list[str]:
        """Give what told this step's first call of an agent from others, each time before the run was opened again."""
        place = self._place
        tries = [f"{time}.{failures}" for time in range(reopened) for failures in range(MOST_FAILURES)]
        return [f"{place.position}.{place.name}.{each}.1" for each in tries]

    async def do(self, step: StepFunction[..., Any], params: Mapping[str, Any]) -> Any:
        """Do a step of a task's function."""
        if self._do is None:
            raise UsageError(
                f"the step {self._place.name!r} tries to do the step {step!r}",
                because="only a task's function has steps that are recorded",
                cure="call its function, or make the task a function with @task",
            )
        return await self._do(step, params)

    def _next_wait(self) -> int:
        self._waits += 1
        return self._waits - 1

    def _leave(self, number: int, seconds: float, kind: str, detail: str = "") -> None:
        until = self._clock.now() + timedelta(seconds=seconds)
        self.left = self.left or Waiting(
            until=until,
            waiting_for=WaitingFor(kind=kind, detail=detail or f"until {to_text(until)}"),
            position=self._place.position,
            number=number,
        )
        raise Leave

    def _check(self, what: str, seconds: float) -> None:
        if not self._place.repeat:
            raise TerminalError(
                f"the step {self._place.name!r} must not be repeated, so {what} cannot be used in it",
                because="a durable wait leaves the step and runs it again from its top",
                cure="wait in a step of its own, or drop repeat=False",
            )
        if not (math.isfinite(seconds) and seconds <= LONGEST_SLEEP):
            raise UsageError(
                f"{what} cannot take {seconds!r} seconds", because="it is a number, ten years at most", cure="mend it"
            )
