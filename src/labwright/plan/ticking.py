"""What a durable schedule has to do now: which points get runs, which do not and why, and when to look again.

Pure: given where the schedule stands, what time it is and whether its runs are open. All policies of durable schedules
are kept here and nowhere else.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from labwright.plan.durable import DuePoint, MissedPoint, PointOutcome, ScheduleSnapshot, ScheduleState
from labwright.plan.points import TimePoint
from labwright.plan.policies import Late, Overlap, Pause
from labwright.plan.upcoming import upcoming

BATCH = 1000
"""How many points are settled at once, so that what was missed in days is written in few records."""
MOST_WAITING = 100
MOST_MADE = 64


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a schedule cannot know by itself.

    What was due before `up_since` was missed, since no ticker was up. `is_busy` tells whether runs of it are open.
    `begun` are the planned moments of points that have runs already, although they are not settled: who made them died,
    or was overtaken. These are made whole.
    """

    now: datetime
    up_since: datetime
    is_busy: bool = False
    begun: frozenset[datetime] = frozenset()


@dataclass(kw_only=True)
class Tick:
    """What is to be done: runs for the points in `make`, rows for `missed`, then this watermark and who waits.

    With `replaces` the runs that are open are aborted first. `fires` are those among the made ones that somebody fired.
    """

    watermark: datetime
    make: list[DuePoint] = field(default_factory=list[DuePoint])
    missed: list[MissedPoint] = field(default_factory=list[MissedPoint])
    waiting: list[DuePoint] = field(default_factory=list[DuePoint])
    skips: int = 0
    replaces: bool = False
    is_more: bool = False
    wakes_at: datetime | None = None
    """When the next point is due; None where none follows, or only an act changes anything."""

    def settles(self, state: ScheduleSnapshot) -> bool:
        """Tell whether there is anything to write down."""
        same = (self.watermark, tuple(self.waiting), self.skips) == (state.watermark, state.waiting, state.skips)
        return bool(self.make or self.missed or self.replaces) or not same


def due_points(state: ScheduleSnapshot) -> Iterator[DuePoint]:
    """Give the points that are not settled, in the order in which they are due."""
    streams: list[Iterator[DuePoint]] = []
    for strand in state.definition.when.strands():
        moves = not strand.has_instants and state.definition.pause is Pause.SHIFT
        after = state.counted_to if moves else state.watermark
        by = timedelta(seconds=state.moved_s if moves else 0.0)
        streams.append(_moved(upcoming(strand, state.start, after), state.start, by))
    merged = heapq.merge(*streams, key=_moment)
    return (next(equal) for _, equal in itertools.groupby(merged, _moment))


def preview(state: ScheduleSnapshot, count: int) -> list[DuePoint]:
    """Give the next points, those that wait first; a pause is taken to end now."""
    return [*state.waiting, *itertools.islice(due_points(state), count)][:count]


def tick(state: ScheduleSnapshot, around: Surroundings) -> Tick:
    """Tell what is to be done now."""
    if state.state is ScheduleState.REMOVED:
        return Tick(watermark=state.watermark, waiting=list(state.waiting), skips=state.skips)
    judging = _Judging(state, around)
    judging.fire()
    if state.is_active:
        judging.serve_waiting()
        judging.read()
    return judging.tick


