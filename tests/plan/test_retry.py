"""The retry policy: growing, bounded, jittered pauses."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.core.errors import UsageError
from labwright.plan.retry import Retry

retries = st.builds(
    Retry,
    attempts=st.integers(1, 1000),
    first=st.floats(0, 1e6),
    factor=st.floats(1, 1e6),
    most=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
)


@given(retries, st.integers(1, 10**6), st.floats(0, 1))
def test_no_pause_is_negative_or_longer_than_the_longest(retry: Retry, failures: int, random: float) -> None:
    assert 0 <= retry.delay(failures, random) <= retry.most


@given(retries, st.integers(1, 100), st.floats(0, 1))
def test_pauses_never_shrink_from_one_failure_to_the_next(retry: Retry, failures: int, random: float) -> None:
    assert retry.delay(failures, random) <= retry.delay(failures + 1, random)


def test_the_defaults_double_from_one_second() -> None:
    assert [Retry().delay(failures, 0.5) for failures in (1, 2, 3, 4)] == [1, 2, 4, 8]


def test_jitter_spreads_a_pause_to_both_sides() -> None:
    retry = Retry(first=10, jitter=0.2)

    assert retry.delay(1, 0) == pytest.approx(8)
    assert retry.delay(1, 1) == pytest.approx(12)


def test_the_first_try_counts_as_an_attempt() -> None:
    assert Retry(attempts=2).allows_another(1)
    assert not Retry(attempts=2).allows_another(2)
    assert not Retry(attempts=1).allows_another(1)


@pytest.mark.parametrize(
    "wrong",
    [{"attempts": 0}, {"first": -1}, {"factor": 0.5}, {"most": math.inf}, {"jitter": 1.5}, {"first": math.nan}],
)
def test_values_out_of_range_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Retry(**wrong)  # pyright: ignore[reportArgumentType]
