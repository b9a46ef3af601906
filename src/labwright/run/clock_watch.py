"""Steps of the wall clock: noticed against the monotonic clock, so that nobody takes one for time that has passed."""

from __future__ import annotations

from labwright.core.clock import Clock

LARGEST_DRIFT_S = 5.0


class ClockWatch:
    """Compares the two clocks each time that it looks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = self._measured()

    def look(self) -> float | None:
        """Tell by how many seconds the wall clock has stepped since the last look; None for less than five."""
        offset = self._measured()
        step = offset - self._offset
        self._offset = offset
        return step if abs(step) > LARGEST_DRIFT_S else None

    def _measured(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()
