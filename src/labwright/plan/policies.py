"""What a schedule does when life differs from the plan: busy, late, paused, failed, stopped, or crashed.

Each policy is an enum whose first member is the default. A schedule has all of them, and any point may have its own.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from labwright.core.errors import UsageError
from labwright.plan.retry import Retry


class Overlap(StrEnum):
    """What happens to a point that is due while another one of its schedule still runs."""

    WAIT = "wait"
    """It runs when the running one has ended."""
    SKIP = "skip"
    """It does not run: `skipped_busy`."""
    PARALLEL = "parallel"
    """It runs beside the running one."""
    REPLACE_RUNNING = "replace_running"
    """The running one is aborted, and this one runs when that has ended."""
    REPLACE_PENDING = "replace_pending"
    """It waits, in the place of the one that waited: that one is `skipped_busy`."""


class Late(StrEnum):
    """What happens to a point that would start more than `tolerance` seconds after it was due."""

    RUN = "run"
    """It runs late."""
    SKIP = "skip"
    """It does not run: `skipped_late`."""


class Pause(StrEnum):
    """What happens to the points whose time comes during a pause."""

    SHIFT = "shift"
    """All that is left moves by the length of the pause. Instants cannot move: those are `missed_paused`."""
    SKIP = "skip"
    """They are `missed_paused`, the rest stays where it is."""
    CATCH_UP_ONE = "catch_up_one"
    """The last of them runs after the pause, the others are `missed_paused`."""
    CATCH_UP_ALL = "catch_up_all"
    """All of them run after the pause, one after another."""


class OnError(StrEnum):
    """What happens when an action raises."""

    NEXT_POINT = "next_point"
    """The point has failed; the schedule goes on with the next one."""
    STOP = "stop"
    """The point has failed, and the schedule stops."""
    RETRY = "retry"
    """The action is tried again as `retry` says, then the point has failed."""


class Stop(StrEnum):
    """How much of what runs is still done when a schedule is stopped."""

    AFTER_ACTION = "after_action"
    """The action that runs ends; the further actions of its point do not begin."""
    AFTER_POINT = "after_point"
    """The point that runs ends."""
    NOW = "now"
    """Nothing is waited for: a coroutine is cancelled, a function in a thread is left alone."""


class Crash(StrEnum):
    """What the next start does about a point that ran when the process died."""

    PAUSE = "pause"
    """The point is `interrupted`, and the schedule is paused until somebody resumes it."""
    REPEAT = "repeat"
    """The point runs again at once."""
    SKIP = "skip"
    """The point is `interrupted`, and the schedule goes on."""


@dataclass(frozen=True, kw_only=True)
class Policies:
    """All policies of a schedule, or of one of its points.

    `tolerance` is in seconds and is used by `Late.SKIP`; `retry` is used by `OnError.RETRY`.

    >>> Policies(late=Late.SKIP, tolerance=5).with_changes({"overlap": "parallel"}).overlap
    <Overlap.PARALLEL: 'parallel'>

    Raises:
        UsageError: a policy has no such value, or the tolerance is no number of seconds.
    """

    overlap: Overlap = Overlap.WAIT
    late: Late = Late.RUN
    tolerance: float = 1.0
    pause: Pause = Pause.SHIFT
    on_error: OnError = OnError.NEXT_POINT
    stop: Stop = Stop.AFTER_ACTION
    crash: Crash = Crash.PAUSE
    retry: Retry = field(default_factory=lambda: Retry(attempts=3, jitter=0))

    def __post_init__(self) -> None:
        for name, kind in ENUMS.items():
            object.__setattr__(self, name, _member(kind, name, getattr(self, name)))
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise UsageError(
                f"a tolerance cannot be {self.tolerance!r}",
                because="it is a number of seconds, 0 or more",
                cure="leave it out to take one second, or choose Late.RUN to run however late",
            )

    def with_changes(self, changes: dict[str, Any]) -> Self:
        """Give these policies with some of them changed, as a point may ask."""
        check_policies(changes)
        return dataclasses.replace(self, **changes) if changes else self


ENUMS: dict[str, type[StrEnum]] = {
    "overlap": Overlap,
    "late": Late,
    "pause": Pause,
    "on_error": OnError,
    "stop": Stop,
    "crash": Crash,
}
OF_A_POINT = ("overlap", "late", "tolerance", "pause", "on_error", "retry", "crash")


def check_policies(changes: dict[str, Any]) -> None:
    """Refuse what is no policy of a point.

    Raises:
        UsageError: a name or a value is unknown.
    """
    for name in changes:
        if name not in OF_A_POINT:
            raise UsageError(
                f"a time point has no policy {name!r}",
                because="a point may have its own " + ", ".join(OF_A_POINT),
                cure="give it to the schedule instead" if name == "stop" else "use one of these names",
            )
    Policies(**changes)


def _member(kind: type[StrEnum], name: str, value: object) -> StrEnum:
    try:
        return kind(str(value))
    except ValueError:
        raise UsageError(
            f"{value!r} is no policy for {name}",
            because=f"{kind.__name__} has " + ", ".join(member.name for member in kind),
            cure=f"choose one, such as {kind.__name__}.{next(iter(kind)).name}",
        ) from None
