"""How often an agent says that it is here: each second, and more seldom where very many do so. Pure.

Each word of anybody takes the next place in the stream of presence, and each agent is told the place of its own. So it
knows how many words there are each second without asking: it slows down where there are too many, so that together
they never keep the server busy. Where it is told at once who was cut off, words are needed only for those that freeze
or whose network does not carry, and far fewer do.
"""

from __future__ import annotations

from dataclasses import dataclass

QUICKEST_S = 1
WINDOW_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many words of all together there should be each second, and how seldom one may speak, in seconds.

    Half of the most is more than the least, so that slowing down does not lead to speaking up.
    """

    most_each_s: float
    least_each_s: float
    slowest_s: int


UNTOLD = Limits(most_each_s=1200.0, least_each_s=500.0, slowest_s=4)
TOLD = Limits(most_each_s=100.0, least_each_s=40.0, slowest_s=16)
"""Where departures are told."""


class Pace:
    """The pace of one agent; `limits` may change at any time."""

    def __init__(self) -> None:
        self.refresh_s = QUICKEST_S
        self.limits = UNTOLD
        self._seq = 0
        self._since = 0.0

    @property
    def ttl_s(self) -> int:
        """How long a word counts unless it is said again."""
        return 2 * self.refresh_s

    def note(self, seq: int, now: float) -> None:
        """Take the place of the newest word, and the moment on a monotonic clock."""
        took = now - self._since
        if not 0 < self._seq <= seq or took > 2 * WINDOW_S:  # the first, or the server has forgotten, or a standstill
            self._seq, self._since = seq, now
            return
        if took < WINDOW_S:
            return
        each_s = (seq - self._seq) / took
        if each_s > self.limits.most_each_s:
            self.refresh_s *= 2
        elif each_s < self.limits.least_each_s:
            self.refresh_s //= 2
        self.refresh_s = min(max(self.refresh_s, QUICKEST_S), self.limits.slowest_s)
        self._seq, self._since = seq, now
