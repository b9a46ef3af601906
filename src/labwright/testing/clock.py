"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from labwright.core.clock import Sleeper

START = datetime(2026, 1, 1, tzinfo=UTC)


class ManualClock:
    """Time that passes when told to.

    >>> clock = ManualClock()
    >>> clock.advance(90)
    >>> clock.now().isoformat()
    '2026-01-01T00:01:30+00:00'
    """

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._passed = 0.0
        self._sleepers: list[Sleeper] = []

    def now(self) -> datetime:
        """Tell the wall-clock time, in UTC."""
        return self._start + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        """Tell the seconds that have passed since the clock was made."""
        return self._passed

    def advance(self, seconds: float) -> None:
        """Let that many seconds pass, and wake those that sleep by this clock, each at its moment."""
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds} s")
        end = self._passed + seconds
        while (moment := self._next_waking(end)) is not None:
            self._passed = max(self._passed, moment)
            self._wake()
        self._passed = end
        self._wake()

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as somebody does who corrects it; no time passes."""
        self._start += timedelta(seconds=seconds)
        self._wake()

    def attach(self, sleeper: Sleeper) -> None:
        """Stop at each moment at which this one wants to be woken."""
        self._sleepers.append(sleeper)

    def detach(self, sleeper: Sleeper) -> None:
        """Forget this one."""
        self._sleepers.remove(sleeper)

    def _next_waking(self, end: float) -> float | None:
        waits = [wait for sleeper in self._sleepers if (wait := sleeper.wakes_in()) is not None]
        return moment if waits and (moment := self._passed + min(waits)) <= end else None

    def _wake(self) -> None:
        for sleeper in tuple(self._sleepers):
            sleeper.wake()
