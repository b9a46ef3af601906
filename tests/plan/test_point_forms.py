"""Time points are written down and read back equal, and read on from any moment as from their start."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from labwright.core.errors import UsageError
from labwright.plan.calendar import calendar
from labwright.plan.cron import cron
from labwright.plan.point_forms import from_form, read_every, to_form, words
from labwright.plan.points import Points
from labwright.plan.policies import Late
from labwright.plan.timepoints import after, at, every
from labwright.plan.upcoming import upcoming

START = datetime(2026, 3, 28, 12, tzinfo=UTC)
seconds = st.integers(1, 4000).map(lambda number: number / 8)
intervals = st.builds(lambda interval, first: every(interval, first=first), seconds, seconds)
bounded = st.builds(lambda interval, until: every(interval, until=until), seconds, seconds) | st.builds(
    lambda interval, until: every(interval, until=START + timedelta(seconds=until)), seconds, seconds
)
counted = st.builds(lambda times, points: times * points, st.integers(1, 5), intervals)
instants = st.lists(seconds, min_size=1, max_size=4).map(
    lambda offsets: at(*(START + timedelta(seconds=each) for each in offsets))
)
listed = st.lists(seconds, min_size=1, max_size=3).map(after)
local = st.sampled_from(
    [cron("*/7 * * * *", zone="Europe/Paris"), calendar("*:0/5"), calendar("Sun *-*-* 02:30 Europe/Paris")]
)
finite = st.recursive(
    bounded | counted | instants | listed,
    lambda inner: (
        st.builds(lambda a, b: a + b, inner, inner)
        | st.builds(lambda a, b: a | b, inner, inner)
        | st.builds(lambda times, a: times * a, st.integers(1, 3), inner)
        | inner.map(lambda a: a.named("quench"))
    ),
    max_leaves=4,
)
expressions = finite | st.builds(lambda a, b: a + b, finite, intervals | local) | local | intervals
excluding = st.builds(
    lambda a, b, day: a.without(b, day, zone="Europe/Paris"), expressions, finite, st.just(date(2026, 3, 29))
)
any_points = expressions | excluding | st.builds(lambda a, b: a | b, expressions, expressions)


@given(any_points)
@settings(deadline=None)
def test_points_are_read_back_as_they_were_written(points: Points) -> None:
    written = json.loads(json.dumps(to_form(points)))
    assert from_form(written) == points
    assert words(written)


def is_in_order(points: Points) -> bool:
    """Tell whether points come in the order of time: rows of instants need not."""
    found = [each.instant(START) for each in itertools.islice(points.walk(_walk()), 40)]
    return found == sorted(found)


def _walk() -> Any:
    from labwright.plan.points import Walk

    return Walk(START)


@given(any_points, st.integers(-10, 30_000))
@settings(deadline=None)
def test_reading_on_from_a_moment_gives_what_reading_from_the_start_gives(points: Points, offset: int) -> None:
    assume(is_in_order(points))
    moment = START + timedelta(seconds=offset / 8)
    all_points = itertools.takewhile(
        lambda each: each.instant(START) < moment + timedelta(hours=3), itertools.islice(points.walk(_walk()), 50_000)
    )
    expected = [(each.instant(START), each.name) for each in all_points if each.instant(START) > moment][:20]
    found = [(each.instant(START), each.name) for each in itertools.islice(upcoming(points, START, moment), 20)]
    assert found[: len(expected)] == expected


def test_a_year_of_seconds_is_not_read_again() -> None:
    points = (10**9 * every(1)).named("tick") | cron("* * * * *")
    later = START + timedelta(days=3000)
    assert next(upcoming(points, START, later)).instant(START) == later + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("text", "offsets", "said"),
    [
        ("60s", [60.0, 120.0, 180.0], "60s"),
        ("1x500ms, 1h", [0.5, 3600.5, 7200.5], "1x0.5s,3600s"),
        ("2x1.5m,1x1d", [90.0, 180.0, 86580.0], "2x90s,1x86400s"),
    ],
)
def test_intervals_are_read_as_people_write_them(text: str, offsets: list[float], said: str) -> None:
    points = read_every(text)
    assert (points.offsets(3), words(to_form(points))) == (offsets, said)


@pytest.mark.parametrize("text", ["", "60", "x60s", "60s,5x10s", "0s", "5x0s", "0x5s", "-5s"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_every(text)


def test_points_with_policies_of_their_own_cannot_be_written() -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        to_form(every(60).under(late=Late.SKIP))


@pytest.mark.parametrize("form", [{}, {"every": "x", "after": 1}, {"row": []}, {"any": 5}, {"at": ["noon"]}])
def test_a_damaged_form_is_refused(form: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        from_form(form)
