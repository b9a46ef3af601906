"""Cron lines as time points; `cronsim` reads them and is loaded with the first one."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from labwright.core.errors import UsageError
from labwright.plan.calendar import local_points
from labwright.plan.local_time import zone_named
from labwright.plan.points import Points, TimePoint, Walk


@dataclass(frozen=True)
class Cron(Points):
    """Points at the local times of a cron line; see `cron`."""

    line: str
    zone: str

    def walk(self, walk: Walk) -> Iterator[TimePoint]:
        """Give the instants after the one that comes before."""
        return local_points(functools.partial(_moments, self.line), self.zone, walk)

    @property
    def is_finite(self) -> bool:
        """Tell that a cron line goes on for ever."""
        return False

    @property
    def has_instants(self) -> bool:
        """Tell that these follow the wall clock."""
        return True


def cron(line: str, *, zone: str = "UTC") -> Points:
    """Make points at the local times of a cron line of five fields, or six with seconds first.

    A local time that the clocks skip is due at the first valid instant after it, and one that they repeat is due once.

    >>> from datetime import UTC
    >>> nightly = cron("30 2 * * *", zone="Europe/Paris")
    >>> [f"{each:%d %H:%M}" for each in nightly.preview(3, start=datetime(2026, 3, 27, 12, tzinfo=UTC))]
    ['28 01:30', '29 01:00', '30 00:30']

    Raises:
        UsageError: the line cannot be read, or there is no such zone.
    """
    next(_moments(line, datetime(2000, 1, 1)), None)  # noqa: DTZ001 - a local time
    return Cron(" ".join(line.split()), zone_named(zone).key)


def _moments(line: str, first: datetime) -> Iterator[datetime]:
    from cronsim import CronSim, CronSimError

    try:
        yield from CronSim(line, first)
    except CronSimError as error:
        raise UsageError(
            f"{line!r} is no cron line",
            because=str(error),
            cure="write minute, hour, day, month and weekday, as in '30 2 * * 1-5'",
        ) from None
