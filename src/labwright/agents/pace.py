"""How often an agent says that it is here: each second, and more seldom where very many do so. Pure.

Each word of anybody takes the next place in the stream of presence, and each agent is told the place of its own. So it
knows how many words there are each second without asking: it slows down where there are too many, and together they
never keep the server busier than about twelve hundred agents would.
"""

from __future__ import annotations

QUICKEST_S = 1
SLOWEST_S = 4
MOST_EACH_S = 1200.0
"""With more words of all together each second, an agent speaks half as often."""
LEAST_EACH_S = 500.0
"""With fewer, twice as often; less than half of the most, so that slowing down does not lead to this."""
WINDOW_S = 10.0


class Pace:
    """The pace of one agent."""

    def __init__(self) -> None:
        self.refresh_s = QUICKEST_S
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
        if each_s > MOST_EACH_S:
            self.refresh_s = min(SLOWEST_S, 2 * self.refresh_s)
        elif each_s < LEAST_EACH_S:
            self.refresh_s = max(QUICKEST_S, self.refresh_s // 2)
        self._seq, self._since = seq, now
