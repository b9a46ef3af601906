"""Waiting, as an action between others."""

from __future__ import annotations

from collections.abc import Generator

from labwright.plan.point_checks import checked_seconds
from labwright.schedule.actions import Action


def wait(seconds: float, *, label: str = "wait") -> Action:
    """Make an action that lets seconds pass, by the clock of its schedule; a stop now cuts it short.

    Raises:
        UsageError: it is no number of seconds.
    """
    return Action(_wait, seconds=checked_seconds(seconds, "a wait"), label=label)


def _wait(*, seconds: float) -> Generator[float, None, float]:
    yield seconds
    return seconds
