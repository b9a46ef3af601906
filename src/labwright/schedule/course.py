"""The course of a schedule: given what time it is and what has ended, what is to be done now.

All policies are kept here and nowhere else. Nothing here waits, reads a clock, starts a thread or writes: a schedule, a
test and a simulation drive the same course.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from labwright.plan.points import Points, TimePoint, Walk
from labwright.plan.policies import Crash, Late, OnError, Overlap, Pause, Policies
from labwright.schedule.orders import FIRED, Abandon, Begin, Due, Halt, Key, Miss, Now, Order, Past, Reached
from labwright.schedule.rows import Outcome


@dataclass
class Strand:
    """One sequence of points, and how far it has been read."""

    number: int
    points: Points
    walk: Iterator[TimePoint]
    place: int = 0
    withdrawn: set[str] = field(default_factory=set[str])


Entry = tuple[float, int, int, Due]


class Course:
    """The points of a schedule in the order of their time, and the policies on them."""

    def __init__(
        self, points: Iterable[Points], policies: Policies, started_at: datetime, past: Past | None = None
    ) -> None:
        self.policies = policies
        self.started_at = started_at
        self.running: dict[Key, Due] = {}
        self._past = past or Past()
        self._count = self._past.count
        self._paused_s = self._past.paused_s
        self._paused_since_s = self._past.paused_since_s
        self._skips = 0
        self._fired = self._past.fired
        self._moving: list[Entry] = []  # moments in elapsed seconds, save pauses
        self._fixed: list[Entry] = []  # moments in elapsed seconds
        self._dated: list[Entry] = []  # instants, as epoch seconds
        self._order = itertools.count()
        self._pending: deque[Due] = deque()
        self._missed: dict[int, Due] = {}
        self._caught: list[Due] = []
        self._reached: dict[Key | str, Reached] = {}
        self._waiting: dict[Key | str, list[tuple[Strand, TimePoint]]] = {}
        self._strands: dict[int, Strand] = {}
        self._inserted = self._past.inserted
        for each in points:
            for strand in each.strands():
                self._add_strand(len(self._strands), strand)
        for strand in tuple(self._strands.values()):
            self._read_on(strand)

    @property
    def is_paused(self) -> bool:
        """Tell whether the course is paused."""
        return self._paused_since_s is not None

    @property
    def paused_s(self) -> float:
        """Give how long the course has been paused, pauses that have ended."""
        return self._paused_s

    @property
    def is_over(self) -> bool:
        """Tell whether no point is left, and none runs."""
        return not (self.running or self._pending or self._missed or self._caught or self._has_points)

    def wakes_in(self, now: Now) -> float | None:
        """Tell after how many seconds the next point is due; None when only a call changes anything."""
        waits = [wait for wait, _ in self._next(now)]
        return max(0.0, min(waits)) if waits else None

    def wakes_by_the_wall(self) -> bool:
        """Tell whether some point follows the wall clock, which may be set."""
        return bool(self._dated)

    def advance(self, now: Now) -> list[Order]:
        """Take every point that is due by now."""
        orders: list[Order] = []
        while (soonest := min(self._next(now), default=None, key=lambda each: each[0])) and soonest[0] <= 0:
            orders += self._reach(self._popped(soonest[1]), now)
        if not (self.running or self._pending or self._moving or self._fixed or self._dated):
            orders += self._give_up_waiting()
        return orders

    def lateness_s(self, due: Due, now: Now) -> float:
        """Give how many seconds after its moment that is."""
        return now.elapsed_s - self._due_s(due, now)

    def started(self, due: Due, now: Now) -> None:
        """Take note that the actions of a point begin."""
        self._note(due, now, started_s=now.elapsed_s)

    def ended(self, due: Due, now: Now, *, is_failed: bool) -> list[Order]:
        """Take note that a point has ended; one that waited for it may begin."""
        self.running.pop(due.key, None)
        self._note(due, now, ended_s=now.elapsed_s)
        if is_failed and due.policies.on_error is OnError.STOP:
            return [Halt(f"{_called(due)} failed")]
        return [*self._begin_pending(now), *self.advance(now)]

    def fire(self, now: Now, name: str = "") -> tuple[Due, list[Order]]:
        """Make a point now, by hand; it runs during a pause too."""
        self._fired += 1
        point = TimePoint(now.elapsed_s, name=name or f"fired {self._fired}")
        due = Due(
            key=(FIRED, self._fired),
            point=point,
            policies=self.policies,
            moment_s=now.elapsed_s,
            planned_at=now.wall,
            due_at=now.wall,
        )
        return due, self._admit(due, now)

    def insert(self, points: Points) -> list[int]:
        """Add points to those that are there, and give the numbers of their strands."""
        added: list[Strand] = []
        for strand in points.strands():
            self._inserted += 1
            added.append(self._add_strand(FIRED - self._inserted, strand))
        for strand in added:
            self._read_on(strand)
        return [strand.number for strand in added]

    def withdraw(self, names: Collection[str]) -> int:
        """Take points that have not begun off the course, without a row; give how many of those that were due next."""
        for strand in self._strands.values():
            strand.withdrawn.update(names)
        read: list[int] = []
        for heap in (self._moving, self._fixed, self._dated):
            read += [due.key[0] for *_, due in heap if due.name in names]
            heap[:] = [entry for entry in heap if entry[-1].name not in names]
            heapq.heapify(heap)
        for anchor, waiting in tuple(self._waiting.items()):
            read += [strand.number for strand, point in waiting if point.name in names]
            self._waiting[anchor] = [each for each in waiting if each[1].name not in names]
        self._waiting = {anchor: waiting for anchor, waiting in self._waiting.items() if waiting}
        reached = [*self._pending, *self._caught, *self._missed.values()]
        self._pending = deque(due for due in self._pending if due.name not in names)
        self._caught = [due for due in self._caught if due.name not in names]
        self._missed = {number: due for number, due in self._missed.items() if due.name not in names}
        for number in read:
            self._read_on(self._strands[number])
        return len(read) + sum(due.name in names for due in reached)

    def skip(self, count: int) -> None:
        """Leave out the next points."""
        self._skips += count

    def pause(self, now: Now) -> None:
        """Begin no planned point until the course is resumed."""
        if self._paused_since_s is None:
            self._paused_since_s = now.elapsed_s

    def resume(self, now: Now) -> list[Order]:
        """Go on, and do with the points of the pause as their policies say."""
        if self._paused_since_s is None:
            return []
        self._paused_s += now.elapsed_s - self._paused_since_s
        self._paused_since_s = None
        caught = sorted([*self._caught, *self._missed.values()], key=lambda each: each.number or 0)
        self._caught, self._missed = [], {}
        orders = self._begin_pending(now)
        for due in caught:
            orders += self._admit(replace(due, is_prompt=True), now)
        return [*orders, *self.advance(now)]

    def stop(self, now: Now, reason: str) -> list[Order]:
        """Take all points that have not begun off the course; those without an end are not counted up."""
        waiting = [*self._pending, *self._caught, *self._missed.values()]
        entries = [entry[-1] for heap in (self._moving, self._fixed, self._dated) for entry in heap]
        unreached = sorted(self._left(entries), key=lambda due: (due.planned_at is None, due.planned_at or now.wall))
        left = [self._numbered(each) for each in unreached]
        for held in (self._pending, self._caught, self._missed, self._moving, self._fixed, self._dated, self._waiting):
            held.clear()
        return [Miss(due, Outcome.ABORTED, reason) for due in (*waiting, *left)]

    @property
    def _has_points(self) -> bool:
        return bool(self._moving or self._fixed or self._dated or self._waiting)

    def _next(self, now: Now) -> Iterator[tuple[float, list[Entry]]]:
        """Give, for each heap, after how many seconds its first point is due."""
        if self._moving and not self.is_paused:
            yield self._moving[0][0] + self._paused_s - now.elapsed_s, self._moving
        if self._fixed:
            yield self._fixed[0][0] - now.elapsed_s, self._fixed
        if self._dated:
            yield self._dated[0][0] - now.wall.timestamp(), self._dated

    def _popped(self, heap: list[Entry]) -> Due:
        due = heapq.heappop(heap)[-1]
        self._read_on(self._strands[due.key[0]])
        return due

    def _add_strand(self, number: int, points: Points) -> Strand:
        strand = Strand(number, points, points.walk(Walk(self.started_at)))
        self._strands[number] = strand
        return strand

    def _read_on(self, strand: Strand) -> None:
        """Put the strand's next point where it waits; points that a dead process has done are passed over."""
        for point in strand.walk:
            strand.place += 1
            if point.name in strand.withdrawn:
                if strand.points.is_finite:
                    continue
                return  # all that follows may have that name
            done = self._past.done.get((strand.number, strand.place))
            if done is None:
                self._place(strand, point)
                return
            self._remember(strand, (strand.number, strand.place), point, done)

    def _place(self, strand: Strand, point: TimePoint) -> None:
        if not point.is_open:
            self._arm(strand, point, BEGUN)
            return
        key = point.of if isinstance(point.of, str) else (strand.number, int(point.of or 0))
        anchor = self._reached.get(key)
        if anchor is None or anchor.moment(point.since) is None:
            self._waiting.setdefault(key, []).append((strand, point))
        else:
            self._arm(strand, point, anchor)

    def _arm(self, strand: Strand, point: TimePoint, anchor: Reached) -> None:
        policies = self.policies.with_changes(dict(point.policies)) if point.policies else self.policies
        key = (strand.number, strand.place)
        moment = (anchor.moment(point.since) or 0.0) + point.offset_s
        planned_at = point.at or self.started_at + timedelta(seconds=moment)
        moves = point.at is None and policies.pause is Pause.SHIFT
        if moves:
            moment -= anchor.paused_s
        due = Due(key=key, point=point, policies=policies, moment_s=moment, moves=moves, planned_at=planned_at)
        heap = self._dated if point.at else self._moving if moves else self._fixed
        when = point.at.timestamp() if point.at else moment
        heapq.heappush(heap, (when, strand.number, next(self._order), due))

    def _reach(self, due: Due, now: Now) -> list[Order]:
        """Do with a point whose time has come what its policies say."""
        due = self._numbered(due)
        self._note(due, now)
        if due.key in self._past.interrupted:
            return self._after_crash(due, now)
        if now.elapsed_s >= self._past.now_s > self._due_s(due, now) + ROUNDING_S:
            return [self._missed_for_good(due, now, Outcome.MISSED_DOWN, "no process ran the schedule")]
        if self._skips:
            self._skips -= 1
            return [self._missed_for_good(due, now, Outcome.BYPASSED, "skipped by hand")]
        if self.is_paused:
            return self._in_pause(due, now)
        return self._admit(due, now)

    def _after_crash(self, due: Due, now: Now) -> list[Order]:
        if due.policies.crash is Crash.REPEAT:
            return self._admit(replace(due, is_prompt=True), now)
        return [self._missed_for_good(due, now, Outcome.INTERRUPTED, "the process died while the point ran")]

    def _in_pause(self, due: Due, now: Now) -> list[Order]:
        match due.policies.pause:
            case Pause.CATCH_UP_ALL:
                self._caught.append(due)
                return []
            case Pause.CATCH_UP_ONE:
                earlier = self._missed.pop(due.key[0], None)
                self._missed[due.key[0]] = due
                reason = f"point {due.number} came later in the same pause"
                return [self._missed_for_good(earlier, now, Outcome.MISSED_PAUSED, reason)] if earlier else []
            case _:
                return [self._missed_for_good(due, now, Outcome.MISSED_PAUSED, "the schedule was paused")]

    def _admit(self, due: Due, now: Now) -> list[Order]:
        """Begin a point, or let it wait for those that run."""
        if self._is_too_late(due, now):
            return [self._too_late(due, now)]
        if not self.running or due.policies.overlap is Overlap.PARALLEL:
            return [self._begun(due, now)]
        match due.policies.overlap:
            case Overlap.SKIP:
                reason = f"{self._names_of_running()} was still running"
                return [self._missed_for_good(due, now, Outcome.SKIPPED_BUSY, reason)]
            case Overlap.REPLACE_RUNNING:
                running = list(self.running.values())
                orders = self._replace_pending(due, now)
                return [*orders, *(Abandon(each, f"replaced by {_called(due)}") for each in running)]
            case Overlap.REPLACE_PENDING:
                return self._replace_pending(due, now)
            case _:
                self._pending.append(due)
                return []

    def _replace_pending(self, due: Due, now: Now) -> list[Order]:
        reason = f"replaced by {_called(due)} while {self._names_of_running()} was running"
        replaced = [self._missed_for_good(each, now, Outcome.SKIPPED_BUSY, reason) for each in self._pending]
        self._pending = deque([due])
        return list[Order](replaced)

    def _begin_pending(self, now: Now) -> list[Order]:
        orders: list[Order] = []
        while self._pending and not self.running and not (self.is_paused and self._pending[0].number):
            due = self._pending.popleft()
            orders.append(self._too_late(due, now) if self._is_too_late(due, now) else self._begun(due, now))
        return orders

    def _begun(self, due: Due, now: Now) -> Begin:
        due = self._with_due_at(due)
        due = replace(due, moment_s=self._due_s(due, now), moves=False)
        self.running[due.key] = due
        return Begin(due)

    def _is_too_late(self, due: Due, now: Now) -> bool:
        late_s = self.lateness_s(due, now)
        return due.policies.late is Late.SKIP and not due.is_prompt and late_s > due.policies.tolerance

    def _too_late(self, due: Due, now: Now) -> Miss:
        late_s = self.lateness_s(due, now)
        reason = f"{late_s:.3f} s late, more than {due.policies.tolerance:g} s"
        return self._missed_for_good(due, now, Outcome.SKIPPED_LATE, reason)

    def _missed_for_good(self, due: Due, now: Now, outcome: Outcome, reason: str) -> Miss:
        self._note(due, now, started_s=now.elapsed_s, ended_s=now.elapsed_s)
        return Miss(self._with_due_at(due), outcome, reason)

    def _numbered(self, due: Due) -> Due:
        number = self._past.interrupted.get(due.key)
        if number is None:
            self._count += 1
            number = self._count
        return self._with_due_at(replace(due, number=number))

    def _with_due_at(self, due: Due) -> Due:
        if due.point.at is not None:
            return replace(due, due_at=due.point.at)
        if due.planned_at is None:
            return due
        moment = due.moment_s + (self._paused_s if due.moves else 0.0)
        return replace(due, due_at=self.started_at + timedelta(seconds=moment))

    def _due_s(self, due: Due, now: Now) -> float:
        """Give the moment at which the point is due, in elapsed seconds."""
        if due.point.at is not None:
            return now.elapsed_s + (due.point.at - now.wall).total_seconds()
        return due.moment_s + (self._paused_s if due.moves else 0.0)

    def _note(self, due: Due, now: Now, *, started_s: float | None = None, ended_s: float | None = None) -> None:
        """Remember the moments of a point if others may count from it, and arm those that waited for them."""
        number, _ = due.key
        if number == FIRED or not (due.name or self._strands[number].points.is_open):
            return
        known = self._reached.get(due.key, Reached(self._due_s(due, now)))
        reached = known._replace(
            started_s=known.started_s if started_s is None else started_s,
            ended_s=known.ended_s if ended_s is None else ended_s,
            paused_s=self._paused_s,
        )
        self._remember(self._strands[number], due.key, due.point, reached)

    def _remember(self, strand: Strand, key: Key, point: TimePoint, reached: Reached) -> None:
        for name in filter(None, (key if strand.points.is_open or point.name else None, point.name)):
            self._reached[name] = reached
            for waiting_strand, waiting in self._waiting.pop(name, []):
                self._place(waiting_strand, waiting)

    def _give_up_waiting(self) -> list[Order]:
        """Let go of points that count from others which will not come."""
        orders: list[Order] = []
        while self._waiting and not (self._missed or self._caught):
            name, waiting = self._waiting.popitem()
            for strand, point in waiting:
                due = Due(key=(strand.number, strand.place), point=point, policies=self.policies)
                due = self._numbered(due)
                orders.append(Miss(due, Outcome.BYPASSED, f"the point {name!r} that it counts from never came"))
                self._read_on(strand)
        return orders

    def _left(self, entries: list[Due]) -> Iterator[Due]:
        """Give the points that are not reached: those that are armed or wait, and what follows them and has an end."""
        armed = {due.key[0]: due for due in entries}
        waits = {strand.number: point for waiting in self._waiting.values() for strand, point in waiting}
        for strand in self._strands.values():
            if strand.number in armed:
                yield armed[strand.number]
            elif strand.number in waits:
                yield self._unreached(strand, waits[strand.number])
            if strand.points.is_finite:
                for point in strand.walk:
                    strand.place += 1
                    yield self._unreached(strand, point)

    def _unreached(self, strand: Strand, point: TimePoint) -> Due:
        planned_at = None if point.is_open else point.instant(self.started_at)
        key = (strand.number, strand.place)
        return Due(key=key, point=point, policies=self.policies, moment_s=point.offset_s, planned_at=planned_at)

    def _names_of_running(self) -> str:
        return ", ".join(_called(due) for due in self.running.values())


BEGUN = Reached(0.0)
ROUNDING_S = 1e-6


def _called(due: Due) -> str:
    return f"point {due.number}" if due.number else due.name
