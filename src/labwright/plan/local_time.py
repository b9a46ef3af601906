"""Local times of a zone as instants, with one rule for the nights on which clocks change.

A local time that the clocks skip is the first valid instant after it; one that they repeat is the first of the two.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from labwright.core.errors import UsageError


def zone_named(name: str) -> ZoneInfo:
    """Find a time zone by its IANA name.

    Raises:
        UsageError: there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"there is no time zone {name!r}",
            because="zones have the names of the IANA database",
            cure="write it like 'Europe/Paris' or 'UTC'; where the system has no zones, install the package tzdata",
        ) from None


def instant_of(local: datetime, zone: ZoneInfo) -> datetime:
    """Give the instant of a naive local time.

    >>> instant_of(datetime(2026, 3, 29, 2, 30), ZoneInfo("Europe/Paris")).isoformat()
    '2026-03-29T01:00:00+00:00'
    >>> instant_of(datetime(2026, 10, 25, 2, 30), ZoneInfo("Europe/Paris")).isoformat()
    '2026-10-25T00:30:00+00:00'
    """
    instant = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == local:
        return instant
    return _change_between(local.replace(tzinfo=zone, fold=1).astimezone(UTC), instant, zone)


def _change_between(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """Find the second at which the zone's offset changes."""
    earlier = before.astimezone(zone).utcoffset()
    low, high = 0, int((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if (before + timedelta(seconds=middle)).astimezone(zone).utcoffset() == earlier:
            low = middle
        else:
            high = middle
    return before.replace(microsecond=0) + timedelta(seconds=high)
