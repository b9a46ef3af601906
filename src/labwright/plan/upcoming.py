"""The time points after a moment, without reading all that came before them.

A schedule that has been due each second for a year is read on from where it stands, not from its start.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from labwright.plan.calendar import Calendar
from labwright.plan.cron import Cron
from labwright.plan.points import First, Marked, Points, Sequence, TimePoint, Union, Walk, Without
from labwright.plan.timepoints import At, Every


def upcoming(points: Points, start: datetime, after: datetime) -> Iterator[TimePoint]:
    """Give the points after a moment, of an expression whose schedule began at `start`.

    >>> from datetime import UTC, timedelta
    >>> from labwright.plan.timepoints import every
    >>> start = datetime(2025, 1, 1, tzinfo=UTC)
    >>> next(upcoming(every(1), start, start + timedelta(days=365))).offset_s
    31536001.0
    """
    return _From(points, after).walk(Walk(start))


@dataclass(frozen=True)
class _From(Points):
    """The same points, read from a moment on."""

    points: Points
    after: datetime

    def walk(self, walk: Walk) -> Iterator[TimePoint]:
        points = self.points
        match points:
            case Every():
                return _of_every(points, walk, self.after, None)
            case First(points=Every() as inner):
                return _of_every(inner, walk, self.after, points.times)
            case At():
                place = bisect.bisect_right(points.instants, self.after)
                return (TimePoint(0.0, instant) for instant in points.instants[place:])
            case Calendar() | Cron():
                before = max(walk.before.instant(walk.start), self.after)
                return points.walk(walk._replace(before=TimePoint(0.0, before)))
            case _:
                return self._of_combined(points, walk)

    def _of_combined(self, points: Points, walk: Walk) -> Iterator[TimePoint]:
        match points:
            case Sequence():
                return self._of_row(points, walk)
            case Union():
                return Union(tuple(_From(part, self.after) for part in points.parts)).walk(walk)
            case Without():
                barred = tuple(_From(each, self.after) for each in points.excluded)
                return Without(_From(points.points, self.after), barred, points.days, zone=points.zone).walk(walk)
            case Marked():
                return replace(points, points=_From(points.points, self.after)).walk(walk)
            case _:
                return (point for point in points.walk(walk) if point.instant(walk.start) > self.after)

    def _of_row(self, row: Sequence, walk: Walk) -> Iterator[TimePoint]:
        for part in row.parts:
            last: TimePoint | None = None
            for last in _From(part, self.after).walk(walk):
                yield last
            last = last or _last(part, walk)
            if last is not None:
                walk = walk._replace(before=last, place=walk.place + 1)


def _of_every(every: Every, walk: Walk, after: datetime, times: int | None) -> Iterator[TimePoint]:
    """Count each point from the same moment, as `Every` does, beginning shortly before the one that is wanted."""
    begin = walk.before.instant(walk.start)
    passed = (after - begin).total_seconds() - every.first
    number = max(0, math.floor(passed / every.interval))
    for each in itertools.count(number):
        if times is not None and each >= times:
            return
        seconds = every.first + each * every.interval
        point = walk.before.moved(seconds)
        instant = point.instant(walk.start)
        if isinstance(every.until, datetime):
            if instant > every.until:
                return
        elif every.until is not None and seconds > every.until:
            return
        if instant > after:
            yield point


def _last(points: Points, walk: Walk) -> TimePoint | None:
    """Give the last of points that end."""
    match points:
        case First(points=Every(until=None) as inner):
            return walk.before.moved(inner.first + (points.times - 1) * inner.interval)
        case At():
            return TimePoint(0.0, points.instants[-1])
        case _:
            last: TimePoint | None = None
            for last in points.walk(walk):  # noqa: B007 - the last one is wanted
                pass
            return last
