"""Expressions of time points and how they combine: `a + b` follows, `a | b` has both, `n * a` repeats.

An expression is immutable, and read one point at a time and only as far as it is needed, so a million points cost no
more than ten. Nothing here knows what time it is: the start is given.
"""

from __future__ import annotations

import heapq
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from labwright.core.errors import UsageError
from labwright.core.ids import checked_name
from labwright.plan.local_time import zone_named
from labwright.plan.point_checks import check_aware, checked_count
from labwright.plan.policies import check_policies


class Since(StrEnum):
    """The moment from which the seconds of a point are counted."""

    START = "start"
    PLANNED = "planned"
    STARTED = "started"
    ENDED = "ended"


class TimePoint(NamedTuple):
    """One moment at which a schedule is due: an instant (`at`), or `offset_s` seconds `since` a moment.

    That moment is the schedule's start, or one of the point `of`: a name, or a place in the same sequence from 1.
    """

    offset_s: float = 0.0
    at: datetime | None = None
    since: Since = Since.START
    of: str | int | None = None
    name: str = ""
    policies: tuple[tuple[str, Any], ...] = ()

    @property
    def is_open(self) -> bool:
        """Tell whether the moment is known only when another point has been reached."""
        return self.of is not None

    def moved(self, seconds: float) -> TimePoint:
        """Give the nameless point that many seconds later."""
        if self.at is not None:
            return TimePoint(0.0, self.at + timedelta(seconds=seconds))
        return TimePoint(self.offset_s + seconds, None, self.since, self.of)

    def instant(self, start: datetime) -> datetime:
        """Give the instant for a schedule that starts then.

        Raises:
            UsageError: the point depends on another one.
        """
        if self.is_open:
            raise _not_known_yet(f"a point {self.offset_s:g} s after another has {self.since} has no instant yet")
        return self.at or start + timedelta(seconds=self.offset_s)


BEGINNING = TimePoint()


class Walk(NamedTuple):
    """Where the reading of an expression begins: the schedule's start, the point before, and that one's place."""

    start: datetime
    before: TimePoint = BEGINNING
    place: int = 0


@dataclass(frozen=True)
class Points(ABC):
    """An expression of time points; what can be done with each of them stands here.

    >>> from labwright.plan.timepoints import every
    >>> (2 * every(60) + 2 * every(300)).offsets()
    [60.0, 120.0, 420.0, 720.0]
    """

    @abstractmethod
    def walk(self, walk: Walk) -> Iterator[TimePoint]:
        """Give the points in their order, one at a time."""

    @property
    def is_finite(self) -> bool:
        """Tell whether the points come to an end."""
        return True

    @property
    def is_open(self) -> bool:
        """Tell whether some moment depends on what happens at another point."""
        return False

    @property
    def has_instants(self) -> bool:
        """Tell whether some moments are instants, which follow the wall clock."""
        return False

    def strands(self) -> tuple[Points, ...]:
        """Give the sequences that are reached independently of each other."""
        return (self,)

    def preview(self, count: int = 10, *, start: datetime) -> list[datetime]:
        """Give the instants of the first points for a start; what depends on actions is shown as if they took no time.

        >>> from labwright.plan.timepoints import every
        >>> [str(each.time()) for each in every(90).preview(2, start=datetime(2026, 1, 1, tzinfo=UTC))]
        ['00:01:30', '00:03:00']
        """
        check_aware(start)
        walks = [_as_if_instant(strand, start) for strand in self.strands()]
        return list(itertools.islice(heapq.merge(*walks), checked_count(count, "a preview")))

    def offsets(self, count: int = 10) -> list[float]:
        """Give the first points as seconds after the start."""
        start = datetime(2000, 1, 1, tzinfo=UTC)
        return [(instant - start).total_seconds() for instant in self.preview(count, start=start)]

    def named(self, name: str) -> Points:
        """Give each point a name, by which `after(..., of=name)` finds it and rows show it."""
        return Marked(self, checked_name(name, "time point"))

    def under(self, **policies: Any) -> Points:
        """Give the points policies of their own, as in `every(60).under(late=Late.SKIP, tolerance=5)`."""
        check_policies(policies)
        return Marked(self, "", tuple(policies.items()))

    def without(self, *excluded: Points | date, zone: str = "UTC") -> Points:
        """Leave out the points that fall on a day in a zone, or on a point of another expression."""
        return Without(self, *_exclusions(excluded), zone=zone_named(zone).key)

    def __add__(self, other: Points) -> Points:
        if not self.is_finite:
            raise UsageError(
                "nothing can follow points that never end",
                because="every() and calendars go on for ever unless told otherwise",
                cure="write how often, as in 5 * every(60), or until when, as in every(60, until=600)",
            )
        _check_in_a_row(self, other)
        return Sequence((*_parts(self, Sequence), *_parts(other, Sequence)))

    def __or__(self, other: Points) -> Points:
        return Union((*_parts(self, Union), *_parts(other, Union)))

    def __rmul__(self, times: int) -> Points:
        checked_count(times, "a number of repetitions")
        _check_in_a_row(self, self)
        return Repeated(self, times) if self.is_finite else First(self, times)


