"""Notices what happens to the clocks of the machine: a wall clock that is set, a process that stood still."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from labwright.core.clock import Clock

WORTH_A_NOTE_S = 0.5


class ClockWatch:
    """Compares the wall clock with the monotonic one each time it looks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_s = clock.now().timestamp() - clock.monotonic()
        self._expected_s: float | None = None

    def expect(self, seconds: float) -> None:
        """Take note that the next look is after so many seconds at the latest."""
        self._expected_s = self._clock.monotonic() + seconds

    def look(self, wall: datetime) -> Iterator[tuple[str, str]]:
        """Tell what has happened since the last look, each time as a kind and a sentence."""
        monotonic = self._clock.monotonic()
        offset_s = wall.timestamp() - monotonic
        stepped_s, self._offset_s = offset_s - self._offset_s, offset_s
        if abs(stepped_s) >= WORTH_A_NOTE_S:
            yield "clock_stepped", f"the wall clock went {stepped_s:+.3f} s against elapsed time"
        if self._expected_s is not None and monotonic - self._expected_s >= WORTH_A_NOTE_S:
            yield "stood_still", f"the process woke {monotonic - self._expected_s:.3f} s late"
        self._expected_s = None
