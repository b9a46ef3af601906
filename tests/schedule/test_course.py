"""Each policy, on a course that a table drives: what happens on time, late, in an overrun, in a pause and when down."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from labwright.plan.points import Points
from labwright.plan.policies import Crash, Late, OnError, Overlap, Pause, Policies
from labwright.plan.timepoints import after, at, every
from labwright.schedule.course import Course
from labwright.schedule.orders import Abandon, Begin, Due, Halt, Miss, Now, Order, Past, Reached

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


@dataclass
class Drive:
    """Drives a course through time: how long each point takes, and what somebody does when."""

    course: Course
    takes: dict[int, float] = field(default_factory=dict[int, float])
    acts: dict[float, str] = field(default_factory=dict[float, str])
    fails: tuple[int, ...] = ()
    began_s: float = 0.0
    rows: list[tuple[int | None, str, float | None]] = field(
        default_factory=list[tuple[int | None, str, "float | None"]]
    )
    ends: list[tuple[float, int, Due]] = field(default_factory=list[tuple[float, int, Due]])
    count: Any = field(default_factory=itertools.count)

    def run(self, until: float = 1000.0) -> list[tuple[int | None, str, float | None]]:
        """Let time pass, and give a row for each point: its number, its outcome, when it started."""
        elapsed = self.began_s
        while elapsed <= until:
            now = Now(elapsed, START + timedelta(seconds=elapsed))
            self.obey(self.course.advance(now), now)
            if act := self.acts.pop(elapsed, None):
                self.act(act, now)
            while self.ends and self.ends[0][0] <= elapsed:
                due = heapq.heappop(self.ends)[-1]
                if due.key in self.course.running:
                    self.end(due, now, "failed" if due.number in self.fails else "succeeded")
            waits = [self.course.wakes_in(now), *(moment - elapsed for moment in self.acts)]
            waits += [moment - elapsed for moment, _, _ in self.ends]
            left = [wait for wait in waits if wait is not None]
            if not left:
                break
            elapsed = round(elapsed + max(min(left), 0.0), 6)
        return self.rows

    def act(self, act: str, now: Now) -> None:
        match act:
            case "pause":
                self.course.pause(now)
            case "resume":
                self.obey(self.course.resume(now), now)
            case "fire":
                self.obey(self.course.fire(now)[1], now)
            case "skip":
                self.course.skip(1)
            case _:
                self.obey(self.course.stop(now, "stopped"), now)

    def end(self, due: Due, now: Now, outcome: str) -> None:
        started = next(place for place, row in enumerate(self.rows) if row[:2] == (due.number, "running"))
        self.rows[started] = (due.number, outcome, self.rows[started][2])
        self.obey(self.course.ended(due, now, is_failed=outcome == "failed"), now)

    def obey(self, orders: list[Order], now: Now) -> None:
        for order in orders:
            match order:
                case Begin(due):
                    self.course.started(due, now)
                    self.rows.append((due.number, "running", now.elapsed_s))
                    takes = self.takes.get(due.number or 0, 0.0)
                    heapq.heappush(self.ends, (now.elapsed_s + takes, next(self.count), due))
                case Miss(due, outcome, _):
                    self.rows.append((due.number, str(outcome), None))
                case Abandon(due, _):
                    self.end(due, now, "aborted")
                case Halt(reason):
                    self.obey(self.course.stop(now, reason), now)


def drive(points: Points, *, past: Past | None = None, **given: Any) -> Drive:
    policies = {name: given.pop(name) for name in tuple(given) if name in Policies.__dataclass_fields__}
    began_s = past.now_s if past else 0.0
    return Drive(
        Course([points], Policies(**policies), START, past), began_s=began_s, acts=dict(given.pop("acts", {})), **given
    )


FOUR = 4 * every(10)
OK = "succeeded"
ON_TIME = [(1, OK, 10.0), (2, OK, 20.0), (3, OK, 30.0), (4, OK, 40.0)]
OVERRUN = {"takes": {1: 25.0}}  # point 1 runs from 10 to 35 s
PAUSED = {"acts": {15.0: "pause", 36.0: "resume"}}  # points 2 and 3 come in the pause
DOWN = {"past": Past(done={(0, 1): Reached(10.0, 10.0, 11.0)}, interrupted={(0, 2): 2}, count=2, now_s=32.0)}
ALL = [*Overlap, *Late, *Pause, *OnError, *Crash]
NAMES = {Overlap: "overlap", Late: "late", Pause: "pause", OnError: "on_error", Crash: "crash"}


def policy(value: Any) -> dict[str, Any]:
    return {NAMES[type(value)]: value}


@pytest.mark.parametrize("value", ALL, ids=repr)
def test_on_time_every_policy_runs_every_point_at_its_moment(value: Any) -> None:
    assert drive(FOUR, **policy(value)).run() == ON_TIME


WAITED = [(1, OK, 10.0), (2, OK, 35.0), (3, OK, 35.0), (4, OK, 40.0)]
OVERRUNS: dict[str, Sequence[tuple[int, str, float | None]]] = {
    repr(Overlap.WAIT): WAITED,
    repr(Overlap.SKIP): [(1, OK, 10.0), (2, "skipped_busy", None), (3, "skipped_busy", None), (4, OK, 40.0)],
    repr(Overlap.PARALLEL): ON_TIME,
    repr(Overlap.REPLACE_RUNNING): [(1, "aborted", 10.0), (2, OK, 20.0), (3, OK, 30.0), (4, OK, 40.0)],
    repr(Overlap.REPLACE_PENDING): [(1, OK, 10.0), (2, "skipped_busy", None), (3, OK, 35.0), (4, OK, 40.0)],
    repr(Late.SKIP): [(1, OK, 10.0), (2, "skipped_late", None), (3, "skipped_late", None), (4, OK, 40.0)],
}


@pytest.mark.parametrize("value", ALL, ids=repr)
def test_an_overrun_does_what_the_policy_says(value: Any) -> None:
    assert drive(FOUR, **OVERRUN, **policy(value)).run() == OVERRUNS.get(repr(value), WAITED)


SHIFTED = [(1, OK, 10.0), (2, OK, 41.0), (3, OK, 51.0), (4, OK, 61.0)]
PAUSES: dict[str, Sequence[tuple[int, str, float | None]]] = {
    repr(Pause.SKIP): [(1, OK, 10.0), (2, "missed_paused", None), (3, "missed_paused", None), (4, OK, 40.0)],
    repr(Pause.CATCH_UP_ONE): [(1, OK, 10.0), (2, "missed_paused", None), (3, OK, 36.0), (4, OK, 40.0)],
    repr(Pause.CATCH_UP_ALL): [(1, OK, 10.0), (2, OK, 36.0), (3, OK, 36.0), (4, OK, 40.0)],
}


@pytest.mark.parametrize("value", ALL, ids=repr)
def test_a_pause_does_what_the_policy_says(value: Any) -> None:
    assert drive(FOUR, **PAUSED, **policy(value)).run() == PAUSES.get(repr(value), SHIFTED)


DOWNS: dict[str, Sequence[tuple[int, str, float | None]]] = {
    repr(Crash.REPEAT): [(2, OK, 32.0), (3, "missed_down", None), (4, OK, 40.0)],
}


@pytest.mark.parametrize("value", ALL, ids=repr)
def test_after_a_time_without_a_process_the_policy_says_what_becomes_of_the_interrupted_point(value: Any) -> None:
    expected = DOWNS.get(repr(value), [(2, "interrupted", None), (3, "missed_down", None), (4, OK, 40.0)])

    assert sorted(drive(FOUR, **DOWN, **policy(value)).run()) == expected


@pytest.mark.parametrize(
    ("late", "tolerance", "expected"),
    [
        (Late.RUN, 1.0, [(1, OK, 10.0), (2, OK, 23.0)]),
        (Late.SKIP, 1.0, [(1, OK, 10.0), (2, "skipped_late", None)]),
        (Late.SKIP, 5.0, [(1, OK, 10.0), (2, OK, 23.0)]),
    ],
)
def test_a_late_point_runs_within_its_tolerance(late: Late, tolerance: float, expected: list[Any]) -> None:
    given: dict[str, Any] = {"late": late, "tolerance": tolerance}

    assert drive(2 * every(10), takes={1: 13.0}, **given).run() == expected


@pytest.mark.parametrize(
    ("on_error", "expected"),
    [
        (OnError.NEXT_POINT, [(1, OK, 10.0), (2, "failed", 20.0), (3, OK, 30.0), (4, OK, 40.0)]),
        (OnError.RETRY, [(1, OK, 10.0), (2, "failed", 20.0), (3, OK, 30.0), (4, OK, 40.0)]),
        (OnError.STOP, [(1, OK, 10.0), (2, "failed", 20.0), (3, "aborted", None), (4, "aborted", None)]),
    ],
)
def test_a_failed_point_does_what_the_policy_says(on_error: OnError, expected: list[Any]) -> None:
    assert drive(FOUR, fails=(2,), on_error=on_error).run() == expected


def test_a_point_may_have_policies_of_its_own() -> None:
    points = every(10, until=20) + (2 * every(10)).under(overlap=Overlap.SKIP)

    rows = sorted(drive(points, takes={1: 25.0}).run())

    assert rows == [(1, OK, 10.0), (2, OK, 35.0), (3, "skipped_busy", None), (4, OK, 40.0)]


def test_instants_do_not_move_with_a_pause() -> None:
    instants = [START + timedelta(seconds=each) for each in (10, 20, 30, 40)]

    rows = drive(at(*instants), acts={15.0: "pause", 36.0: "resume"}).run()

    assert rows == PAUSES[repr(Pause.SKIP)]


def test_a_point_fired_by_hand_runs_in_a_pause_and_has_no_number() -> None:
    rows = drive(FOUR, acts={15.0: "pause", 17.0: "fire", 36.0: "resume"}).run()

    assert rows == [(1, OK, 10.0), (None, OK, 17.0), *SHIFTED[1:]]


def test_a_point_fired_while_another_runs_waits_for_it() -> None:
    assert drive(2 * every(10), takes={1: 7.0}, acts={12.0: "fire"}).run() == [
        (1, OK, 10.0),
        (None, OK, 17.0),
        (2, OK, 20.0),
    ]


def test_a_skipped_point_is_bypassed() -> None:
    rows = drive(2 * every(10), acts={5.0: "skip"}).run()

    assert rows == [(1, "bypassed", None), (2, OK, 20.0)]


def test_a_stop_leaves_a_row_for_every_point_that_has_an_end() -> None:
    rows = drive(3 * every(10) | every(15, until=45), acts={12.0: "stop"}).run()

    assert rows == [(1, OK, 10.0), *((number, "aborted", None) for number in (2, 3, 4, 5))]


def test_points_count_from_the_end_of_the_one_before() -> None:
    points = after(10) + after(5, since="ended") + 2 * every(3)

    assert [row[2] for row in drive(points, takes={1: 7.0}).run()] == [10.0, 22.0, 25.0, 28.0]


def test_points_count_from_the_start_of_a_named_point() -> None:
    course = Course([after(20).named("quench"), after(5, of="quench", since="started")], Policies(), START)

    assert Drive(course).run() == [(1, OK, 20.0), (2, OK, 25.0)]


def test_points_that_count_from_one_that_never_comes_are_bypassed() -> None:
    course = Course([after(1), after(5, of="quench")], Policies(), START)

    assert Drive(course).run() == [(1, OK, 1.0), (2, "bypassed", None)]
    assert course.is_over


def test_what_follows_an_action_moves_with_a_pause_too() -> None:
    points = after(10) + after(10, since="ended") + after(10)

    rows = drive(points, takes={1: 5.0}, acts={16.0: "pause", 26.0: "resume"}).run()

    assert [row[2] for row in rows] == [10.0, 35.0, 45.0]


def test_a_course_that_a_crash_left_paused_is_still_paused() -> None:
    past = Past(done={(0, 1): Reached(10.0, 10.0, 11.0)}, count=1, paused_since_s=15.0, now_s=100.0)

    rows = drive(2 * every(10), past=past, acts={110.0: "resume"}).run()

    assert rows == [(2, OK, 115.0)]


def test_a_wall_clock_that_is_set_moves_instants_and_leaves_intervals() -> None:
    course = Course([2 * every(10), at(START + timedelta(seconds=15))], Policies(), START)
    stepped = Now(5.0, START + timedelta(seconds=5 - 3600))

    assert course.advance(stepped) == []
    assert course.wakes_in(stepped) == 5.0
    begun = course.advance(Now(10.0, START + timedelta(seconds=10 - 3600)))
    assert [order.due.number for order in begun if isinstance(order, Begin)] == [1]
