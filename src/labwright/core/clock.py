"""Time as it is given to those who need it: one protocol, and the clock of the system.

A clock only reads. Loops wait; a manual clock for tests lives in `labwright.testing`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

DAY_S = 86_400.0
MANY_S = 3 * DAY_S


class Clock(Protocol):
    """Where now comes from."""

    def now(self) -> datetime:
        """Tell the wall-clock time, as an aware datetime in UTC."""
        ...

    def monotonic(self) -> float:
        """Tell seconds that never jump, for waiting and for measuring durations."""
        ...


class Sleeper(Protocol):
    """Somebody who sleeps by a clock that is moved by hand."""

    def wakes_in(self) -> float | None:
        """Tell after how many seconds it wants to be woken; None when only others wake it."""
        ...

    def wake(self) -> None:
        """Have it do what is due now, and return when it sleeps again."""
        ...


@runtime_checkable
class MovedClock(Clock, Protocol):
    """A clock that somebody moves, in a test or a simulation; it wakes those that sleep by it."""

    def attach(self, sleeper: Sleeper) -> None:
        """Stop at each moment at which this one wants to be woken."""
        ...

    def detach(self, sleeper: Sleeper) -> None:
        """Forget this one."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Tell the wall-clock time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Tell the seconds of the machine's monotonic clock."""
        return time.monotonic()


def lasting(seconds: float) -> str:
    """Write a duration: in seconds, and in days where there are many.

    >>> lasting(0.25), lasting(7200), lasting(432_000), lasting(60_479_400_000)
    ('0.25 s', '7200 s', '5 days', '699,993.1 days')
    """
    if abs(seconds) < MANY_S:
        return f"{seconds:g} s"
    return f"{seconds / DAY_S:,.1f}".removesuffix(".0") + " days"


def to_text(moment: datetime) -> str:
    """Write an instant as RFC 3339 in UTC with a `Z`.

    >>> to_text(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02T03:04:05Z'
    """
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
