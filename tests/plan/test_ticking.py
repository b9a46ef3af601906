"""What a durable schedule does at each moment: points, policies, pauses and downtime, as tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labwright.core.errors import UsageError
from labwright.journal.records import (
    Record,
    ScheduleDefined,
    ScheduleFired,
    SchedulePaused,
    ScheduleRemoved,
    ScheduleResumed,
    ScheduleSkipped,
    ScheduleTicked,
)
from labwright.journal.schedule_fold import apply_schedule
from labwright.plan.durable import ScheduleDefinition, ScheduleSnapshot
from labwright.plan.point_forms import to_form
from labwright.plan.points import Points
from labwright.plan.policies import Overlap, Pause
from labwright.plan.ticking import Surroundings, Tick, preview, tick
from labwright.plan.timepoints import after, at, every

START = datetime(2026, 1, 1, tzinfo=UTC)


def moment(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class Lived:
    """A schedule that is looked at as a ticker does, whose runs last as long as the test says."""

    def __init__(self, points: Points, **policies: Any) -> None:
        definition = ScheduleDefinition(task="one", points=to_form(points), **policies)
        self.state: ScheduleSnapshot
        self.take(ScheduleDefined(definition=definition, at=START))
        self.up_since = START
        self.busy_until = -1.0
        self.made: list[tuple[float, float]] = []
        self.missed: list[tuple[float, str]] = []
        self.records = 0
        self.replaced = 0

    def take(self, record: Record) -> None:
        state = apply_schedule(getattr(self, "state", None), record, "s")
        assert state is not None
        self.state = state

    def look(self, seconds: float, *, lasts: float = 0.0) -> Tick:
        """Do what is due then; runs that begin last so many seconds."""
        while True:
            is_busy = seconds < self.busy_until
            done = tick(self.state, Surroundings(now=moment(seconds), up_since=self.up_since, is_busy=is_busy))
            if not done.settles(self.state):
                return done
            if done.replaces:
                self.replaced += 1
                self.busy_until = -1.0
            if done.make:
                self.busy_until = seconds + lasts
            self.made += [((each.planned_at - START).total_seconds(), seconds) for each in done.make]
            self.missed += [((each.planned_at - START).total_seconds(), each.outcome.value) for each in done.missed]
            self.take(
                ScheduleTicked(
                    generation=self.state.generation,
                    watermark=done.watermark,
                    missed=tuple(done.missed),
                    waiting=tuple(done.waiting),
                    skips=done.skips,
                    fired=tuple(each.fired for each in done.make if each.fired),
                )
            )
            self.records += 1

    def down(self, until: float) -> None:
        """Have no ticker until then."""
        self.up_since = moment(until)


def test_each_point_is_made_once_at_its_moment() -> None:
    lived = Lived(2 * every(60) + every(300))
    assert lived.look(0).wakes_at == moment(60)
    for seconds in (60, 60, 120, 420, 421, 720):
        lived.look(seconds)
    assert lived.made == [(60, 60), (120, 120), (420, 420), (720, 720)]
    assert lived.look(721).wakes_at == moment(1020)


def test_a_point_at_the_start_is_made() -> None:
    lived = Lived(every(60, first=0))
    lived.up_since = moment(-1)
    lived.look(0)
    assert lived.made == [(0, 0)]


def test_a_schedule_whose_points_are_over_wakes_no_more() -> None:
    lived = Lived(at(moment(5)))
    lived.look(5)
    assert (lived.made, lived.look(6).wakes_at) == ([(5, 5)], None)


@pytest.mark.parametrize(
    ("overlap", "made", "missed"),
    [
        ("wait", [(10, 10), (20, 35), (30, 60), (40, 85)], []),
        ("skip", [(10, 10), (40, 40)], [(20, "skipped_busy"), (30, "skipped_busy")]),
        ("parallel", [(10, 10), (20, 20), (30, 30), (40, 40)], []),
        ("replace_pending", [(10, 10), (30, 35), (40, 60)], [(20, "skipped_busy")]),
        ("replace_running", [(10, 10), (20, 20), (30, 30), (40, 40)], []),
    ],
)
def test_a_point_that_is_due_while_a_run_is_open(overlap: str, made: list[Any], missed: list[Any]) -> None:
    lived = Lived(4 * every(10), overlap=overlap)
    for seconds in range(0, 100, 5):
        lived.look(seconds, lasts=25)
    assert (lived.made, lived.missed) == (made, missed)
    assert lived.replaced == (3 if overlap == "replace_running" else 0)


def test_no_more_than_a_hundred_points_wait() -> None:
    lived = Lived(every(1))
    for seconds in range(150):
        lived.look(seconds, lasts=1000)
    assert len(lived.state.waiting) == 100
    assert lived.missed[0] == (102, "skipped_busy")


@pytest.mark.parametrize(
    ("policies", "made", "missed"),
    [
        ({}, [(10, 10), (20, 29)], []),
        ({"late": "skip", "tolerance_s": 5}, [(10, 10)], [(20, "skipped_late")]),
        ({"late": "skip", "tolerance_s": 9}, [(10, 10), (20, 29)], []),
    ],
)
def test_a_late_point(policies: dict[str, Any], made: list[Any], missed: list[Any]) -> None:
    lived = Lived(2 * every(10), **policies)
    lived.look(10)
    lived.look(29)
    assert (lived.made, lived.missed) == (made, missed)


@pytest.mark.parametrize(
    ("policies", "made", "missed"),
    [
        ({}, [(10, 10), (40, 45), (50, 50)], [(20, "missed_down"), (30, "missed_down")]),
        ({"late": "skip"}, [(10, 10), (50, 50)], [(each, "missed_down") for each in (20, 30, 40)]),
        (
            {"late": "skip", "tolerance_s": 6},
            [(10, 10), (40, 45), (50, 50)],
            [(20, "missed_down"), (30, "missed_down")],
        ),
    ],
)
def test_points_that_were_due_while_the_lab_was_down(
    policies: dict[str, Any], made: list[Any], missed: list[Any]
) -> None:
    lived = Lived(every(10), **policies)
    lived.look(10)
    lived.down(until=45)
    lived.look(45)
    lived.look(50)
    assert (lived.made, lived.missed) == (made, missed)


def test_points_that_have_runs_already_are_made_whole_and_not_missed() -> None:
    for policies in ({}, {"late": "skip"}, {"overlap": "skip"}):
        lived = Lived(every(10), **policies)
        around = Surroundings(
            now=moment(45), up_since=moment(44), is_busy=True, begun=frozenset({moment(10), moment(20)})
        )
        done = tick(lived.state, around)
        assert [each.planned_at for each in done.make] == [moment(10), moment(20)]
        assert moment(30) in {each.planned_at for each in done.missed}


def test_three_days_of_seconds_are_settled_in_few_records() -> None:
    lived = Lived(every(1))
    lived.down(until=3 * 86_400 + 0.5)
    lived.look(3 * 86_400 + 0.5)
    assert lived.made == [(259_200, 259_200.5)]
    assert len(lived.missed) == len(set(lived.missed)) == 259_199
    assert lived.records < 300
    assert len(lived.state.rows) == 200


@pytest.mark.parametrize(
    ("pause", "made", "missed"),
    [
        ("shift", [(10, 10), (20, 55), (30, 65)], []),
        ("skip", [(10, 10), (60, 60)], [(20, "missed_paused"), (30, "missed_paused"), (40, "missed_paused")]),
        ("catch_up_one", [(10, 10), (40, 50), (60, 60)], [(20, "missed_paused"), (30, "missed_paused")]),
        ("catch_up_all", [(10, 10), (20, 50), (30, 50), (40, 50), (60, 60)], []),
    ],
)
def test_points_whose_time_comes_during_a_pause(pause: str, made: list[Any], missed: list[Any]) -> None:
    lived = Lived(every(10).without(at(moment(50))) if pause != "shift" else every(10), pause=pause)
    lived.look(10)
    lived.take(SchedulePaused(at=moment(14)))
    assert lived.look(30).wakes_at is None
    lived.take(ScheduleResumed(at=moment(49)))
    for seconds in (50, 51, 52, 55, 60, 65):
        lived.look(seconds)
    assert ([each for each in lived.made if each[0] <= 60], lived.missed) == (made, missed)


def test_instants_do_not_move_with_a_pause_and_what_has_been_made_is_not_made_again() -> None:
    lived = Lived(every(10) | at(moment(25), moment(70)))
    for seconds in (10, 20):
        lived.look(seconds)
    lived.take(SchedulePaused(at=moment(21)))
    lived.take(ScheduleResumed(at=moment(51)))  # thirty seconds: what would be due at 30 is due at 60
    for seconds in (51, 60, 70):
        lived.look(seconds)
    assert lived.made == [(10, 10), (20, 20), (30, 60), (40, 70)]
    assert lived.missed == [(25, "missed_paused")]


def test_skipped_points_are_bypassed_and_fired_ones_are_made_at_once_in_a_pause_too() -> None:
    lived = Lived(every(10))
    lived.take(ScheduleSkipped(count=2, at=moment(1)))
    for seconds in (10, 20, 30):
        lived.look(seconds)
    assert (lived.made, lived.missed) == ([(30, 30)], [(10, "bypassed"), (20, "bypassed")])
    lived.take(SchedulePaused(at=moment(31)))
    lived.take(ScheduleFired(at=moment(32)))
    lived.look(32)
    lived.look(33)
    assert lived.made[1:] == [(32, 32)]


def test_a_removed_schedule_does_nothing_and_may_be_defined_again() -> None:
    lived = Lived(every(10))
    definition = lived.state.definition
    lived.take(ScheduleRemoved(at=moment(5)))
    lived.look(10)
    lived.take(ScheduleFired(at=moment(11)))
    lived.look(12)
    assert lived.made == []
    lived.take(ScheduleDefined(definition=definition, at=moment(13)))
    lived.look(23)
    assert lived.made == [(23, 23)]


def test_the_preview_shows_what_waits_and_what_comes() -> None:
    lived = Lived(every(10))
    for seconds in (10, 20):
        lived.look(seconds, lasts=100)
    assert [each.planned_at for each in preview(lived.state, 3)] == [moment(20), moment(30), moment(40)]


@pytest.mark.parametrize(
    "fields",
    [
        {"task": "no name"},
        {"zone": "Mars/Olympus"},
        {"on": "crate=="},
        {"points": to_form(after(5, since="ended") + after(5, since="ended"))},
        {"points": {"every": -1, "after": 1}},
        {"on_error": "retry"},
        {"overlap": "never"},
        {"on": "all", "spread_s": 61},
        {"on": "all", "spread_s": 40, "points": to_form(every(60) | at(moment(90)))},
        {"spread_s": 10},
        {"on": "all", "spread_s": 10, "fleet": {"waves": ["1"]}},
        {"on": "all", "fleet": {"waves": ["none"]}},
        {"cutoff_s": 0},
    ],
)
def test_what_cannot_be_kept_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ScheduleDefinition.given(**{"task": "one", "points": to_form(every(60)), **fields})


acts = st.lists(
    st.tuples(st.sampled_from(["look", "look", "look", "down", "pause", "resume", "skip", "fire"]), st.integers(1, 40)),
    max_size=30,
)


@given(acts, st.sampled_from(Overlap), st.sampled_from(Pause), st.sampled_from(["run", "skip"]), st.integers(0, 30))
@settings(deadline=None)
def test_whatever_happens_each_point_is_settled_once(
    acts: list[tuple[str, int]], overlap: Overlap, pause: Pause, late: str, lasts: int
) -> None:
    lived = Lived(every(7) | at(*(moment(each) for each in range(5, 600, 11))), overlap=overlap, pause=pause, late=late)
    now = 0.0
    for act, seconds in acts:
        now += seconds / 2
        match act:
            case "down":
                lived.down(until=now)
            case "pause":
                lived.take(SchedulePaused(at=moment(now)))
            case "resume":
                lived.take(ScheduleResumed(at=moment(now)))
            case "skip":
                lived.take(ScheduleSkipped(at=moment(now)))
            case "fire":
                lived.take(ScheduleFired(at=moment(now)))
            case _:
                pass
        lived.look(now, lasts=lasts)
    waiting = [(each.planned_at - START).total_seconds() for each in lived.state.waiting]
    settled = [each for each, _ in lived.missed] + [each for each, _ in lived.made] + waiting
    planned = [each for each in settled if each % 7 == 0 or (each - 5) % 11 == 0]
    fired = sum(act == "fire" for act, _ in acts)
    assert len(planned) - len(set(planned)) <= fired  # somebody may fire at the very moment of a point
