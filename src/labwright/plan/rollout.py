"""Who is next: the order in which something is done on many targets, one end after the other. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from labwright.core.errors import UsageError
from labwright.plan.fan_out import FanOut, OnFailure


class Rollout:
    """Tells who is to be started next; it is told who has ended, and how.

    `over` says why nothing more is started, once the failure budget is used up; `aborts` whether what runs is then to
    be ended, too.

    >>> rollout = Rollout(["a", "b", "c"], FanOut(waves="1,all"))
    >>> rollout.due()
    ['a']
    >>> rollout.ended("a", succeeded=True)
    >>> rollout.due()
    ['b', 'c']

    Raises:
        UsageError: a target stands twice.
    """

    def __init__(self, targets: Sequence[str], how: FanOut) -> None:
        if len(set(targets)) < len(targets):
            twice = next(name for position, name in enumerate(targets) if name in targets[:position])
            raise UsageError(f"{twice} is named twice", because="one row is given for each target", cure="name it once")
        self.running: set[str] = set()
        self.over = ""
        self._how = how
        self._allowed = how.allowed_failures(len(targets))
        self._failed = 0
        self._waves = deque(how.in_waves(targets))
        self._queue: deque[str] = deque()

    @property
    def aborts(self) -> bool:
        """Whether what runs is to be ended early, since too many have failed."""
        return bool(self.over) and self._how.on_failure is OnFailure.ABORT

    @property
    def is_done(self) -> bool:
        """Whether nothing runs, and nothing more will be started."""
        return not self.running and (bool(self.over) or not (self._queue or self._waves))

    @property
    def is_between_waves(self) -> bool:
        """Whether a wave has ended, and more may be started."""
        return not self.running and not self._queue and not self.over

    def due(self) -> list[str]:
        """Give those that are to be started now; from here on they run."""
        if self.over:
            return []
        if not self._queue and not self.running and self._waves:
            self._queue.extend(self._waves.popleft())
        most = len(self._queue) if self._how.at_once is None else self._how.at_once - len(self.running)
        names = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
        self.running.update(names)
        return names

    def ended(self, name: str, *, succeeded: bool) -> None:
        """Take up that one has ended."""
        self.running.discard(name)
        self._failed += not succeeded
        if self._failed > self._allowed:
            self.stop(f"{self._failed} had not succeeded, and the failure budget is {self._allowed}")

    def again(self, name: str) -> None:
        """Have one that failed started once more in its wave; it has not failed until it does so again."""
        self._failed -= 1
        self._queue.append(name)

    def stop(self, why: str) -> None:
        """Have nothing more started."""
        self.over = self.over or why
