"""Calendar expressions in the form of systemd's OnCalendar: `Mon..Fri *-*-* 02:30:00 Europe/Paris`.

The form is that of the manual page systemd.time(7): days of the week, a date, a time and a zone, each of which may be
left out; lists with commas, ranges with `..`, steps with `/`, and `~` for days counted from the end of the month.
"""

from __future__ import annotations

import calendar as months
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from labwright.core.errors import UsageError
from labwright.plan.local_time import instant_of, zone_named
from labwright.plan.points import Points, TimePoint, Walk

LocalMoments = Callable[[datetime], Iterator[datetime]]
"""Gives naive local times from one on, in their order."""
LAST_YEAR = 2199
NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
WEEKDAYS = {short: day for day, name in enumerate(NAMES) for short in (name, name[:3])}
SHORT = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
}


@dataclass(frozen=True, kw_only=True)
class CalendarForm:
    """What an expression says: which values each part of a local time may have."""

    weekdays: frozenset[int]
    years: frozenset[int]
    months: frozenset[int]
    days: frozenset[int]
    is_from_end: bool
    times: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    def moments(self, first: datetime) -> Iterator[datetime]:
        """Give the local times from that one on, in their order."""
        for day in self._days(first.date()):
            yield from (moment for moment in self._times_of(day) if moment >= first)

    def _days(self, first: date) -> Iterator[date]:
        for year in range(first.year, LAST_YEAR + 1):
            if year not in self.years:
                continue
            for month in sorted(self.months):
                length = months.monthrange(year, month)[1]
                numbers = {length + 1 - day for day in self.days} if self.is_from_end else self.days
                for number in sorted(each for each in numbers if 1 <= each <= length):
                    day = date(year, month, number)
                    if day >= first and day.weekday() in self.weekdays:
                        yield day

    def _times_of(self, day: date) -> Iterator[datetime]:
        hours, minutes, seconds = self.times
        return (
            datetime.combine(day, time(hour, minute, second))
            for hour in hours
            for minute in minutes
            for second in seconds
        )


@dataclass(frozen=True)
class Calendar(Points):
    """Points at the local times of a calendar expression; see `calendar`."""

    text: str
    zone: str

    def walk(self, walk: Walk) -> Iterator[TimePoint]:
        """Give the instants after the one that comes before."""
        return local_points(read_calendar(self.text)[0].moments, self.zone, walk)

    @property
    def is_finite(self) -> bool:
        """Tell whether the years come to an end."""
        return max(read_calendar(self.text)[0].years) < LAST_YEAR

    @property
    def has_instants(self) -> bool:
        """Tell that these follow the wall clock."""
        return True


def calendar(expression: str, *, zone: str | None = None) -> Calendar:
    """Make points at the local times that an expression of systemd's OnCalendar form describes.

    The zone is the one in the expression, else `zone`, else UTC. A local time that the clocks skip is due at the first
    valid instant after it, and one that they repeat is due once.

    >>> from datetime import UTC
    >>> weekdays = calendar("Mon..Fri *-*-* 02:30:00 Europe/Paris")
    >>> [f"{each:%a %H:%M}" for each in weekdays.preview(2, start=datetime(2026, 1, 2, 12, tzinfo=UTC))]
    ['Mon 01:30', 'Tue 01:30']

    Raises:
        UsageError: the expression cannot be read, or never comes true.
    """
    form, named = read_calendar(expression)
    points = Calendar(" ".join(expression.split()), zone_named(named or zone or "UTC").key)
    if next(form.moments(datetime(min(form.years), 1, 1)), None) is None:  # noqa: DTZ001 - a local time
        raise _unreadable(expression, "no day is such a day")
    return points


def local_points(moments: LocalMoments, zone: str, walk: Walk) -> Iterator[TimePoint]:
    """Give the instants of local times after the point before, each instant once."""
    here = zone_named(zone)
    last = walk.before.instant(walk.start)
    first = (last.astimezone(here) - timedelta(days=1)).replace(tzinfo=None, fold=0)
    for moment in moments(first):
        instant = instant_of(moment, here)
        if instant > last:
            last = instant
            yield TimePoint(0.0, instant)


def read_calendar(expression: str) -> tuple[CalendarForm, str]:
    """Read an expression, and the zone that it names.

    Raises:
        UsageError: it is not in the form.
    """
    words = expression.split()
    zone = words.pop() if words and _names_zone(words[-1]) else ""
    if len(words) == 1 and words[0].lower() in SHORT:
        words = SHORT[words[0].lower()].split()
    weekdays = frozenset(range(7))
    if words and words[0][0].isalpha():
        weekdays = _weekdays(words.pop(0), expression)
    day = words.pop(0) if words and ":" not in words[0] else "*-*-*"
    clock = words.pop(0) if words else "00:00:00"
    if words or not expression.split():
        raise _unreadable(
            expression, "it has more parts than weekdays, date, time and zone" if words else "it is empty"
        )
    return _form(weekdays, day, clock, expression), zone


def _form(weekdays: frozenset[int], day: str, clock: str, whole: str) -> CalendarForm:
    found = re.fullmatch(r"(?:([^-]+)-)?([^-~]+)([-~])([^-~]+)", day)
    times = clock.split(":")
    if found is None or len(times) not in {2, 3}:
        raise _unreadable(whole, f"{day!r} is no date" if found is None else f"{clock!r} is no time")
    year, month, sign, number = found.groups()
    hours, minutes, seconds = (*times, "00")[:3]
    return CalendarForm(
        weekdays=weekdays,
        years=frozenset(_values(year or "*", 1970, LAST_YEAR, whole)),
        months=frozenset(_values(month, 1, 12, whole)),
        days=frozenset(_values(number, 1, 31, whole, is_from_end=sign == "~")),
        is_from_end=sign == "~",
        times=(_values(hours, 0, 23, whole), _values(minutes, 0, 59, whole), _values(seconds, 0, 59, whole)),
    )


def _values(text: str, least: int, most: int, whole: str, *, is_from_end: bool = False) -> tuple[int, ...]:
    """Read a list such as `1,3..5,10/15`; days from the end of a month are stepped through towards that end."""
    values: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"(?:(\*)|(\d+)(?:\.\.(\d+))?)(?:/(\d+))?", part)
        if found is None:
            raise _unreadable(whole, f"{part!r} is no number, range or step")
        star, first, last, step = found.groups()
        low = least if star else int(first)
        high = most if star or (step and not last) else int(last or first)
        if not least <= low <= high <= most or (step is not None and not int(step)):
            raise _unreadable(whole, f"{part!r} is not within {least} to {most}")
        if is_from_end and step and not (last or star):
            values.update(range(low, 0, -int(step)))
        else:
            values.update(range(low, high + 1, int(step or 1)))
    return tuple(sorted(values))


def _weekdays(text: str, whole: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.rstrip(",").split(","):
        ends = [WEEKDAYS.get(each.lower()) for each in part.split("..")]
        first, last = ends[0], ends[-1]
        if first is None or last is None or len(ends) not in {1, 2}:
            raise _unreadable(whole, f"{part!r} is no day of the week")
        days.update((first + each) % 7 for each in range((last - first) % 7 + 1))
    return frozenset(days)


def _names_zone(word: str) -> bool:
    return word == "UTC" or ("/" in word and word[0].isalpha())


def _unreadable(expression: str, why: str) -> UsageError:
    return UsageError(
        f"{expression!r} is no calendar expression",
        because=why,
        cure="write it like 'Mon..Fri *-*-* 02:30:00 Europe/Paris', 'daily', or '*-*~01 12:00' for last days of months",
    )
