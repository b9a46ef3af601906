"""How long the agent's loop has just stood still: a command that came in meanwhile may be as old as that.

A process that was stopped (SIGSTOP, a suspended machine) finds in its socket what was sent while it stood, and takes it
for new. Whoever sent it may have given up long ago.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

BEAT_S = 0.25
NOTICED_S = 1.0
"""A loop that is late by less has only been busy."""
OLD_FOR_S = 1.0
"""So long after it goes on, what is taken in may have come in before."""


class Standstill:
    """Watches the running loop; `clock` counts also while the process is stopped, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat = clock()
        self._lasted_s = 0.0
        self._over_at = -OLD_FOR_S

    @property
    def age_s(self) -> float:
        """How many seconds ago a command that is taken in now may have been sent; 0 where the loop was awake."""
        self._look()
        return self._lasted_s if self._clock() - self._over_at < OLD_FOR_S else 0.0

    async def run(self) -> None:
        """Watch, for ever."""
        while True:
            await asyncio.sleep(BEAT_S)
            self.beat()

    def beat(self) -> None:
        """Note that the loop is awake."""
        self._look()
        self._beat = self._clock()

    def _look(self) -> None:
        lasted_s = self._clock() - self._beat
        if lasted_s > BEAT_S + NOTICED_S:
            self._lasted_s, self._over_at, self._beat = lasted_s, self._clock(), self._clock()