@dataclass(frozen=True)
class Sequence(Points):
    """Parts of which each follows the last point of the one before."""

    parts: tuple[Points, ...]

    def walk(self, walk: Walk) -> Iterator[TimePoint]:
        """Give the points of one part after the other."""
        for part in self.parts:
            for point in part.walk(walk):
                walk = walk._replace(before=point, place=walk.place + 1)
                yield point

    @property
    def is_finite(self) -> bool:
        """Tell whether the last part ends; the others do."""
        return self.parts[-1].is_finite

    @property
    def is_open(self) -> bool:
        """Tell whether a part is."""
        return any(part.is_open for part in self.parts)

    @property
    def has_instants(self) -> bool:
        """Tell whether a part has."""
        return any(part.has_instants for part in self.parts)


@dataclass(frozen=True)
class Repeated(Points):
    """Points that follow themselves a number of times."""

    points: Points
    times: int

    def walk(self, walk: Walk) -> Iterator[TimePoint]:
        """Give the points as many times."""
        for _ in range(self.times):
            for point in self.points.walk(walk):
                walk = walk._replace(before=point, place=walk.place + 1)
                yield point

    @property
    def is_open(self) -> bool:
        """Tell whether the points are."""
        return self.points.is_open

    @property
    def has_instants(self) -> bool:
        """Tell whether the points have."""
        return self.points.has_instants


@dataclass(frozen=True)
class First(Repeated):
    """The first few of points that never end."""

    def walk(self, walk: Walk) -> Iterator[TimePoint]:
        """Give as many points."""
        return itertools.islice(self.points.walk(walk), self.times)


@dataclass(frozen=True)
class Union(Points):
    """The points of all parts in the order of time; equal ones are one."""

    parts: tuple[Points, ...]

    def walk(self, walk: Walk) -> Iterator[TimePoint]:
        """Merge the parts."""

        def moment(point: TimePoint) -> tuple[datetime, str]:
            return point.instant(walk.start), point.name

        merged = heapq.merge(*(part.walk(walk) for part in self.parts), key=moment)
        return (next(equal) for _, equal in itertools.groupby(merged, moment))

    @property
    def is_finite(self) -> bool:
        """Tell whether all parts are."""
        return all(part.is_finite for part in self.parts)

    @property
    def is_open(self) -> bool:
        """Tell whether a part is."""
        return any(part.is_open for part in self.parts)

    @property
    def has_instants(self) -> bool:
        """Tell whether a part has."""
        return any(part.has_instants for part in self.parts)

    def strands(self) -> tuple[Points, ...]:
        """Keep apart what follows actions, what follows the wall clock, and what counts seconds."""
        inner = [strand for part in self.parts for strand in part.strands()]
        timed = [each for each in inner if not each.is_open and not each.has_instants]
        dated = [each for each in inner if not each.is_open and each.has_instants]
        merged = [Union(tuple(group)) if len(group) > 1 else group[0] for group in (timed, dated) if group]
        return (*merged, *(each for each in inner if each.is_open))


