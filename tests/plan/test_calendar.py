"""Calendars and cron lines: what they say, and the nights on which clocks change, in six zones."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.core.errors import UsageError
from labwright.plan.calendar import calendar
from labwright.plan.cron import cron
from labwright.plan.local_time import instant_of
from labwright.plan.points import Points
from labwright.plan.timepoints import every

NIGHTS = [  # the zone, a local time that is skipped and the first valid one after it; one that is repeated
    ("Europe/Paris", "2026-03-29T02:30", "2026-03-29T03:00", "2026-10-25T02:30"),
    ("America/New_York", "2026-03-08T02:30", "2026-03-08T03:00", "2026-11-01T01:30"),
    ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-04T02:30", "2026-04-05T01:45"),
    ("America/St_Johns", "2026-03-08T02:30", "2026-03-08T03:00", "2026-11-01T01:30"),
    ("America/Santiago", "2026-09-06T00:30", "2026-09-06T01:00", "2026-04-04T23:30"),
    ("Pacific/Auckland", "2026-09-27T02:30", "2026-09-27T03:00", "2026-04-05T02:30"),
]


def local(points: Points, zone: str, start: datetime, count: int) -> list[str]:
    return [f"{each.astimezone(ZoneInfo(zone)):%Y-%m-%dT%H:%M}" for each in points.preview(count, start=start)]


@pytest.mark.parametrize(("zone", "skipped", "valid", "repeated"), NIGHTS)
@pytest.mark.parametrize("kind", ["cron", "calendar"])
def test_a_skipped_time_is_due_at_the_first_valid_instant_and_a_repeated_one_once(
    kind: str, zone: str, skipped: str, valid: str, repeated: str
) -> None:
    for night, expected in ((skipped, valid), (repeated, repeated)):
        when = datetime.fromisoformat(night)
        points = (
            cron(f"{when.minute} {when.hour} * * *", zone=zone)
            if kind == "cron"
            else calendar(f"*-*-* {when:%H:%M}:00 {zone}")
        )
        start = instant_of(when - timedelta(hours=12), ZoneInfo(zone))

        assert local(points, zone, start, 2) == [expected, f"{when + timedelta(days=1):%Y-%m-%dT%H:%M}"]


@pytest.mark.parametrize(("zone", "skipped", "valid", "repeated"), NIGHTS)
def test_intervals_count_elapsed_time_through_the_night(zone: str, skipped: str, valid: str, repeated: str) -> None:
    for night in (skipped, repeated):
        start = instant_of(datetime.fromisoformat(night) - timedelta(hours=3), ZoneInfo(zone))

        gaps = [each - start for each in every(3600).preview(6, start=start)]

        assert gaps == [timedelta(hours=each) for each in range(1, 7)]


@given(
    zone=st.sampled_from([zone for zone, *_ in NIGHTS]),
    day=st.dates(date(2020, 1, 1), date(2035, 12, 31)),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
)
def test_a_nightly_point_is_due_once_for_each_local_day(zone: str, day: date, hour: int, minute: int) -> None:
    start = instant_of(datetime(day.year, day.month, day.day), ZoneInfo(zone)) - timedelta(seconds=1)  # noqa: DTZ001

    by_cron = cron(f"{minute} {hour} * * *", zone=zone).preview(4, start=start)

    days = [each.astimezone(ZoneInfo(zone)).date() for each in by_cron]
    assert days == [day + timedelta(days=each) for each in range(4)]
    assert by_cron == calendar(f"*-*-* {hour}:{minute}", zone=zone).preview(4, start=start)


FIRST = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("Mon..Fri *-*-* 02:30:00", ["01-01 02:30", "01-02 02:30", "01-05 02:30"]),
        ("Fri..Mon 12:00", ["01-02 12:00", "01-03 12:00", "01-04 12:00"]),
        ("Sat,Sunday *-*-* 12:00", ["01-03 12:00", "01-04 12:00", "01-10 12:00"]),
        ("*-*~01 12:00", ["01-31 12:00", "02-28 12:00", "03-31 12:00"]),
        ("*-02~03", ["02-26 00:00", "02-26 00:00", "02-27 00:00"]),
        ("Mon *-05~07/1", ["05-25 00:00", "05-31 00:00", "05-29 00:00"]),
        ("*-*-1,15 6,18:00", ["01-01 06:00", "01-01 18:00", "01-15 06:00"]),
        ("*:0/20", ["01-01 00:20", "01-01 00:40", "01-01 01:00"]),
        ("8..10/2:15", ["01-01 08:15", "01-01 10:15", "01-02 08:15"]),
        ("2027-*-* 00:00", ["01-01 00:00", "01-02 00:00", "01-03 00:00"]),
        ("02-29", ["02-29 00:00", "02-29 00:00", "02-29 00:00"]),
        ("daily", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        ("weekly", ["01-05 00:00", "01-12 00:00", "01-19 00:00"]),
        ("quarterly", ["04-01 00:00", "07-01 00:00", "10-01 00:00"]),
        ("hourly UTC", ["01-01 01:00", "01-01 02:00", "01-01 03:00"]),
    ],
)
def test_a_calendar_expression_says_what_it_says_to_systemd(expression: str, expected: list[str]) -> None:
    assert [f"{each:%m-%d %H:%M}" for each in calendar(expression).preview(3, start=FIRST)] == expected


@pytest.mark.parametrize(
    "expression",
    ["", "Mon..", "Foo *-*-*", "*-13-01", "*-*-* 25:00", "*-*-* 1:2:3:4", "*-02-30", "*:0/0", "*-*-* 1:00 Mars/Olympus",
     "2026-01-01 1:00 2:00", "5..3:00", "yesterday"],
)  # fmt: skip
def test_an_expression_that_says_nothing_is_refused(expression: str) -> None:
    with pytest.raises(UsageError) as refused:
        calendar(expression)

    assert refused.value.cure


@pytest.mark.parametrize("line", ["", "1 2 3", "61 * * * *", "0 0 30 2 *", "x * * * *"])
def test_a_cron_line_that_says_nothing_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match="no cron line"):
        cron(line)


def test_calendars_combine_with_other_points() -> None:
    nightly = calendar("02:30", zone="UTC")

    assert len((3 * nightly).preview(10, start=FIRST)) == 3
    followed = (2 * nightly + 2 * every(60)).preview(4, start=FIRST)
    assert [f"{each:%d %H:%M}" for each in followed] == ["01 02:30", "02 02:30", "02 02:31", "02 02:32"]
    kept = nightly.without(date(2026, 1, 2), calendar("Sat 02:30")).preview(3, start=FIRST)
    assert [each.day for each in kept] == [1, 4, 5]


def test_cronsim_is_loaded_with_the_first_cron_line() -> None:
    ask = "print('cronsim' in sys.modules)"
    code = f"import sys; from labwright import cron; {ask}; cron('* * * * *'); {ask}"

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout

    assert told == "False\nTrue\n"
