"""Time points: their laws, their order, and what is refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.core.errors import UsageError
from labwright.plan.points import Points, Walk
from labwright.plan.policies import Late
from labwright.plan.timepoints import after, at, every, pairs

START = datetime(2026, 3, 1, 8, tzinfo=UTC)

seconds = st.integers(1, 10_000).map(float)
finite = st.recursive(
    st.one_of(
        st.tuples(st.integers(1, 5), seconds).map(lambda pair: pair[0] * every(pair[1])),
        st.lists(seconds, min_size=1, max_size=5).map(after),
        st.integers(0, 100_000).map(lambda offset: at(START + timedelta(seconds=offset))),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
        st.tuples(st.integers(1, 3), seconds, inner).map(lambda three: three[0] * every(three[1]) | three[2]),
    ),
    max_leaves=5,
)


def moments(points: Points, count: int = 10_000) -> list[datetime]:
    return points.preview(count, start=START)


@given(finite)
def test_points_come_in_order_and_the_same_each_time(points: Points) -> None:
    read = moments(points)

    assert read == sorted(read) == moments(points)
    assert points.is_finite


@given(finite, finite, finite)
def test_a_union_is_commutative_associative_and_idempotent(a: Points, b: Points, c: Points) -> None:
    assert moments(a | b) == moments(b | a)
    assert moments((a | b) | c) == moments(a | (b | c))
    assert moments(a | a) == moments(a | a | a)
    assert set(moments(a | b)) == set(moments(a)) | set(moments(b))


@given(finite, finite, finite)
def test_a_sequence_is_associative_and_has_the_points_of_all(a: Points, b: Points, c: Points) -> None:
    def walk(points: Points) -> list[Any]:
        return list(points.walk(Walk(START)))

    assert walk((a + b) + c) == walk(a + (b + c))
    assert walk(a + b)[: len(walk(a))] == walk(a)


@given(st.integers(1, 5), seconds, seconds)
def test_what_follows_counts_from_the_last_point(times: int, first: float, second: float) -> None:
    assert (times * every(first) + after(second)).offsets()[-1] == times * first + second


@given(finite)
def test_repeating_is_following_oneself(points: Points) -> None:
    assert list((2 * points).walk(Walk(START))) == list((points + points).walk(Walk(START)))


@given(finite, finite)
def test_what_is_left_out_is_what_the_other_has(a: Points, b: Points) -> None:
    assert set(moments((a | a).without(b))) == set(moments(a)) - set(moments(b))


def test_intervals_do_not_add_up_their_errors() -> None:
    last = next(itertools.islice(every(0.1).walk(Walk(START)), 999_999, None))

    assert last.offset_s == pytest.approx(100_000.0, abs=1e-9)


def test_a_million_points_cost_no_more_than_those_that_are_read() -> None:
    points = 1_000_000 * every(60) + 1_000_000 * every(300)

    assert points.offsets(3) == [60.0, 120.0, 180.0]


def test_the_ways_to_write_the_published_sequence_agree() -> None:
    expected = [60.0, 120.0, 180.0, 240.0, 300.0, *(600.0 + 300 * each for each in range(10))]

    assert (5 * every(60) + 10 * every(300)).offsets(20) == expected
    assert pairs((5, 60), (10, 300)).offsets(20) == expected
    assert (every(60, until=300) + 10 * every(300)).offsets(20) == expected


def test_a_first_point_may_be_at_the_start_and_an_end_may_be_an_instant() -> None:
    assert every(60, first=0).offsets(3) == [0.0, 60.0, 120.0]
    assert len(moments(every(60, until=START + timedelta(minutes=5)))) == 5


def test_days_are_left_out_in_their_zone() -> None:
    nightly = every(86_400, first=0)

    kept = nightly.without(date(2026, 3, 2), zone="Pacific/Auckland").preview(2, start=START + timedelta(hours=4))

    assert [moment.day for moment in kept] == [2, 3]


def test_names_and_policies_stay_with_their_points() -> None:
    points = after(5).named("quench").under(late=Late.SKIP) + after(5)

    first, second = points.walk(Walk(START))

    assert (first.name, dict(first.policies)) == ("quench", {"late": Late.SKIP})
    assert (second.name, second.policies, second.offset_s) == ("", (), 10.0)


def test_a_union_keeps_apart_what_follows_different_clocks() -> None:
    points = every(60) | every(90) | at(START) | after(5, of="quench", since="ended")

    assert [(strand.is_open, strand.has_instants) for strand in points.strands()] == [
        (False, False),
        (False, True),
        (True, False),
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: every(0),
        lambda: every(-1),
        lambda: every(math.nan),
        lambda: every(math.inf),
        lambda: every("60"),  # pyright: ignore[reportArgumentType]
        lambda: every(True),
        lambda: every(60, first=-1),
        lambda: every(60, until=math.nan),
        lambda: every(60, until=datetime(2026, 1, 1)),  # noqa: DTZ001 - what is refused
        lambda: 0 * every(60),
        lambda: -1 * every(60),
        lambda: 1.5 * every(60),  # pyright: ignore[reportOperatorIssue]
        lambda: every(60) + every(5),
        lambda: after([]),
        lambda: after(math.nan),
        lambda: after(-1),
        lambda: after(1, since="sometime"),
        lambda: after(1, since="start", of="quench"),
        at,
        lambda: at("tomorrow"),
        lambda: at("2026-03-01T09:00"),
        lambda: at("2026-03-01T09:00", zone="Mars/Olympus"),
        pairs,
        lambda: pairs((0, 60)),
        lambda: every(60).under(stop="now"),
        lambda: every(60).under(late="never"),
        lambda: every(60).without(),
        lambda: every(60).without(START),
        lambda: every(60).preview(0, start=START),
        lambda: (after(1, of="quench") + after(2)).without(every(1)),
        lambda: after(1) + (after(1, of="quench") | after(2)),
        lambda: after(1, since="ended") + at(START),
    ],
)
def test_what_could_never_be_due_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError) as refused:
        make()

    assert refused.value.because
    assert refused.value.cure
