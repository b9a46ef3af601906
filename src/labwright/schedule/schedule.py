"""A schedule: actions bound to time points, in a plain script or notebook, without a server.

with Schedule(take_sample, inject).at(5 * every(60) + 10 * every(300)) as schedule:
schedule.join()
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from labwright.core.clock import Clock, SystemClock
from labwright.core.errors import ConflictError, DamagedError, NotRunningError, UsageError, WaitTimeoutError
from labwright.core.ids import checked_name
from labwright.plan.calendar import calendar
from labwright.plan.cron import cron
from labwright.plan.point_checks import checked_count
from labwright.plan.points import Points, Since
from labwright.plan.policies import Crash, Late, OnError, Overlap, Pause, Policies, Stop
from labwright.plan.retry import Retry
from labwright.plan.timepoints import after, at, check_names, every
from labwright.schedule.actions import Action, Lock, as_action, unique_labels
from labwright.schedule.asked import asked_by, of_a_task, of_functions, only_for_functions
from labwright.schedule.past import Remembered, remembered
from labwright.schedule.performance import Note, Performance
from labwright.schedule.plan import Addition, Also, Plan, Work
from labwright.schedule.row_file import RowFile, beside_the_script, last_run_in
from labwright.schedule.rows import Row
from labwright.schedule.table import Rows
from labwright.schedule.timeline import Timeline

HEEDING_SIGNALS_S = 0.5
BESIDE_THE_SCRIPT: Final = "beside the script"
Callables = Action | Callable[..., Any]


class Schedule:
    """Actions bound to time points.

    The actions of a point run in their order, each with the arguments of its `Action`. Every point yields a row, which
    is written to `journal` as it happens: a path, a file beside the script by default, or None to keep rows in memory
    alone. After a crash the same schedule goes on where it was, as its `crash` policy says. A `safe_state` action runs
    at every end, after an error and Ctrl-C too. `locks` are held while a point runs. `on_row` is called with each row
    when it has been written, by a thread of the schedule, which waits for it.

    In a site's package, `Schedule("rotate", on="env=prod", name="nightly").cron("30 2 * * *")` has the lab request runs
    of a task instead. `on` (a selector), `params`, `priority` and `window` (the most seconds by which a run may start
    late) are for such a one alone, which does not start in a script.

    Raises:
        UsageError: there is no action, or one of the options will not do.
    """

    def __init__(
        self,
        *actions: Callables | str,
        name: str = "",
        on: str | None = None,
        params: Mapping[str, Any] | None = None,
        priority: int = 0,
        window: float | None = None,
        overlap: Overlap | str = Overlap.WAIT,
        late: Late | str = Late.RUN,
        tolerance: float = 1.0,
        pause: Pause | str = Pause.SHIFT,
        on_error: OnError | str = OnError.NEXT_POINT,
        stop: Stop | str = Stop.AFTER_ACTION,
        crash: Crash | str = Crash.PAUSE,
        retry: Retry | None = None,
        safe_state: Callables | None = None,
        locks: Sequence[Lock] = (),
        journal: str | os.PathLike[str] | None = BESIDE_THE_SCRIPT,
        on_row: Callable[[Row], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not actions:
            raise UsageError(
                "a schedule needs an action",
                because="there is nothing that it could do at its points",
                cure="give it functions: Schedule(take_sample, inject)",
            )
        self.asked = asked_by(actions, on=on, params=params, priority=priority, window=window)
        """What a schedule of a task asks the lab for; None for one of functions."""
        self._actions = [as_action(each) for each in actions if not isinstance(each, str)]
        name = name or (self.asked.task if self.asked else "")
        self.name = checked_name(name or "-".join(unique_labels(self._actions))[:128], "schedule")
        given: dict[str, Any] = {"overlap": overlap, "late": late, "pause": pause, "on_error": on_error}
        given |= {"stop": stop, "crash": crash, "tolerance": tolerance} | ({"retry": retry} if retry else {})
        self.policies = Policies(**given)
        self._also: list[Also] = []
        self._additions: list[Addition] = []
        self._safe_state = None if safe_state is None else as_action(safe_state)
        self._locks = tuple(locks)
        self._journal = journal
        self._on_row = on_row
        self._clock = clock or SystemClock()
        self._performance: Performance | None = None
        self._starting = threading.Lock()

    def at(self, *when: Points | datetime | str, zone: str | None = None, **keywords: Any) -> Self:
        """Add time points beside those that are there: expressions, counted from the start, or instants.

        Keywords are passed through to the actions of these points: `.at(points, inject={"volume_ml": 2})`.
        """
        instants = [each for each in when if not isinstance(each, Points)]
        expressions = [each for each in when if isinstance(each, Points)]
        if instants or not when:
            expressions.append(at(*instants, zone=zone))
        for points in expressions:
            self._add(Addition([points], Work(self._take_window(keywords, zone))))
        return self

    def every(
        self,
        interval: float,
        *,
        times: int | None = None,
        first: float | None = None,
        until: float | datetime | None = None,
    ) -> Self:
        """Add a point each `interval` seconds, after those that `after` or `every` have added before."""
        points = every(interval, first=first, until=until)
        return self._follow(points if times is None else times * points)

    def after(
        self, seconds: float | Iterable[float], *, since: str | Since = Since.PLANNED, of: str | None = None
    ) -> Self:
        """Add points some seconds after the last one that `after` or `every` has added, or after another moment."""
        points = after(seconds, since=since, of=of)
        if since == Since.START or of is not None:
            self._add(Addition([points]))
            return self
        return self._follow(points)

    def cron(self, line: str, *, zone: str = "UTC", **keywords: Any) -> Self:
        """Add the local times of a cron line, beside the points that are there."""
        self._add(Addition([cron(line, zone=zone)], Work(self._take_window(keywords, zone))))
        return self

    def calendar(self, expression: str, *, zone: str | None = None, **keywords: Any) -> Self:
        """Add the local times of a calendar expression, beside the points that are there."""
        points = calendar(expression, zone=zone)
        self._add(Addition([points], Work(self._take_window(keywords, points.zone))))
        return self

    def also(self, action: Callables, *, points: Iterable[int | str] | None = None) -> Self:
        """Add an action that runs after the others, at the points with these numbers (from 1) or names alone."""
        chosen = None if points is None else frozenset(points)
        if chosen is not None and (not chosen or any(isinstance(each, int) and each < 1 for each in chosen)):
            raise UsageError(
                f"there are no points {sorted(chosen, key=str)}",
                because="points are numbered from 1",
                cure="name some, as in points=[1, 3, 5], or leave points out for all",
            )
        self._refuse_when_started("actions")
        self._also.append(Also(as_action(action), chosen))
        return self

    def insert(self, points: Points, /, *actions: Callables, **keywords: Mapping[str, Any]) -> Self:
        """Add points beside those that are there, also while it runs, with actions of their own if some are given.

        What is inserted after the start is not part of the plan with which a start goes on after a crash: insert it
        again.

        Raises:
            NotRunningError: it is over.
        """
        addition = Addition([points], Work(keywords, tuple(as_action(each) for each in actions)))
        with self._starting:
            if self._performance is None:
                self._additions.append(addition)
                return self
        if points.is_open:
            check_names([*(each.points for each in self._additions), points])
        self._performance.insert(points, addition.work)
        self._additions.append(addition)
        return self

    def withdraw(self, *names: str) -> int:
        """Take the points with these names away, save those that have begun; give how many were due next.

        Raises:
            NotRunningError: it has not been started.
        """
        return self._started.withdraw(names)

    def start(self, *, fresh: bool = False) -> Self:
        """Begin; a run that a crash has cut short goes on, unless `fresh`.

        A journal that is damaged is kept aside under another name if `fresh`.

        Raises:
            UsageError: there are no points ahead, an action does not take what it is given, or there can be no journal.
            ConflictError: it has been started, or the journal has an unfinished run of another schedule.
            DamagedError: the journal has a line that cannot be read.
            LockedError: another schedule writes to the journal.
        """
        with self._starting:
            performance, aside = self._made_ready(fresh=fresh)
        performance.start()
        if aside:
            performance.note("kept_aside", f"the damaged rows are kept in {aside}")
        return self

    def pause(self) -> None:
        """Begin no planned point until `resume`; a point that runs goes on."""
        self._started.pause()

    def resume(self) -> None:
        """Go on after a pause, as the pause policy says."""
        self._started.resume()

    def skip(self, count: int = 1) -> None:
        """Leave out the next points: their rows say `bypassed`."""
        self._started.skip(checked_count(count, "a number of points"))

    def fire(self, *actions: Callables, name: str = "", **keywords: Mapping[str, Any]) -> None:
        """Make a point now, during a pause too; keywords are passed through: `fire(inject={"volume_ml": 2})`.

        The actions are those of the schedule unless others are given.

        Raises:
            NotRunningError: it has not been started, or is over.
        """
        work = Work(keywords, tuple(as_action(each) for each in actions))
        self._started.fire(work, checked_name(name, "time point") if name else "")

    def stop(self, how: Stop | str | None = None) -> None:
        """Ask for the end, and return at once; `how` is the stop policy unless given."""
        self._started.stop(Stop(how) if how else self.policies.stop, "stopped by hand")

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end; Ctrl-C, or a termination of the process, aborts and reaches the safe state first.

        Raises:
            WaitTimeoutError: the timeout in seconds has passed; the schedule goes on.
            NotRunningError: it has not been started.
        """
        performance = self._started
        try:
            with _termination_raises():
                is_over = _wait_interruptibly(performance.finished, timeout)
        except BaseException as error:
            performance.leave(f"aborted by {type(error).__name__}", Stop.NOW)
            performance.finished.wait()
            raise
        if not is_over:
            raise WaitTimeoutError(
                f"the schedule {self.name!r} is not over after {timeout:g} s",
                because="points are left, or one still runs",
                cure="wait longer, or stop() it",
            )
        if performance.broken is not None:
            raise performance.broken

    def __enter__(self) -> Self:
        return self if self._performance else self.start()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        performance = self._started
        if error is not None:
            performance.leave(f"aborted by {type(error).__name__}", Stop.NOW)
            performance.finished.wait()
        elif not performance.finished.is_set():
            performance.leave("its block was left", self.policies.stop)
            self.join()

    @property
    def rows(self) -> Rows:
        """The rows so far."""
        return Rows(list(self._performance.rows) if self._performance else ())

    @property
    def notes(self) -> tuple[Note, ...]:
        """What happened besides: pauses, alarms about time budgets, clocks that were set."""
        return tuple(self._performance.notes) if self._performance else ()

    @property
    def started_at(self) -> datetime | None:
        """When it was started, by an earlier process if it goes on after a crash; None before."""
        return self._performance.started_at if self._performance else None

    @property
    def is_paused(self) -> bool:
        """Tell whether it is paused."""
        return self._performance is not None and self._performance.is_paused

    @property
    def is_over(self) -> bool:
        """Tell whether it has come to its end."""
        return self._performance is not None and self._performance.finished.is_set()

    def preview(self, count: int = 20, *, start: datetime | None = None) -> Timeline:
        """Show the next points as they are planned, for a start now unless told otherwise.

        Where a start now would go on with a run that was cut short, the points that are left of it are shown.
        """
        plan = self._plan()
        plan.check()
        count = checked_count(count, "a preview")
        if start is None and (before := self._unfinished(plan)):
            return Timeline.left(plan, before, count)
        begun = self._performance.started_at if self._performance else self._clock.now()
        return Timeline.planned(plan, start or begun, count)

    def timeline(self) -> Timeline:
        """Show planned and actual side by side, as far as it has come.

        Raises:
            NotRunningError: it has not been started.
        """
        return Timeline.actual(self.name, self.rows, self._started.started_at)

    def __str__(self) -> str:
        return str(self.timeline() if self._performance else self.preview())

    def _repr_html_(self) -> str:
        return (self.timeline() if self._performance else self.preview()).to_svg()

    @property
    def _started(self) -> Performance:
        if self._performance is None:
            raise NotRunningError(
                f"the schedule {self.name!r} has not been started",
                because="there is nothing to wait for, to pause or to stop",
                cure="start() it, or use it as `with schedule:`",
            )
        return self._performance

    def written(self) -> dict[str, Any]:
        """Give what a schedule of a task asks for, as the fields of a durable schedule's definition.

        Raises:
            UsageError: it is one of functions, or it has no time points, or such as cannot be written down.
        """
        if self.asked is None:
            raise of_functions(self.name)
        if self._also or self._safe_state or self._locks:
            raise only_for_functions(self.name)
        return self.asked.definition(self.name, [each.points for each in self._additions], self.policies)

    def _take_window(self, keywords: dict[str, Any], zone: str | None) -> dict[str, Any]:
        """Take what belongs to the schedule of a task out of the keywords for actions."""
        if self.asked is None:
            return keywords
        window = keywords.pop("window", self.asked.window)
        if keywords:
            raise UsageError(
                f"keywords are given for {', '.join(keywords)}",
                because=f"{self.name} has no actions: it asks for the task {self.asked.task}",
                cure="give the task's parameters as Schedule(..., params={...})",
            )
        self.asked = replace(self.asked, window=window, zone=zone or self.asked.zone)
        return keywords

    def _plan(self) -> Plan:
        return Plan(
            name=self.name,
            actions=tuple(self._actions),
            also=tuple(self._also),
            additions=tuple(self._additions),
            policies=self.policies,
            safe_state=self._safe_state,
            locks=self._locks,
            on_row=self._on_row,
        )

    def _add(self, addition: Addition) -> None:
        self._refuse_when_started("points")
        self._additions.append(addition)

    def _follow(self, points: Points) -> Self:
        """Let the points follow the last ones, if those were added one after another too."""
        self._refuse_when_started("points")
        last = next((each for each in reversed(self._additions) if each.is_row), None)
        if last is None:
            self._add(Addition([points], is_row=True))
        else:
            if not last.parts[-1].is_finite:
                _ = last.parts[-1] + points  # raises what is wrong with that
            last.parts.append(points)
        return self

    def _made_ready(self, *, fresh: bool) -> tuple[Performance, Path | None]:
        if self.asked is not None:
            raise of_a_task(self.name, self.asked.task)
        self._refuse_when_started("a start")
        plan = self._plan()
        plan.check()
        file = self._open()
        try:
            before, aside = self._before(plan, file, fresh=fresh)
            if before is None:
                plan.check_ahead(self._clock.now())
            performance = Performance(plan, self._clock, file, before)
        except BaseException:
            if file:
                file.close()
            raise
        self._performance = performance
        return performance, aside

    def _path(self) -> Path | None:
        if self._journal is None:
            return None
        return beside_the_script(self.name) if self._journal == BESIDE_THE_SCRIPT else Path(self._journal)

    def _open(self) -> RowFile | None:
        path = self._path()
        return RowFile(path) if path else None

    def _before(self, plan: Plan, file: RowFile | None, *, fresh: bool) -> tuple[Remembered | None, Path | None]:
        """Give what an earlier process left undone, and under what name a damaged file is kept."""
        if file is None:
            return None, None
        try:
            lines = file.last_run()
        except DamagedError:
            if not fresh:
                raise
            return None, file.begin_anew()
        before = remembered(lines, self._clock.now()) if lines and not fresh else None
        if before and before.plan != plan.fingerprint():
            raise ConflictError(
                f"{file.path} has an unfinished run of another schedule",
                because="a crash cut it short, and its actions or time points were not those of this one",
                cure="start(fresh=True) leaves it unfinished, and a journal=PATH of its own keeps them apart",
            )
        return before, None

    def _unfinished(self, plan: Plan) -> Remembered | None:
        """Give the run with which a start would go on; what a start would refuse is none."""
        path = None if self._performance else self._path()
        try:
            lines = last_run_in(path) if path else []
        except (DamagedError, OSError):
            return None
        before = remembered(lines, self._clock.now()) if lines else None
        return before if before and before.plan == plan.fingerprint() else None

    def _refuse_when_started(self, what: str) -> None:
        if self._performance is not None:
            raise ConflictError(
                f"the schedule {self.name!r} has been started and takes no more {what}",
                because="its plan is what a crash goes on from",
                cure="fire() makes a point now; make another schedule for another plan",
            )


def _wait_interruptibly(finished: threading.Event, timeout: float | None) -> bool:
    """Wait so that Ctrl-C is heeded: a signal that comes just before a thread begins to sleep does not wake it."""
    end_s = math.inf if timeout is None else time.monotonic() + timeout
    while not finished.wait(max(0.0, min(HEEDING_SIGNALS_S, end_s - time.monotonic()))):
        if time.monotonic() >= end_s:
            return False
    return True


@contextmanager
def _termination_raises() -> Generator[None]:
    """Have SIGTERM leave as Ctrl-C does, where nobody has said what it should do."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
