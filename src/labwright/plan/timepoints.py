"""When a schedule is due: `every`, `after`, `at` and `pairs` make time points, which combine with `+`, `|` and `n *`.

Intervals count elapsed seconds, also across a change of the clocks; instants are those of the zone that is named.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, cast

from labwright.core.errors import UsageError
from labwright.core.ids import checked_name
from labwright.plan.point_checks import check_aware, checked_seconds, listed, not_empty, read_instant
from labwright.plan.points import BEGINNING, Marked, Points, Sequence, Since, TimePoint, Walk

MOMENTS = frozenset(Since)


def every(interval: float, *, first: float | None = None, until: float | datetime | None = None) -> Points:
    """Make a point each `interval` seconds, the first after one interval unless `first` says after how many seconds.

    It goes on for ever, `until` so many seconds or an instant (that included), or as often as in `5 * every(60)`.

    >>> (3 * every(60, first=0)).offsets()
    [0.0, 60.0, 120.0]

    Raises:
        UsageError: a number is not finite, negative, or an interval of zero.
    """
    checked_seconds(interval, "an interval", least_excluded=True)
    checked_seconds(interval if first is None else first, "the first point")
    if isinstance(until, datetime):
        check_aware(until)
    elif until is not None:
        checked_seconds(until, "an end")
    return Every(float(interval), float(interval if first is None else first), until)


def after(seconds: float | Iterable[float], *, since: str | Since = Since.PLANNED, of: str | None = None) -> Points:
    """Make a point some seconds after the point before it; a list makes one for each, counted from that same point.

    `since` chooses its moment: `planned`, `started` or `ended`, or the schedule's `start`. `of` names another point to
    count from instead. The first of a sequence counts from the start.

    >>> (after(10) + after([5, 20])).offsets()
    [10.0, 15.0, 30.0]

    Raises:
        UsageError: a number is not finite or negative, the list is empty, or there is no such moment.
    """
    given = sorted(float(checked_seconds(each, "an offset")) for each in listed(seconds))
    if since not in MOMENTS or (of is not None and since == Since.START):
        raise UsageError(
            f"points cannot be counted since {str(since)!r}" + (f" of {of!r}" if of else ""),
            because="a point is planned, is started and has ended; a schedule has a start",
            cure="use since='planned', 'started' or 'ended', or since='start' without of=",
        )
    return After(not_empty(given, "after"), Since(since), None if of is None else checked_name(of, "time point"))


def at(*instants: datetime | str, zone: str | None = None) -> At:
    """Make a point at each instant: an aware datetime, its text, or a local time with its zone.

    >>> at("2026-03-29T02:30", zone="Europe/Paris").instants[0].isoformat()
    '2026-03-29T01:00:00+00:00'

    Raises:
        UsageError: an instant cannot be read or has no zone, or there is none.
    """
    return At(not_empty(sorted({read_instant(each, zone) for each in instants}), "at"))


def pairs(*pairs: tuple[int, float]) -> Points:
    """Make points from pairs of how often and how many seconds: `pairs((5, 60), (10, 300))`.

    Raises:
        UsageError: there is no pair, or a number in it will not do.
    """
    return Sequence(not_empty([number * every(interval) for number, interval in map(_pair, pairs)], "pairs"))


def check_names(expressions: Iterable[Points]) -> None:
    """Refuse points that count from a name which none of these expressions gives.

    Raises:
        UsageError: there is such a point.
    """
    given = list(expressions)
    if not any(each.is_open for each in given):
        return
    parts = [part for each in given for part in _parts(each)]
    names = {part.name for part in parts if isinstance(part, Marked) and part.name}
    for part in parts:
        if isinstance(part, After) and part.of is not None and part.of not in names:
            raise UsageError(
                f"points count from {part.of!r}, and no point has that name",
                because="the names are " + ", ".join(sorted(names)) if names else "no point has a name",
                cure=f"name one, as in after(10).named({part.of!r})",
            )


def _parts(points: Points) -> Iterator[Points]:
    """Give an expression and all that it is made of."""
    yield points
    for field in fields(points):
        value: Any = getattr(points, field.name)
        for part in cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,):
            if isinstance(part, Points):
                yield from _parts(part)


def _pair(given: Any) -> tuple[int, float]:
    match given:
        case (number, interval):
            return number, interval
        case _:
            raise UsageError(
                f"{given!r} is no pair",
                because="a pair is how often and how many seconds",
                cure="write pairs((5, 60), (10, 300)) for five times 60 s, then ten times 300 s",
            )


@dataclass(frozen=True)
class Every(Points):
    """A point each so many seconds; see `every`."""

    interval: float
    first: float
    until: float | datetime | None = None

    def walk(self, walk: Walk) -> Iterator[TimePoint]:
        """Give the points without adding up errors: each is counted from the same moment."""
        for number in itertools.count():
            seconds = self.first + number * self.interval
            point = walk.before.moved(seconds)
            if self.until is not None and self._is_past(seconds, point, walk.start):
                return
            yield point

    @property
    def is_finite(self) -> bool:
        """Tell whether there is an end."""
        return self.until is not None

    @property
    def has_instants(self) -> bool:
        """Tell whether the end is an instant."""
        return isinstance(self.until, datetime)

    def _is_past(self, seconds: float, point: TimePoint, start: datetime) -> bool:
        if isinstance(self.until, datetime):
            return point.instant(start) > self.until
        return seconds > (self.until or 0)


@dataclass(frozen=True)
class After(Points):
    """Points some seconds after one moment; see `after`."""

    seconds: tuple[float, ...]
    since: Since
    of: str | None

    def walk(self, walk: Walk) -> Iterator[TimePoint]:
        """Give the points, each counted from the same moment."""
        anchor = self._anchor(walk)
        for seconds in self.seconds:
            yield anchor.moved(seconds)

    @property
    def is_open(self) -> bool:
        """Tell whether the moment is one of an action."""
        return self.of is not None or self.since in {Since.STARTED, Since.ENDED}

    def _anchor(self, walk: Walk) -> TimePoint:
        if self.since is Since.START:
            return BEGINNING
        if self.of is not None:
            return TimePoint(0.0, None, self.since, self.of)
        if self.since is Since.PLANNED or not walk.place:
            return walk.before
        return TimePoint(0.0, None, self.since, walk.place)


@dataclass(frozen=True)
class At(Points):
    """Given instants; see `at`."""

    instants: tuple[datetime, ...]

    def walk(self, walk: Walk) -> Iterator[TimePoint]:
        """Give the instants in their order."""
        del walk  # an instant counts from nothing
        return (TimePoint(0.0, instant) for instant in self.instants)

    @property
    def has_instants(self) -> bool:
        """Tell that these follow the wall clock."""
        return True
