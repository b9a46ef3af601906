"""The manual clock."""

import pytest

from labwright.testing import ManualClock


def test_time_passes_only_when_told_to() -> None:
    clock = ManualClock()
    before = clock.now()

    clock.advance(1.5)

    assert (clock.now() - before).total_seconds() == 1.5
    assert clock.monotonic() == 1.5


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="back"):
        ManualClock().advance(-1)
