"""One performance of a schedule, from its start to its end, by threads that take turns at waiting.

One of them waits on a condition until the next point is due and is woken by whoever changes something. What is to be
done is the course's to say; what has happened is written before anything else happens.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

from labwright.core.clock import Clock, MovedClock, to_text
from labwright.core.errors import NotRunningError, UsageError
from labwright.plan.points import BEGINNING, Points
from labwright.plan.policies import Crash, Stop
from labwright.schedule.actions import hold
from labwright.schedule.clocks import ClockWatch
from labwright.schedule.coroutines import Coroutine, Coroutines
from labwright.schedule.course import Course
from labwright.schedule.orders import FIRED, Abandon, Begin, Due, Halt, Key, Miss, Now, Order
from labwright.schedule.past import Remembered
from labwright.schedule.plan import Plan, Work
from labwright.schedule.point_run import PointRun
from labwright.schedule.row_file import Line, RowFile
from labwright.schedule.rows import Outcome, Row, error_of
from labwright.schedule.timers import Timers

log = logging.getLogger("labwright.schedule")

LONGEST_SLEEP_S = 30.0
"""Nothing tells a process that the clock was set or the machine slept, so a longer wait looks at the clocks between."""
SETTLING_S = 60.0
HOW_TO_GO_ON = "look at what it left, then resume() goes on, and stop() ends the run"
HOW_TO_COME_BACK = "start it again and call resume() to go on, or start(fresh=True) to begin anew"


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that happened to the schedule and is no point: a pause, an alarm, a clock that was set."""

    at: datetime
    kind: str
    text: str


