"""What a person may have written wrong in a time point, refused with the number or text that is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeVar

from labwright.core.errors import UsageError
from labwright.plan.local_time import instant_of, zone_named

Item = TypeVar("Item")


def read_instant(given: datetime | str, zone: str | None) -> datetime:
    """Read an instant from a datetime, its text, or a local time of that zone."""
    if not isinstance(given, datetime | str):  # pyright: ignore[reportUnnecessaryIsInstance] - users' scripts are not typed
        raise UsageError(
            f"{given!r} is no instant",
            because="an instant is an aware datetime or its text",
            cure="for seconds after the start write after(30), or after([10, 20, 30])",
        )
    try:
        moment = datetime.fromisoformat(given) if isinstance(given, str) else given
    except ValueError:
        raise UsageError(
            f"{given!r} is no instant",
            because="instants are written as in ISO 8601",
            cure="write it like '2026-03-01T09:00:00Z', or '2026-03-01T09:00' with zone='Europe/Paris'",
        ) from None
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    if zone is None:
        check_aware(moment)
    return instant_of(moment, zone_named(zone or "UTC"))


def check_aware(moment: datetime) -> None:
    """Refuse a time that belongs to no zone."""
    if moment.tzinfo is None:
        raise UsageError(
            f"the time {moment.isoformat()} belongs to no zone",
            because="the same local time is another instant in each zone",
            cure="give a zone, as in zone='Europe/Paris', or an aware datetime",
        )


def checked_seconds(value: float, what: str, *, least_excluded: bool = False) -> float:
    """Return a finite number of seconds that is not negative, and refuse any other."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)  # pyright: ignore[reportUnnecessaryIsInstance] - users' scripts are not typed
    if not is_number or not math.isfinite(value) or value < 0 or (least_excluded and value == 0):
        raise UsageError(
            f"{what} cannot be {value!r}",
            because="it is a finite number of seconds, " + ("more than 0" if least_excluded else "0 or more"),
            cure="give it in seconds, such as 60",
        )
    return value


def checked_count(value: int, what: str) -> int:
    """Return a whole number from 1, and refuse any other."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:  # pyright: ignore[reportUnnecessaryIsInstance] - as above
        raise UsageError(
            f"{what} cannot be {value!r}", because="it is a whole number, 1 or more", cure="write it like 5 * every(60)"
        )
    return value


def listed(given: float | Iterable[float]) -> Iterable[float]:
    """Give one number or many as many."""
    return given if isinstance(given, Iterable) else (given,)


def not_empty(items: list[Item], what: str) -> tuple[Item, ...]:
    """Return the items, and refuse an empty list."""
    if not items:
        raise UsageError(
            f"{what}() was given no point", because="an empty list is never due", cure="give it at least one"
        )
    return tuple(items)
