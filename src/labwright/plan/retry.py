"""How often, and after how long, a run that failed with an error that may pass is tried again."""

from __future__ import annotations

import math
from dataclasses import dataclass

from labwright.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Try again with growing, jittered pauses.

    `attempts` counts the first try too. The pause after the first failure is `first` seconds, each further one is
    `factor` times longer, none is longer than `most`; `jitter` spreads each by that part of it to both sides, so that
    runs which failed together do not come back together. With `timeouts`, an attempt that passed its task's `timeout`
    is tried again like one that failed with a `TransientError`; without, it fails the run.

    >>> Retry(first=2, jitter=0).delay(3, random=0.5)
    8.0

    Raises:
        UsageError: a value is out of its range.
    """

    attempts: int = 5
    first: float = 1
    factor: float = 2
    most: float = 300
    jitter: float = 0.2
    timeouts: bool = False

    def __post_init__(self) -> None:
        _check("attempts", self.attempts, least=1)
        _check("first", self.first, least=0)
        _check("factor", self.factor, least=1)
        _check("most", self.most, least=0)
        _check("jitter", self.jitter, least=0, greatest=1)

    def delay(self, failures: int, random: float) -> float:
        """Give the pause in seconds after that many failures (1 or more); `random` is a number from 0 to 1."""
        try:
            grown = self.first * float(self.factor) ** (max(failures, 1) - 1)
        except OverflowError:
            grown = self.most
        spread = 1 + self.jitter * (2 * random - 1)
        return float(min(self.most, min(self.most, grown) * spread))

    def allows_another(self, failures: int) -> bool:
        """Tell whether a run that has failed that many times, the last time included, may be tried again."""
        return failures < self.attempts


def _check(name: str, value: float, *, least: float, greatest: float = math.inf) -> None:
    if not (math.isfinite(value) and least <= value <= greatest):
        limits = f"from {least} to {greatest}" if math.isfinite(greatest) else f"{least} or more"
        raise UsageError(
            f"a retry policy's {name} cannot be {value!r}",
            because=f"it must be a number, {limits}",
            cure="leave it out to take the default",
        )