class _Judging:
    """One look at a schedule."""

    def __init__(self, state: ScheduleSnapshot, around: Surroundings) -> None:
        self.state = state
        self.policies = state.definition
        self.around = around
        self.tick = Tick(watermark=state.watermark, waiting=list(state.waiting), skips=state.skips)
        self.held: tuple[DuePoint, PointOutcome, str] | None = None
        """The last point so far of those of which one alone is made."""

    def fire(self) -> None:
        """Make what somebody has fired, whatever else goes on."""
        self.tick.make += self.state.fires

    def serve_waiting(self) -> None:
        """Begin the next point that waits, once nothing runs."""
        if self.tick.waiting and (not self._is_busy or self.tick.waiting[0].planned_at in self.around.begun):
            self._make(self.tick.waiting.pop(0))

    def read(self) -> None:
        """Settle the points that are due, as far as one record holds them."""
        for point in due_points(self.state):
            if point.due_at > self.around.now:
                self.tick.wakes_at = point.due_at
                break
            if len(self.tick.missed) >= BATCH or len(self.tick.make) >= MOST_MADE:
                self.tick.is_more = True
                return  # what is held is looked at again
            self._settle_held_before(point)
            self._judge(point)
        if self.held is not None:
            point, self.held = self.held[0], None
            self._give_turn(point)

    @property
    def _is_busy(self) -> bool:
        return self.around.is_busy or bool(self.tick.make)

    def _judge(self, point: DuePoint) -> None:
        if point.planned_at in self.around.begun:
            self.tick.watermark = max(self.tick.watermark, point.due_at)
            self.tick.make.append(point)
        elif self.tick.skips > 0:
            self.tick.skips -= 1
            self._miss(point, PointOutcome.BYPASSED, "skipped by hand")
        elif self._is_of_pause(point):
            self._judge_of_pause(point)
        elif point.due_at <= self.around.up_since:
            self._judge_of_downtime(point)
        elif self._is_too_late(point):
            self._miss(point, PointOutcome.SKIPPED_LATE, self._lateness(point))
        else:
            self._give_turn(point)

    def _is_of_pause(self, point: DuePoint) -> bool:
        if self.policies.pause is Pause.SHIFT and point.due_at != point.planned_at:
            return False  # it has moved
        return any(span.from_at < point.due_at <= span.to_at for span in self.state.pauses)

    def _judge_of_pause(self, point: DuePoint) -> None:
        match self.policies.pause:
            case Pause.CATCH_UP_ALL:
                self._give_turn(point)
            case Pause.CATCH_UP_ONE:
                self.held = (point, PointOutcome.MISSED_PAUSED, "a later point of the pause runs in its place")
            case _:
                self._miss(point, PointOutcome.MISSED_PAUSED, "the schedule was paused")

    def _judge_of_downtime(self, point: DuePoint) -> None:
        if self.policies.late is Late.RUN:
            self.held = (point, PointOutcome.MISSED_DOWN, "the lab was down; a later point runs in its place")
        elif self._is_too_late(point):
            self._miss(point, PointOutcome.MISSED_DOWN, "the lab was down")
        else:
            self._give_turn(point)

    def _settle_held_before(self, point: DuePoint) -> None:
        """Give up what is held: what comes next takes its place if it is of the same kind, and else it is made."""
        if self.held is None:
            return
        (held, outcome, reason), self.held = self.held, None
        is_same = self._is_of_pause(point) == (outcome is PointOutcome.MISSED_PAUSED) and (
            self._is_of_pause(point) or point.due_at <= self.around.up_since
        )
        if is_same and not self.tick.skips:
            self._miss(held, outcome, reason)
        else:
            self._give_turn(held)

    def _is_too_late(self, point: DuePoint) -> bool:
        late_s = (self.around.now - point.due_at).total_seconds()
        return self.policies.late is Late.SKIP and late_s > self.policies.tolerance_s

    def _lateness(self, point: DuePoint) -> str:
        late_s = (self.around.now - point.due_at).total_seconds()
        return f"{late_s:.3f} s late, and {self.policies.tolerance_s:g} s are tolerated"

    def _give_turn(self, point: DuePoint) -> None:
        """Let a point run as the overlap policy says."""
        self.tick.watermark = max(self.tick.watermark, point.due_at)
        overlap = self.policies.overlap
        if overlap is Overlap.PARALLEL or not (self._is_busy or self.tick.waiting):
            self._make(point)
        elif overlap is Overlap.SKIP:
            self._miss(point, PointOutcome.SKIPPED_BUSY, "the run before has not ended")
        elif overlap is Overlap.WAIT and len(self.tick.waiting) >= MOST_WAITING:
            self._miss(point, PointOutcome.SKIPPED_BUSY, f"{MOST_WAITING} points wait already")
        else:
            if overlap is not Overlap.WAIT:
                self._replace_waiting()
            self.tick.replaces = self.tick.replaces or overlap is Overlap.REPLACE_RUNNING
            self.tick.waiting.append(point)

    def _replace_waiting(self) -> None:
        replaced, self.tick.waiting = self.tick.waiting, []
        for each in replaced:
            self._miss(each, PointOutcome.SKIPPED_BUSY, "a later point waits in its place")

    def _make(self, point: DuePoint) -> None:
        if self._is_too_late(point) and point.due_at > self.around.up_since and not self._is_of_pause(point):
            self._miss(point, PointOutcome.SKIPPED_LATE, self._lateness(point))
        else:
            self.tick.make.append(point)

    def _miss(self, point: DuePoint, outcome: PointOutcome, reason: str) -> None:
        self.tick.watermark = max(self.tick.watermark, point.due_at)
        self.tick.missed.append(point.missed(outcome, reason))


def _moved(points: Iterator[TimePoint], start: datetime, by: timedelta) -> Iterator[DuePoint]:
    for point in points:
        planned_at = point.instant(start)
        yield DuePoint.model_construct(planned_at=planned_at, due_at=planned_at + by, name=point.name)


def _moment(point: DuePoint) -> datetime:
    return point.due_at