@dataclass(frozen=True)
class Marked(Points):
    """Points with a name or policies of their own; what they have already is kept."""

    points: Points
    name: str = ""
    policies: tuple[tuple[str, Any], ...] = ()

    def walk(self, walk: Walk) -> Iterator[TimePoint]:
        """Mark each point."""
        for point in self.points.walk(walk):
            yield point._replace(name=point.name or self.name, policies=(*self.policies, *point.policies))

    @property
    def is_finite(self) -> bool:
        """Tell whether the points are."""
        return self.points.is_finite

    @property
    def is_open(self) -> bool:
        """Tell whether the points are."""
        return self.points.is_open

    @property
    def has_instants(self) -> bool:
        """Tell whether the points have."""
        return self.points.has_instants

    def strands(self) -> tuple[Points, ...]:
        """Mark each strand."""
        return tuple(replace(self, points=strand) for strand in self.points.strands())


@dataclass(frozen=True)
class Without(Marked):
    """Points save those on some days and those that another expression has too."""

    excluded: tuple[Points, ...] = ()
    days: frozenset[date] = frozenset()
    zone: str = "UTC"

    def __init__(self, points: Points, excluded: tuple[Points, ...], days: frozenset[date], *, zone: str) -> None:
        if any(each.is_open for each in (points, *excluded)):
            raise _not_known_yet("points that count from an action cannot be left out, nor others from them")
        super().__init__(points)
        object.__setattr__(self, "excluded", excluded)
        object.__setattr__(self, "days", days)
        object.__setattr__(self, "zone", zone)

    def walk(self, walk: Walk) -> Iterator[TimePoint]:
        """Read both in parallel."""
        zone = zone_named(self.zone)
        barred = heapq.merge(*((each.instant(walk.start) for each in part.walk(walk)) for part in self.excluded))
        next_barred = next(barred, None)
        for point in self.points.walk(walk):
            instant = point.instant(walk.start)
            while next_barred is not None and next_barred < instant:
                next_barred = next(barred, None)
            if instant != next_barred and not (self.days and instant.astimezone(zone).date() in self.days):
                yield point

    def strands(self) -> tuple[Points, ...]:
        """Stay one strand."""
        return (self,)


def _as_if_instant(points: Points, start: datetime) -> Iterator[datetime]:
    """Give the instants of a strand as they were if actions took no time; other points' names count from the start."""
    reached = [start]
    for point in points.walk(Walk(start)):
        if isinstance(point.of, int):
            instant = reached[point.of] + timedelta(seconds=point.offset_s)
        elif point.of is not None:
            instant = start + timedelta(seconds=point.offset_s)
        else:
            instant = point.instant(start)
        if points.is_open:
            reached.append(instant)
        yield instant


def _check_in_a_row(first: Points, second: Points) -> None:
    """Refuse to put in a row what is reached in several ways at once, and instants after what depends on an action."""
    if any(each.is_open and len(each.strands()) > 1 for each in (first, second)):
        raise _not_known_yet("points beside such that count from an action cannot follow or be followed")
    if first.is_open and second.has_instants:
        raise _not_known_yet("instants cannot follow a point that counts from an action")


def _not_known_yet(message: str) -> UsageError:
    return UsageError(
        message,
        because="the moment is known only when the action has run",
        cure="add them to the schedule on their own, with another .at(...)",
    )


def _parts(points: Points, kind: type[Sequence | Union]) -> tuple[Points, ...]:
    return points.parts if isinstance(points, kind) else (points,)


def _exclusions(excluded: tuple[Points | date, ...]) -> tuple[tuple[Points, ...], frozenset[date]]:
    if not excluded:
        raise UsageError(
            "without() was told nothing to leave out",
            because="it takes days and points",
            cure="name some, as in without(date(2026, 5, 1))",
        )
    points = tuple(each for each in excluded if isinstance(each, Points))
    days = frozenset(each for each in excluded if isinstance(each, date))
    if any(isinstance(each, datetime) for each in days):
        raise UsageError(
            "an instant is no day", because="without() takes days and points", cure="write without(at(instant)) instead"
        )
    return points, days
