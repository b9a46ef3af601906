"""A step of the wall clock is told once; time that passes is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from labwright.run.clock_watch import ClockWatch


class TwoHands:
    """A clock whose hands a test moves apart."""

    def __init__(self) -> None:
        self.wall = datetime(2026, 1, 1, tzinfo=UTC)
        self.passed = 0.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.passed

    def wait(self, seconds: float, *, wall: float | None = None) -> None:
        self.passed += seconds
        self.wall += timedelta(seconds=seconds if wall is None else wall)


@pytest.mark.parametrize("step", [3600.0, -3600.0, 6.0])
def test_a_step_is_told_once(step: float) -> None:
    clock = TwoHands()
    watch = ClockWatch(clock)
    clock.wait(1, wall=1 + step)
    assert watch.look() == pytest.approx(step)
    clock.wait(1)
    assert watch.look() is None


def test_time_that_passes_is_no_step() -> None:
    clock = TwoHands()
    watch = ClockWatch(clock)
    for _ in range(100):
        clock.wait(600)
        assert watch.look() is None


def test_a_clock_that_is_slewed_slowly_is_no_step() -> None:
    clock = TwoHands()
    watch = ClockWatch(clock)
    for _ in range(100):
        clock.wait(1, wall=1.5)
        assert watch.look() is None