class Performance:
    """A schedule that runs."""

    def __init__(self, plan: Plan, clock: Clock, file: RowFile | None, before: Remembered | None) -> None:
        self.plan = plan
        self.rows: list[Row] = list(before.rows if before else [])
        self.notes: list[Note] = []
        self.finished = threading.Event()
        self.broken: BaseException | None = None
        self._clock = clock
        self._file = file
        self._changed = threading.Condition()
        self._origin_s = clock.monotonic() - (before.past.now_s if before else 0.0)
        self.started_at = before.started_at if before else clock.now()
        self._course = Course(plan.points(), plan.policies, self.started_at, before.past if before else None)
        self._work = dict(enumerate(plan.work_of_strands()))
        self._before = before
        self._watch = ClockWatch(clock)
        self._runs: dict[Key, PointRun] = {}
        self._begun: dict[Key, Now] = {}
        self._fired: dict[Key, Work] = {}
        self._asleep: set[PointRun] = set()
        self._timers = Timers()
        self._coroutines = Coroutines()
        self._stopped = ""
        self._is_ending = False
        """Whether nothing is left to be done, so that nothing can be added."""
        self._awaits_word = False
        """Whether it went on after a crash, is paused, and nobody has said yet how to go on."""
        self._is_left = False
        """Whether it ends unfinished, for a later start to go on with."""
        self._asked = 0
        self._answered = -1
        self._ready: deque[PointRun] = deque()
        self._turn = threading.Lock()
        self._spares = 0
        self._threads: set[int | None] = set()

    def start(self) -> None:
        """Begin to wait for the points."""
        if not self._before:
            plan = self.plan.fingerprint() if self._file else ""
            self._write({"record": "started", "at": to_text(self.started_at), "plan": plan})
        atexit.register(self.leave_at_exit)
        if isinstance(self._clock, MovedClock):
            self._clock.attach(self)
        with self._changed:
            self._go_on_after_crash()
            self._keep_a_spare()
        self._settle()

    @property
    def is_paused(self) -> bool:
        """Tell whether planned points wait for somebody to resume."""
        return self._course.is_paused

    def pause(self) -> None:
        """Begin no planned point."""
        with self._changed:
            if not self._course.is_paused:
                self._pause("paused", "paused by hand")

    def resume(self) -> None:
        """Go on after a pause."""
        with self._changed:
            if self._course.is_paused:
                now = self._now()
                self._awaits_word = False
                self._write({"record": "resumed", "elapsed_s": now.elapsed_s})
                self.note("resumed", "resumed by hand")
                self._obey(self._course.resume(now))
                self._ask()
        self._settle()

    def skip(self, count: int) -> None:
        """Leave out the next points."""
        with self._changed:
            self._course.skip(count)

    def fire(self, work: Work, name: str) -> None:
        """Make a point now.

        Raises:
            NotRunningError: the schedule is over.
        """
        self.plan.check_work(work)
        with self._changed:
            self._refuse_when_over()
            due, orders = self._course.fire(self._now(), name)
            self._fired[due.key] = work
            self._obey(orders)
            self._ask()
        self._settle()

    def insert(self, points: Points, work: Work) -> None:
        """Add points.

        Raises:
            NotRunningError: the schedule is over.
        """
        self.plan.check_work(work)
        with self._changed:
            self._refuse_when_over()
            self._work |= dict.fromkeys(self._course.insert(points), work)
            self._ask()

    def withdraw(self, names: Collection[str]) -> int:
        """Take points that have not begun away, and give how many."""
        with self._changed:
            count = self._course.withdraw(names)
            self._ask()
        return count

    def stop(self, how: Stop, reason: str) -> None:
        """Ask for the end."""
        with self._changed:
            if self.finished.is_set():
                return
            if not self._stopped:
                self._stopped = reason
                self.note("stopped", reason)
                if not self._is_left:
                    self._obey(self._course.stop(self._now(), reason))
            for run in list(self._runs.values()):
                if how is not Stop.AFTER_POINT:
                    run.tell(reason, cancel=how is Stop.NOW)
                if how is Stop.NOW:
                    self._let_go(run)
            self._ask()

    def leave_at_exit(self) -> None:
        """End at the end of the program, safe state included."""
        self.leave("the program ended", Stop.NOW)
        self.finished.wait()

    def leave(self, reason: str, how: Stop) -> None:
        """Ask for the end because whoever started it goes on no longer.

        Where a pause after a crash still waits for somebody's word, nobody has given it by that: the run stays
        unfinished.
        """
        with self._changed:
            if self._awaits_word and not self._stopped and not self.finished.is_set():
                self._is_left = True
                self.note("left_unfinished", f"{reason}; the run stays unfinished: {HOW_TO_COME_BACK}")
            self.stop(how, reason)

    def wakes_in(self) -> float | None:
        """Tell after how many seconds the next thing is to be done."""
        with self._changed:
            return None if self._is_own_thread() or self.finished.is_set() else self._seconds_to_next(self._now())

    def wake(self) -> None:
        """Do what is due now and return when all of it has ended; for clocks that are moved."""
        with self._changed:
            if self._is_own_thread():
                return
            self._ask()
            if not self._changed.wait_for(self._is_settled, SETTLING_S):
                raise UsageError(
                    f"an action of {self.plan.name!r} does not end",
                    because="a clock that is moved by hand waits for the actions that are due",
                    cure="let the action end by itself in this test",
                )

    def begins(self, run: PointRun) -> None:
        """Write that a point begins, before it does."""
        with self._changed:
            due = run.due
            if due.key not in self._runs:
                return
            moments = {"planned_at": _text(due.planned_at), "due_at": _text(due.due_at)}
            self._write({"record": "begun", "key": due.key, "point": due.number, "name": due.name, **moments})
            now = self._now()
            self._begun[due.key] = now
            self._course.started(due, now)
            self._ask()

    def alarm_in(self, seconds: float, ring: Callable[[], None]) -> Callable[[], None]:
        """Have something done after some seconds."""
        with self._changed:
            timer = self._timers.add(self._clock.monotonic() + seconds, ring)
            self._ask()
        return lambda: self._timers.call_off(timer)

    def over_budget(self, run: PointRun, label: str, budget: float) -> None:
        """Raise the alarm about an action that takes too long."""
        which = f"point {run.due.number}" if run.due.number else run.due.name
        self.note("over_budget", f"{label} at {which} takes longer than its {budget:g} s")

    def sleeps(self, run: PointRun, *, is_asleep: bool) -> None:
        """Take note that a point waits for time to pass."""
        with self._changed:
            (self._asleep.add if is_asleep else self._asleep.discard)(run)
            self._changed.notify_all()

    def coroutine(self, awaitable: Awaitable[Any]) -> Coroutine:
        """Run a coroutine on the schedule's own loop."""
        return self._coroutines.run(awaitable)

    def _live(self) -> None:
        """Take turns with the other threads: who wakes for a point performs it at once, and another waits on."""
        while True:
            with self._turn:
                with self._changed:
                    self._spares -= 1
                run = self._turn_taken()
            if run is None:
                return
            self._perform(run)
            with self._changed:
                self._spares += 1

    def _turn_taken(self) -> PointRun | None:
        """Wait for a point to perform; None at the end, which whoever waits just then brings about."""
        if self.finished.is_set():
            return None
        try:
            run = self._next_run()
        except BaseException as error:  # noqa: BLE001 - such as a full disk: kept for join(), which raises it
            self.broken, run = error, None
        if run is None:
            self._end_everything()
        return run

    def _end_everything(self) -> None:
        try:
            self._finish()
        except BaseException as error:  # noqa: BLE001 - as above
            self.broken = self.broken or error
        atexit.unregister(self.leave_at_exit)
        with self._changed:
            self.finished.set()
            self._changed.notify_all()

    def _next_run(self) -> PointRun | None:
        with self._changed:
            while True:
                asked = self._asked
                now = self._now()
                for kind, text in self._watch.look(now.wall):
                    self.note(kind, text)
                if not self._stopped:
                    self._obey(self._course.advance(now))
                self._timers.ring(self._clock.monotonic())
                if self._ready:
                    self._keep_a_spare()
                    return self._ready.popleft()
                if not self._runs and (self._stopped or self._course.is_over or self.broken):
                    self._is_ending = True
                    return None
                self._keep_a_spare()
                if asked == self._asked:
                    self._answered = asked
                    self._changed.notify_all()
                    self._sleep(now)

    def _keep_a_spare(self) -> None:
        """Have a thread ready to wait on when this one performs a point; starting one takes time."""
        if self._spares == 0:
            self._spares += 1
            thread = threading.Thread(target=self._live, name=f"labwright-{self.plan.name}", daemon=True)
            thread.start()
            self._threads.add(thread.ident)

    def _go_on_after_crash(self) -> None:
        if self._before is None:
            return
        for key, row in self._before.fired.items():
            self._add_row(Due(key=key, point=BEGINNING, policies=self.plan.policies), row)
        orders = self._course.advance(self._now())
        self.note("went_on", "an earlier run was cut short; its rows are kept")
        interrupted = [each for each in orders if isinstance(each, Miss) and each.outcome is Outcome.INTERRUPTED]
        self._obey(orders)
        crash = [each.due.policies.crash for each in interrupted] + [self.plan.policies.crash] * len(self._before.fired)
        if Crash.PAUSE in crash and not self._course.is_paused:
            self._pause("paused_by_crash", f"a point was interrupted by a crash; {HOW_TO_GO_ON}")
        elif self._course.is_paused:
            self.note("paused_by_crash", f"the schedule was paused when its process died; {HOW_TO_GO_ON}")
        self._awaits_word = self._course.is_paused

    def _sleep(self, now: Now) -> None:
        wait = self._seconds_to_next(now)
        if isinstance(self._clock, MovedClock):
            self._changed.wait()
            return
        longest = LONGEST_SLEEP_S if wait is None else min(wait, LONGEST_SLEEP_S)
        self._watch.expect(longest)
        self._changed.wait(longest)

    def _seconds_to_next(self, now: Now) -> float | None:
        waits = [] if self._stopped else [self._course.wakes_in(now)]
        waits.append(self._timers.wait_s(self._clock.monotonic()))
        return min((wait for wait in waits if wait is not None), default=None)

    def _obey(self, orders: Iterable[Order]) -> None:
        for order in orders:
            match order:
                case Begin(due):
                    self._begin(due)
                case Miss(due, outcome, reason):
                    self._add_row(due, _missed(due, outcome, reason))
                case Abandon(due, reason):
                    if run := self._runs.get(due.key):
                        run.tell(reason, cancel=True)
                case Halt(reason):
                    self.stop(self.plan.policies.stop, reason)

    def _begin(self, due: Due) -> None:
        work = self._fired.pop(due.key) if due.key[0] == FIRED else self._work[due.key[0]]
        run = PointRun(due, self.plan.calls(due, work), self)
        self._runs[due.key] = run
        self._ready.append(run)

    def _perform(self, run: PointRun) -> None:
        """Run a point in this thread."""
        try:
            with hold(self.plan.locks):
                run.run()
            with self._changed:
                if run.due.key in self._runs:
                    self._end(run)
            if file := self._file:
                file.make_lasting()
        except BaseException as error:  # noqa: BLE001 - such as a full disk: the schedule ends, join() raises it
            with self._changed:
                self.broken = error
                self._runs.pop(run.due.key, None)
                self._stopped = self._stopped or "the schedule broke"
                self._ask()

    def _end(self, run: PointRun) -> None:
        now = self._now()
        self._add_row(run.due, self._row(run, now), now)
        self._runs.pop(run.due.key)
        orders = self._course.ended(run.due, now, is_failed=run.outcome is Outcome.FAILED and not self._stopped)
        self._obey(() if self._is_left else orders)
        self._ask()

    def _let_go(self, run: PointRun) -> None:
        """Write the row of a point that is not waited for; what its thread still does counts no more."""
        now = self._now()
        row = replace(self._row(run, now), outcome=Outcome.ABORTED, reason=run.told)
        self._add_row(run.due, row, now)
        self._runs.pop(run.due.key)

    def _row(self, run: PointRun, now: Now) -> Row:
        due = run.due
        begun = self._begun.get(due.key)
        started_at = begun.wall if begun else None
        return Row(
            point=due.number,
            name=due.name,
            planned_at=due.planned_at,
            due_at=due.due_at,
            started_at=started_at,
            ended_at=now.wall if begun else None,
            lateness_s=self._course.lateness_s(due, begun) if begun else None,
            outcome=run.outcome,
            reason=run.reason,
            args=run.arguments,
            result=run.given,
            error=run.described_error,
        )

    def _add_row(self, due: Due, row: Row, now: Now | None = None) -> None:
        begun = self._begun.pop(due.key, None)
        now = now or self._now()
        moments = {"started_s": (begun or now).elapsed_s, "ended_s": now.elapsed_s}
        if self._file:
            told = {"point": row.point, "row": row.as_dict(), **moments, "paused_s": self._course.paused_s}
            self._write({"record": "row", "key": due.key, **told})
        self.rows.append(row)
        if self.plan.on_row:
            try:
                self.plan.on_row(row)
            except Exception:
                log.exception("%s: what was to be told of each row has raised", self.plan.name)

    def _finish(self) -> None:
        try:
            self._reach_safe_state()
        finally:
            self._coroutines.close()
            if isinstance(self._clock, MovedClock):
                self._clock.detach(self)
            self._close_the_file()

    def _close_the_file(self) -> None:
        with self._changed:
            file, self._file = self._file, None
        if file:
            if not self._is_left:
                file.write({"record": "over", "at": to_text(self._clock.now())})
            file.make_lasting()
            file.close()

    def _reach_safe_state(self) -> None:
        action = self.plan.safe_state
        if action is None:
            return
        try:
            with action.held():
                result = action.call({})
                if isinstance(result, Awaitable):
                    self._coroutines.run(cast("Awaitable[Any]", result)).result()
            self.note("safe_state", f"{action.label} has run")
        except Exception as error:
            self.note("safe_state_failed", f"{action.label} raised {error_of(error)['message']}")
            raise

    def _refuse_when_over(self) -> None:
        if self._stopped or self._is_ending or self.broken:
            raise NotRunningError(
                f"the schedule {self.plan.name!r} is over",
                because=self._stopped or "all of its points are done",
                cure="make another one for more points",
            )

    def _settle(self) -> None:
        """Where the clock is moved by hand, let what is due now happen before the caller goes on."""
        if isinstance(self._clock, MovedClock):
            self.wake()

    def _now(self) -> Now:
        return Now(self._clock.monotonic() - self._origin_s, self._clock.now())

    def _pause(self, kind: str, reason: str) -> None:
        now = self._now()
        self._course.pause(now)
        self._write({"record": "paused", "elapsed_s": now.elapsed_s})
        self.note(kind, reason)
        self._ask()

    def note(self, kind: str, text: str) -> None:
        """Take note of something that happened and is no point."""
        with self._changed:
            note = Note(at=self._clock.now(), kind=kind, text=text)
            self.notes.append(note)
            self._write({"record": "note", "at": to_text(note.at), "kind": kind, "text": text})
        log.log(logging.INFO if kind in QUIET else logging.WARNING, "%s: %s", self.plan.name, text)

    def _write(self, line: Line) -> None:
        if self._file:
            self._file.write(line)

    def _ask(self) -> None:
        """Have the waiting thread look again."""
        self._asked += 1
        self._changed.notify_all()

    def _is_settled(self) -> bool:
        is_quiet = self._answered == self._asked and self._asleep.issuperset(self._runs.values())
        return is_quiet or self.finished.is_set()

    def _is_own_thread(self) -> bool:
        """Tell whether an action, or the waiting thread itself, asks."""
        return threading.get_ident() in self._threads


QUIET = frozenset({"paused", "resumed", "stopped", "safe_state"})
"""Kinds of notes that somebody has asked for; the others are warnings."""


def _missed(due: Due, outcome: Outcome, reason: str) -> Row:
    return Row(
        point=due.number,
        name=due.name,
        planned_at=due.planned_at,
        due_at=due.due_at,
        outcome=outcome,
        reason=reason,
    )


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else to_text(moment)
