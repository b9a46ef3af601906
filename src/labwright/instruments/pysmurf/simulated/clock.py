"""The machine's time: its waits are shorter than in life, and its clock goes on as if they were not."""

from __future__ import annotations

import time


class Clock:
    """A clock that runs with the wall's, and `speed` times as fast while somebody sleeps on it."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._ahead_s = 0.0

    def time(self) -> float:
        """Tell the machine's time, epoch seconds."""
        return time.time() + self._ahead_s

    def sleep(self, seconds: float) -> None:
        """Wait for so many of the machine's seconds."""
        begun = time.monotonic()
        time.sleep(max(0.0, seconds / self._speed))
        self._ahead_s += max(0.0, seconds - (time.monotonic() - begun))
