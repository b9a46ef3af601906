"""A list of time points that may change at any time, and the schedules that run them.

From the start on, points are handed over to a `Schedule`, which waits for them, runs them one at a time, and writes a
row for each. It is over when all of them are; points that come later go to another one.
"""

from __future__ import annotations

import bisect
import logging
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from labwright.compat.hein.errors import AlreadyTriggeredError, KilledError
from labwright.compat.hein.scheduler.offsets import Insertion
from labwright.compat.hein.scheduler.timepoint import ActionTimePoint
from labwright.core.clock import Clock
from labwright.core.errors import ConflictError, DamagedError, NotRunningError, UsageError, WaitTimeoutError
from labwright.plan.policies import Pause, Stop
from labwright.plan.timepoints import after
from labwright.schedule.actions import Action
from labwright.schedule.rows import Row
from labwright.schedule.schedule import Schedule
from labwright.schedule.table import Rows
from labwright.schedule.timeline import Timeline

log = logging.getLogger("labwright.compat.hein")

HEEDING_SIGNALS_S = 0.5
OF_THE_WHOLE = ("safe_state", "on_row")
"""Options that a point which is triggered before the start, or after the end, does without."""


class PointSequence:
    """Time points, and what runs them."""

    _names: ClassVar[Counter[str]] = Counter()

    def __init__(self, clock: Clock, journal: Any, options: Mapping[str, Any]) -> None:
        self.clock = clock
        self.points: list[ActionTimePoint] = []
        self.start_time: float | None = None
        self.is_killed = False
        self._journal = journal
        self._told: Callable[[Row], object] | None = options.get("on_row")
        one_at_a_time = (threading.Lock(), *options.get("locks", ()))
        self._options: dict[str, Any] = {**options, "locks": one_at_a_time, "on_row": self._note, "clock": clock}
        self._guard = threading.RLock()
        self._changed = threading.Condition(self._guard)
        self._left: list[ActionTimePoint] = []
        """Points that no schedule has been given yet."""
        self._by_row: dict[str, ActionTimePoint] = {}
        self._schedules: list[Schedule] = []
        """Those that run or have run the sequence, and those of points that were triggered beside it."""
        self._schedule: Schedule | None = None
        self._name = ""
        self._origin_s = 0.0
        self._base_s = 0.0
        """How many seconds after the start of the sequence the schedule that runs it has been started."""
        self._is_paused = False
        self._paused_s = 0.0
        self._paused_since_s = 0.0
        Schedule(Action(_nothing), name="check", journal=None, **self._options)  # refuses what will not do

    def name_after(self, words: Iterable[str]) -> None:
        """Take a name, once: another sequence of this process that is called so has another one."""
        if not self._name:
            name = re.sub(r"[^A-Za-z0-9_.:-]+", "-", "-".join(words))[:110] or "sequence"
            self._names[name] += 1
            self._name = name if self._names[name] == 1 else f"{name}-{self._names[name]}"

    @property
    def is_paused(self) -> bool:
        """Tell whether planned points wait for somebody to go on."""
        return self._is_paused or (self._schedule is not None and self._schedule.is_paused)

    @property
    def elapsed_s(self) -> float | None:
        """Give the seconds since the start."""
        return None if self.start_time is None else self.clock.monotonic() - self._origin_s

    @property
    def rows(self) -> Rows:
        """The rows so far, in the order in which the points began."""
        rows = [row for schedule in self._schedules for row in schedule.rows]
        return Rows(sorted(rows, key=lambda row: (row.started_at or row.due_at or self.clock.now()).timestamp()))

    def timeline(self) -> Timeline:
        """Show what is planned; after the start, planned and actual side by side."""
        if self.start_time is None:
            return self._schedule_of(self._left).preview(max(1, len(self._left)))
        return Timeline.actual(self._name, self.rows, datetime.fromtimestamp(self.start_time, UTC))

    def insert(self, new: Insertion, make: Callable[[float, int], ActionTimePoint]) -> None:
        """Add points, and move those that come after the place where they are put."""
        with self._guard:
            later = [point for point in self.points[new.position :] if point.is_left] if new.shift_s else []
            for number, offset in enumerate(new.offsets, 1):
                self._left.append(self.add(make(offset, number)))
            for point in later:
                if self._is_taken_back(point):
                    point.time_delta += new.shift_s
                    self._left.append(point)
            if later:
                self.points.sort(key=_offset)
        self.hand_over()

    def add(self, point: ActionTimePoint) -> ActionTimePoint:
        """Put a point in its place of the list; it is not planned by that."""
        with self._guard:
            point.parent = self
            name = point.name or ("triggered" if point.triggered else "time-point")
            point.row_name = f"{_clean(name)}-{len(self._by_row) + 1}"
            self._by_row[point.row_name] = point
            bisect.insort(self.points, point, key=_offset)
        return point

    def trigger(self, point: ActionTimePoint, keywords: Mapping[str, Any]) -> None:
        """Add a point that runs now.

        Raises:
            UsageError: keywords are given that no action takes.
        """
        point.claim()
        self.add(point)
        try:
            self.trigger_point(point, keywords)
        except UsageError:
            with self._guard:
                self.points = [each for each in self.points if each is not point]
            raise

    def change(self, point: ActionTimePoint, edit: Callable[[], object]) -> None:
        """Change the actions of a point that has not begun.

        Raises:
            AlreadyTriggeredError: it has begun just now.
        """
        with self._guard:
            was_planned = point.is_planned
            if was_planned and not self._is_taken_back(point):
                raise _begun(point)
            edit()
            if was_planned:
                self._left.append(point)
        self.hand_over()

    def start(self, *, fresh: bool) -> None:
        """Begin, or go on after a pause; with `fresh`, not with a run that a crash has cut short.

        Raises:
            KilledError: the sequence has been killed.
            UsageError: an action of a point does not take its arguments.
            ConflictError: the file of rows has an unfinished run of another sequence.
            DamagedError: the file of rows has a line that cannot be read.
        """
        with self._guard:
            if self.is_killed:
                raise KilledError(
                    "the sequence has been killed",
                    because="kill_sequence() is for good",
                    cure="make another SamplingScheduler; pause_sequence() is what start_sequence() goes on from",
                )
            if self._is_paused:
                self._is_paused = False
                self._paused_s += self.clock.monotonic() - self._paused_since_s
            is_first = self.start_time is None
            if is_first:
                self._begin_to_count()
            running = self._running
            self._changed.notify_all()
        if running:
            running.resume()
        try:
            self.hand_over(is_first=is_first, fresh=fresh)
        except BaseException as error:
            if is_first:
                self.start_time = None
            if isinstance(error, ConflictError | DamagedError):
                error.cure = error.cure.replace("start(", "start_sequence(")
            raise

    def pause(self) -> None:
        """Begin no planned point until the sequence is started again."""
        with self._guard:
            if not self._is_paused:
                self._is_paused, self._paused_since_s = True, self.clock.monotonic()
            running = self._running
        if running:
            running.pause()

    def kill(self) -> None:
        """End for good, when the point that runs has ended."""
        with self._guard:
            self.is_killed = True
            self._left.clear()
            running = self._running
            self._changed.notify_all()
        if running:
            running.stop(Stop.AFTER_POINT)

    def trigger_point(self, point: ActionTimePoint, keywords: Mapping[str, Any]) -> None:
        """Run a point now, after the one that runs; during a pause, before the start and after the end too.

        Raises:
            AlreadyTriggeredError: it has begun by itself just now.
            UsageError: keywords are given that no action takes.
        """
        with self._guard:
            if point.is_planned and not self._is_taken_back(point):
                raise _begun(point)
            running = self._running
        passed = point.keywords(keywords)
        try:
            if running:
                running.fire(*point.scheduled(), name=point.row_name, **passed)
                return
        except NotRunningError:
            pass  # it has ended meanwhile
        options = {name: value for name, value in self._options.items() if name not in OF_THE_WHOLE}
        beside = Schedule(*point.scheduled(), name="trigger", journal=None, on_row=self._note, **options)
        beside.insert(after(0).named(point.row_name), **passed)
        self._schedules.append(beside)
        beside.start()

    def join(self, timeout: float | None) -> None:
        """Wait until no point is left and none runs.

        Raises:
            WaitTimeoutError: the timeout in seconds has passed.
            NotRunningError: the sequence has not been started.
        """
        end_s = None if timeout is None else time.monotonic() + timeout
        while True:
            for schedule in tuple(self._schedules):
                schedule.join(None if end_s is None else max(0.0, end_s - time.monotonic()))
            with self._guard:
                if all(schedule.is_over for schedule in self._schedules) and (self.is_killed or not self._left):
                    return
                if self.start_time is None:
                    raise NotRunningError(
                        f"the sequence has not been started, and {len(self._left)} time points wait for that",
                        because="nothing runs them yet",
                        cure="call start_sequence() before join()",
                    )
                if self._is_paused:
                    self._wait_for_the_end_of_a_pause(end_s)

    def hand_over(self, *, is_first: bool = False, fresh: bool = False) -> None:
        """Give the points that are new to the schedule that runs, or to another one when that is over."""
        with self._guard:
            if self.start_time is None or self.is_killed or not self._left or self._is_given_to_running():
                return
            if self._is_paused:
                return
            points, self._left = self._left, []
            before = self._schedule
            self._base_s = 0.0 if is_first else self._moved_elapsed_s
            schedule = self._schedule = self._schedule_of(points)
            for point in points:
                point.is_planned = True
        try:
            if before:
                before.join()  # until it has let go of its file
            schedule.start(fresh=fresh)
        except BaseException:
            with self._guard:
                self._schedule, self._left = before, [*points, *self._left]
                for point in points:
                    point.is_planned = False
            raise
        self._schedules.append(schedule)
        self._take_up_the_past(schedule, is_first=is_first)

    def _wait_for_the_end_of_a_pause(self, end_s: float | None) -> None:
        left_s = math.inf if end_s is None else end_s - time.monotonic()
        if left_s <= 0:
            raise WaitTimeoutError(
                f"the sequence is paused, and {len(self._left)} time points are left",
                because="nothing runs them until it goes on",
                cure="call start_sequence(), and wait longer",
            )
        self._changed.wait(min(left_s, HEEDING_SIGNALS_S))

    def _begin_to_count(self) -> None:
        """Set the start of the sequence to now; what was triggered before it comes before it."""
        self.start_time = self.clock.now().timestamp()
        self._origin_s = self.clock.monotonic()
        for point in self.points:
            times = [action.time_started for action in point.actions if action.time_started is not None]
            if point.triggered and times:
                point.sequence_time_started = self.start_time
                point.time_delta = min(times) - self.start_time
        self.points.sort(key=_offset)

    def _take_up_the_past(self, schedule: Schedule, *, is_first: bool) -> None:
        """Take note of what an earlier process has done of this sequence before it died."""
        for row in schedule.rows:
            self._note(row)
        if is_first and schedule.started_at:
            self.start_time = schedule.started_at.timestamp()
            self._origin_s = self.clock.monotonic() - (self.clock.now().timestamp() - self.start_time)
        if schedule.is_paused and not self._is_paused:
            log.warning("%s: start_sequence() goes on, kill_sequence() ends the run", self._name)

    @property
    def _running(self) -> Schedule | None:
        schedule = self._schedule
        return schedule if schedule and schedule.started_at and not schedule.is_over else None

    @property
    def _moved_elapsed_s(self) -> float:
        """The seconds since the start, save pauses where points move with them."""
        moves = self._options.get("pause", Pause.SHIFT) == Pause.SHIFT
        return (self.elapsed_s or 0.0) - (self._paused_s if moves else 0.0)

    def _schedule_of(self, points: Iterable[ActionTimePoint]) -> Schedule:
        schedule = Schedule(Action(_nothing), name=self._name, journal=self._journal, **self._options)
        for point in points:
            self._plan(point, schedule)
        return schedule

    def _plan(self, point: ActionTimePoint, schedule: Schedule) -> None:
        offset = max(0.0, point.time_delta - self._base_s)
        schedule.insert(after(offset, since="start").named(point.row_name), *point.scheduled())

    def _is_given_to_running(self) -> bool:
        if self._schedule is None:
            return False
        try:
            while self._left:
                self._plan(self._left[0], self._schedule)
                self._left.pop(0).is_planned = True
        except NotRunningError:
            return False
        except UsageError:
            refused, self._left = self._left, []
            self.points = [point for point in self.points if not any(point is each for each in refused)]
            raise
        return True

    def _is_taken_back(self, point: ActionTimePoint) -> bool:
        """Take a point from the schedule or from those that wait for one; tell whether it had not begun."""
        if any(point is each for each in self._left):
            self._left = [each for each in self._left if each is not point]
            return True
        running = self._running
        if running is None or not running.withdraw(point.row_name):
            return False
        point.is_planned = False
        return True

    def _note(self, row: Row) -> None:
        point = self._by_row.get(row.name)
        if point and point.row is None:
            point.end(row)
        if self._told:
            self._told(row)


def _offset(point: ActionTimePoint) -> float:
    return point.time_delta


def _begun(point: ActionTimePoint) -> AlreadyTriggeredError:
    return AlreadyTriggeredError(
        f"{point!r} has begun just now", because="its moment had come", cure="look at what came of it"
    )


def _clean(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.:-]+", "-", name)[:100]


def _nothing() -> None:
    """Stand for the actions of a schedule whose points all have their own."""
