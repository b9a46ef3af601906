"""Scripts for hein_control on our schedules: the published workflow, and none of the known defects."""

from __future__ import annotations

import functools
import gc
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from labwright.compat.hein import ActionTimePoint, SamplingScheduler, SchedulerAction, TimePoint, TrackedAction
from labwright.compat.hein.errors import OffsetWarning
from labwright.core.errors import ConflictError, NotFoundError, NotRunningError, UsageError, WaitTimeoutError
from labwright.testing import ManualClock

LIMIT_S = 30.0


class Lab:
    """A clock that is moved by hand, and what was called when."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.seen: list[tuple[str, float]] = []

    def action(self, name: str, **defaults: Any) -> Callable[..., Any]:
        def act(**given: Any) -> Any:
            self.seen.append((name, self.clock.monotonic()))
            return {**defaults, **given}

        act.__name__ = name
        return act

    def scheduler(self, *actions: Any, **options: Any) -> SamplingScheduler:
        given: dict[str, Any] = {"journal": None, "clock": self.clock, **options}
        return SamplingScheduler(*actions, **given)

    def times(self, name: str) -> list[float]:
        return [at_s for each, at_s in self.seen if each == name]


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_the_published_workflow_runs_at_its_moments(lab: Lab) -> None:
    scheduler = lab.scheduler(lab.action("take_sample"), lab.action("inject"))
    scheduler.insert_time_point_list_pairs(5, 60, 10, 300)

    assert str(scheduler.visualize_timepoints()).count("take_sample, inject") == 15
    scheduler.start_sequence()
    lab.clock.advance(150)
    point = scheduler.trigger(inject={"volume_ml": 2})
    lab.clock.advance(10)
    scheduler.pause_sequence()
    lab.clock.advance(100)
    scheduler.start_sequence()
    lab.clock.advance(3600)
    scheduler.join()

    moved = [*range(280, 401, 60), *range(700, 3401, 300)]
    assert lab.times("take_sample") == lab.times("inject") == [60, 120, 150, *moved]
    assert point.action_returns["inject"] == {"volume_ml": 2}
    assert point.time_delta == 150
    assert scheduler.rows.outcomes == {"succeeded": 16}
    assert "succeeded, 0.000 s late" in str(scheduler.visualize_timepoints())


@pytest.mark.parametrize("by_class", [True, False])
def test_the_literal_way_of_pausing_fires_what_is_overdue_and_shifts_nothing(
    lab: Lab, by_class: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_class:
        monkeypatch.setattr(SamplingScheduler, "PAUSE", "catch_up_all")
    options = {} if by_class else {"pause": "catch_up_all"}
    scheduler = lab.scheduler(lab.action("sample"), time_deltas=[0.3] * 6, **options)

    scheduler.start_sequence()
    lab.clock.advance(0.45)
    scheduler.pause_sequence()
    lab.clock.advance(1.0)
    scheduler.start_sequence()
    lab.clock.advance(1.0)
    scheduler.join()

    assert lab.times("sample") == pytest.approx([0.3, 1.45, 1.45, 1.45, 1.5, 1.8])


def test_inserting_in_a_pause_does_not_end_it(lab: Lab) -> None:
    scheduler = lab.scheduler(lab.action("sample"), time_deltas=[10, 10])
    scheduler.start_sequence()
    scheduler.pause_sequence()

    scheduler.insert_time_point(5)
    lab.clock.advance(100)

    assert scheduler.paused
    assert lab.seen == []
    scheduler.start_sequence()
    lab.clock.advance(20)
    assert lab.times("sample") == [105, 110, 120]


def test_a_sequence_takes_points_after_its_last_one_in_a_pause_too(lab: Lab) -> None:
    scheduler = lab.scheduler(lab.action("sample"), time_deltas=[10])
    scheduler.start_sequence()
    lab.clock.advance(20)
    scheduler.join()

    scheduler.insert_time_point(30)
    lab.clock.advance(15)
    scheduler.join()
    assert scheduler.started
    scheduler.pause_sequence()
    scheduler.insert_time_point_list(5)
    lab.clock.advance(100)
    assert lab.times("sample") == [10, 30]
    with pytest.raises(WaitTimeoutError):
        scheduler.join(0.01)
    scheduler.start_sequence()
    lab.clock.advance(1)

    assert lab.times("sample") == [10, 30, 135]
    assert [point.time_delta for point in scheduler.time_points] == [10, 30, 35]
    assert [row.outcome for row in scheduler.rows] == ["succeeded"] * 3


def test_points_that_are_put_between_others_while_it_runs_move_the_later_ones(lab: Lab) -> None:
    scheduler = lab.scheduler(lab.action("sample"), time_deltas=[10, 10, 10])
    scheduler.start_sequence()
    lab.clock.advance(12)

    scheduler.insert_time_point(5, position=1, relative_to="previous")
    lab.clock.advance(100)
    scheduler.join()

    assert lab.times("sample") == [10, 15, 25, 35]
    assert [point.time_delta for point in scheduler.time_points] == [10, 15, 25, 35]


def test_a_point_at_a_position_does_not_move_itself_and_a_warning_says_so(lab: Lab) -> None:
    scheduler = lab.scheduler(lab.action("sample"), time_deltas=[5, 5, 10, 10])

    with pytest.warns(OffsetWarning, match="position 0"):
        scheduler.insert_time_point(7, position=0)

    assert [point.time_delta for point in scheduler.time_points] == [7, 12, 17, 27, 37]


def test_one_point_runs_at_a_time_whoever_triggers() -> None:
    inside, most, begun = list[int](), list[int](), threading.Barrier(4, timeout=LIMIT_S)

    def sample() -> None:
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.01)
        inside.pop()

    scheduler = SamplingScheduler(sample, time_deltas=[0.01] * 5, journal=None)

    def trigger() -> None:
        begun.wait()
        for _ in range(3):
            scheduler.trigger(wait=True)

    threads = [threading.Thread(target=trigger) for _ in range(3)]
    for thread in threads:
        thread.start()
    begun.wait()  # some are triggered before the start, some while it runs, some after the last point
    scheduler.start_sequence()
    for thread in threads:
        thread.join(LIMIT_S)
    scheduler.join(LIMIT_S)

    assert len(most) == 5 + 9
    assert set(most) == {1}
    assert scheduler.triggered_time_points == 14


def test_a_killed_sequence_ends_and_says_that_it_does_not_start_again(lab: Lab) -> None:
    scheduler = lab.scheduler(lab.action("sample"), time_deltas=[10, 10])
    scheduler.start_sequence()
    lab.clock.advance(10)
    scheduler.pause_sequence()
    scheduler.kill_sequence()

    scheduler.join()

    assert scheduler.terminated
    assert not scheduler.started
    assert scheduler.as_dict()["terminated"] is True
    assert [row.outcome for row in scheduler.rows] == ["succeeded", "aborted"]
    with pytest.raises(RuntimeError, match="killed"):
        scheduler.start_sequence()


def test_a_join_before_the_start_says_what_is_missing(lab: Lab) -> None:
    with pytest.raises(NotRunningError, match="not been started"):
        lab.scheduler(lab.action("sample"), time_deltas=[10]).join()


def test_a_point_whose_action_fails_says_so_and_the_later_ones_run(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        if lab.clock.monotonic() < 15:
            raise OSError("no vial")

    scheduler = lab.scheduler(fail, lab.action("inject"), time_deltas=[10, 10])
    scheduler.start_sequence()
    lab.clock.advance(30)
    scheduler.join()

    first, second = scheduler.time_points
    assert first.actions_status == {"fail": "ERROR", "inject": "PENDING"}
    assert second.actions_status == {"fail": "COMPLETE", "inject": "COMPLETE"}
    assert first.complete
    assert first.action_returns == {"fail": None, "inject": None}
    told = first.as_dict()["actions"][0]
    assert told["error_during_execution"] is True
    assert "no vial" in str(told["error_details"])
    assert "no vial" in caplog.text
    assert lab.times("inject") == [20]


def test_two_functions_of_one_name_are_two_actions(lab: Lab) -> None:
    first, second = lab.action("sample", of=1), lab.action("sample", of=2)
    scheduler = lab.scheduler(first, second, time_deltas=[1])
    scheduler.start_sequence()
    lab.clock.advance(1)
    scheduler.join()

    assert scheduler.get_time_point_return() == {"sample": {"of": 1}, "sample_2": {"of": 2}}
    point = scheduler.trigger(sample={"to": "both"}, sample_2={"of": 3})
    assert point.action_returns == {"sample": {"of": 1, "to": "both"}, "sample_2": {"of": 3, "to": "both"}}
    assert SchedulerAction.register_action("sample").action is second


@pytest.mark.parametrize(
    "insert",
    [
        lambda s: s.insert_time_point(float("nan")),
        lambda s: s.insert_time_point(-5),
        lambda s: s.insert_time_point(),
        lambda s: s.insert_time_point("60"),
        lambda s: s.insert_time_point(5, number_of_points=0),
        lambda s: s.insert_time_point(5, relative_to="nosuch"),
        lambda s: s.insert_time_point(5, position=7),
        lambda s: s.insert_time_point(5, position=-2),
        lambda s: s.insert_time_point_list(5, float("inf")),
        lambda s: s.insert_time_point_list_pairs(),
        lambda s: s.insert_time_point_list_pairs(3),
        lambda s: s.insert_time_point_list_pairs(
            (3, 10, 5),
        ),
        lambda s: s.insert_time_point_list_pairs((3, 10), 5),
        lambda s: s.insert_time_point_list_pairs(1.5, 10),
    ],
)
def test_numbers_that_could_never_work_are_refused_where_they_are_given(
    lab: Lab, insert: Callable[[SamplingScheduler], object]
) -> None:
    scheduler = lab.scheduler(lab.action("sample"))

    with pytest.raises(ValueError, match=r".") as refused:
        insert(scheduler)

    assert isinstance(refused.value, UsageError)
    assert refused.value.cure


def test_keywords_for_nobody_and_arguments_that_are_wrong_are_refused_at_once(lab: Lab) -> None:
    def inject(volume_ml: float) -> float:
        return volume_ml

    scheduler = lab.scheduler(inject, time_deltas=[10])
    with pytest.raises(UsageError, match="volume_ml"):
        scheduler.start_sequence()
    with pytest.raises(UsageError, match="nosuch"):
        scheduler.trigger(nosuch={"volume_ml": 1})
    with pytest.raises(UsageError, match="nosuch"):
        scheduler.trigger(inject={"volume_ml": 1, "nosuch": 1})
    assert not scheduler.started
    assert scheduler.total_time_points == 1

    assert scheduler.trigger(inject={"volume_ml": 1}).action_returns == {"inject": 1}
    with pytest.raises(UsageError):
        lab.scheduler(inject, late="nosuch")
    with pytest.raises(TypeError):
        lab.scheduler(5)
    with pytest.raises(KeyError, match="no action is registered as 'nobody'"):
        lab.scheduler("nobody")


def test_any_callable_is_an_action_by_itself_or_by_its_registered_name(lab: Lab) -> None:
    class Pump:
        def __init__(self) -> None:
            self.given: list[float] = []

        def dispense(self, volume_ml: float = 1.0) -> float:
            self.given.append(volume_ml)
            return volume_ml

        def __call__(self) -> str:
            return "called"

    async def settle() -> str:
        return "settled"

    def mix(a: int, b: int) -> int:
        return a * b

    pump = Pump()
    SchedulerAction(pump.dispense, 5.0)
    scheduler = lab.scheduler("dispense", functools.partial(mix, 6), pump, settle, lambda: "nameless")
    with pytest.raises(UsageError, match="mix"):
        scheduler.trigger()

    point = scheduler.trigger(mix={"b": 7})

    assert point.action_returns == {
        "dispense": 5.0,
        "mix": 42,
        "Pump": "called",
        "settle": "settled",
        "<lambda>": "nameless",
    }
    assert pump.given == [5.0]
    assert [action.name for action in scheduler.actions][:2] == ["dispense", "mix"]
    assert SchedulerAction.register_action(pump.dispense) is scheduler.actions[0]
    assert TrackedAction(settle)() == "settled"


def test_an_action_that_waits_is_complete_when_it_has_waited(lab: Lab) -> None:
    def heat(seconds: float) -> Generator[float, None, str]:
        yield seconds
        return "hot"

    scheduler = lab.scheduler(heat)
    point = scheduler.trigger(heat={"seconds": 5})
    assert point.in_progress
    assert point.actions_status == {"heat": "EXECUTING"}
    lab.clock.advance(5)
    point.wait_for_completion(timeout=LIMIT_S)

    assert point.action_returns == {"heat": "hot"}
    assert point.action_durations == {"heat": 5}
    assert TrackedAction(heat, 0)() == "hot"


def test_what_nobody_holds_is_forgotten(lab: Lab) -> None:
    def run() -> tuple[str, str, weakref.ref[SamplingScheduler]]:
        scheduler = lab.scheduler(lab.action("sample"), time_deltas=[1, 1])
        scheduler.start_sequence()
        lab.clock.advance(10)
        scheduler.join()
        point = scheduler.time_points[0]
        assert TimePoint.get_instance(point.uuid) is point
        assert SamplingScheduler.get_instance_by_uuid(scheduler.uuid) is scheduler
        return point.uuid, scheduler.uuid, weakref.ref(scheduler)

    point, known_as, reference = run()
    for thread in threading.enumerate():
        if thread.name.startswith("labwright-"):
            thread.join(LIMIT_S)
    gc.collect()

    assert reference() is None
    with pytest.raises(KeyError):
        TimePoint.get_instance(point)
    with pytest.raises(NotFoundError, match="no scheduler has the uuid"):
        SamplingScheduler.get_instance_by_uuid(known_as)


def test_a_point_that_is_triggered_before_the_start_stands_before_it(lab: Lab) -> None:
    scheduler = lab.scheduler(lab.action("sample"), time_deltas=[10])
    point = scheduler.trigger()
    lab.clock.advance(30)
    scheduler.start_sequence()
    lab.clock.advance(10)
    scheduler.join()

    assert point.time_delta == -30
    assert point.relative_start_times == {"sample": -30}
    assert scheduler.time_points[0] is point
    assert lab.times("sample") == [0, 40]


def test_a_planned_point_that_is_triggered_runs_once(lab: Lab) -> None:
    scheduler = lab.scheduler(lab.action("sample"), time_deltas=[10, 10])
    scheduler.start_sequence()

    scheduler.time_points[1].trigger()
    lab.clock.advance(100)
    scheduler.join()

    assert lab.times("sample") == [0, 10]
    assert scheduler.remaining_time_points == 0
    with pytest.raises(SystemError, match="already"):
        scheduler.time_points[1]()


def test_default_actions_come_and_go_while_it_runs(lab: Lab) -> None:
    sample, rinse = lab.action("sample"), lab.action("rinse")
    scheduler = lab.scheduler(sample, time_deltas=[10, 10, 10])
    scheduler.start_sequence()
    lab.clock.advance(10)
    scheduler.add_default_action(rinse)
    scheduler.time_points[2].add_action(lab.action("calibrate"), 0)
    lab.clock.advance(10)
    scheduler.remove_default_action(sample)
    lab.clock.advance(10)
    scheduler.join()

    assert lab.seen == [("sample", 10), ("sample", 20), ("rinse", 20), ("calibrate", 30), ("rinse", 30)]
    with pytest.raises(ValueError, match="no default action"):
        scheduler.remove_default_action(sample)


def test_default_actions_come_and_go_while_points_begin() -> None:
    def sample() -> None: ...

    def rinse() -> None: ...

    scheduler = SamplingScheduler(sample, time_deltas=[0.0005] * 300, journal=None)
    scheduler.start_sequence()
    while scheduler.remaining_time_points:
        scheduler.add_default_action(rinse)
        scheduler.remove_default_action(rinse)
    scheduler.join(LIMIT_S)

    assert scheduler.rows.outcomes == {"succeeded": 300}
    assert {status for point in scheduler.time_points for status in point.actions_status.values()} == {"COMPLETE"}


def test_an_action_may_insert_and_trigger_as_it_sees_fit(lab: Lab) -> None:
    def decide() -> None:
        lab.seen.append(("decide", lab.clock.monotonic()))
        if len(lab.times("decide")) == 1:
            scheduler.insert_time_point_list(5)
            scheduler.trigger()

    scheduler = lab.scheduler(decide, time_deltas=[10])
    scheduler.start_sequence()
    lab.clock.advance(100)
    scheduler.join()

    assert lab.times("decide") == [10, 10, 15]


def test_points_without_actions_and_sequences_without_points_are_no_trouble(lab: Lab) -> None:
    scheduler = lab.scheduler()
    scheduler.start_sequence()
    assert scheduler.started
    lab.clock.advance(50)
    scheduler.insert_time_point(60)
    lab.clock.advance(20)
    scheduler.join()

    assert scheduler.time_points[0].complete
    assert scheduler.current_time == 70
    assert scheduler.rows[0].lateness_s == 0


def test_rows_are_written_as_a_table(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scheduler = lab.scheduler(lab.action("sample"), time_deltas=[10])
    scheduler.start_sequence()
    lab.clock.advance(10)
    scheduler.join()

    scheduler.write_timepoints_to_csv()
    scheduler.write_timepoints_to_csv(overwrite=False)
    scheduler.write_timepoints_to_csv("samples.csv")

    names = sorted(each.name for each in tmp_path.iterdir())
    assert [name.partition(" ")[2] for name in names] == ["scheduler output - 1.csv", "scheduler output.csv", ""]
    assert len((tmp_path / "samples.csv").read_text(encoding="utf-8").splitlines()) == 2


def test_a_script_that_was_edited_after_a_crash_begins_anew_when_it_says_so(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first = lab.scheduler(lab.action("sample"), time_deltas=[10, 10], journal=path)
    first.start_sequence()
    kept = path.read_bytes()
    first.kill_sequence()
    first.join()
    path.write_bytes(kept)
    edited = lab.scheduler(lab.action("sample"), time_deltas=[10, 20], journal=path)

    with pytest.raises(ConflictError) as refused:
        edited.start_sequence()
    assert "start_sequence(fresh=True)" in refused.value.cure
    assert edited.current_time is None
    edited.start_sequence(fresh=True)
    lab.clock.advance(30)
    edited.join()

    assert lab.times("sample") == [10, 30]


def test_a_thousand_points_by_list_take_no_time(lab: Lab) -> None:
    scheduler = lab.scheduler(lab.action("sample"))
    scheduler.insert_time_point_list(*[1.0] * 1000)
    scheduler.start_sequence()
    scheduler.insert_time_point_list(*[1.0] * 1000)
    lab.clock.advance(2000)
    scheduler.join()

    assert lab.times("sample") == [float(each) for each in range(1, 2001)]


def test_a_time_point_of_no_scheduler_runs_by_itself() -> None:
    running, may_end = threading.Event(), threading.Event()

    def hold(value: int = 0) -> int:
        running.set()
        assert may_end.wait(LIMIT_S)
        return value

    point = ActionTimePoint(5, "alone", [hold])
    assert not point.triggered
    assert point.action_durations is None
    point(hold={"value": 3})
    assert running.wait(LIMIT_S)
    assert point.in_progress
    assert point.actions_status == {"hold": "EXECUTING"}
    may_end.set()
    point.wait_for_completion(timeout=LIMIT_S)

    assert point.complete
    assert point.action_returns == {"hold": 3}
    with pytest.raises(ValueError, match="relative to a sequence"):
        _ = point.relative_start_times


SCRIPT = """
    import os, signal, sys, threading
    from {package}.scheduler import SamplingScheduler

    samples = []
    second = threading.Event()

    def take_sample():
        with open("sampled", "a") as file:
            file.write("x")
        samples.append(1)
        if len(samples) == 2:
            if "--dies" in sys.argv:
                os.kill(os.getpid(), signal.SIGKILL)
            second.set()

    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    scheduler = SamplingScheduler(take_sample, sequence_name="kinetics")
    scheduler.insert_time_point_list_pairs(2, 0.01, 1, 1000)
    scheduler.start_sequence()
    if "--goes-on" in sys.argv:
        assert scheduler.paused
        scheduler.start_sequence()
        scheduler.trigger(wait=True)
    else:
        second.wait()
    scheduler.kill_sequence()
    scheduler.join()
    print(scheduler.rows.outcomes)
    foreign = ("pydantic", "nats", "typer", "httpx", "cronsim", "rich", "yaml", "structlog", "psutil", "numpy")
    assert not [name for name in foreign if name in sys.modules]
    """


def test_a_script_with_its_import_changed_survives_its_death_and_needs_the_standard_library_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "kinetics.py"
    path.write_text(textwrap.dedent(SCRIPT.format(package="labwright.compat.hein")), encoding="utf-8")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)

    died = run("--dies")
    after = run("--goes-on")
    anew = run()

    assert died.returncode == -signal.SIGKILL
    assert after.stdout == "{'succeeded': 2, 'interrupted': 1, 'aborted': 1}\n", after.stderr
    assert "start_sequence() goes on" in after.stderr
    assert anew.stdout == "{'succeeded': 2, 'aborted': 1}\n", anew.stderr
    assert len((tmp_path / "sampled").read_text(encoding="utf-8")) == 2 + 1 + 2
    assert (tmp_path / "kinetics.kinetics.rows.jsonl").exists()
