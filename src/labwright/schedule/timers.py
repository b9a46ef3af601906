"""What is to be done after some seconds besides the points: the end of a time budget, the next try of an action."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

Timer = tuple[float, int]
"""When, in monotonic seconds, and a number of its own."""


class Timers:
    """Timers in the order of their moments; one that is called off stays until its moment, and does nothing then."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._rings: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count()

    def add(self, moment_s: float, ring: Callable[[], None]) -> Timer:
        """Have something done at that moment."""
        timer = (moment_s, next(self._numbers))
        self._rings[timer[1]] = ring
        heapq.heappush(self._heap, timer)
        return timer

    def call_off(self, timer: Timer) -> None:
        """Have nothing done at its moment."""
        self._rings.pop(timer[1], None)

    def wait_s(self, now_s: float) -> float | None:
        """Give the seconds until the next moment."""
        while self._heap and self._heap[0][1] not in self._rings:
            heapq.heappop(self._heap)
        return max(0.0, self._heap[0][0] - now_s) if self._heap else None

    def ring(self, now_s: float) -> None:
        """Do all that is to be done by now."""
        while self._heap and self._heap[0][0] <= now_s:
            ring = self._rings.pop(heapq.heappop(self._heap)[1], None)
            if ring:
                ring()
