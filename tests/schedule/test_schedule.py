"""A schedule on a clock that is moved by hand: actions, arguments, policies that need threads, rows, and crashes."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import threading
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labwright import Action, Crash, OnError, Retry, Schedule, Stop, after, every, pairs
from labwright.core.errors import (
    ConflictError,
    DamagedError,
    LabwrightError,
    LockedError,
    NotRunningError,
    UsageError,
    WaitTimeoutError,
)
from labwright.schedule.row_file import last_run_in
from labwright.schedule.rows import FIELDS
from labwright.testing import ManualClock

LIMIT_S = 30.0
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def noting(seen: list[float], clock: ManualClock) -> Callable[[], float]:
    """Make an action that notes when it was called."""

    def take_sample() -> float:
        seen.append(clock.monotonic())
        return clock.monotonic()

    return take_sample


def test_the_published_sampling_sequence_runs_at_its_moments() -> None:
    clock, seen, injected = ManualClock(), list[float](), list[float]()

    def inject() -> None:
        injected.append(clock.monotonic())

    schedule = Schedule(noting(seen, clock), inject, journal=None, clock=clock)
    schedule.every(60, times=5).every(300, times=10)
    with schedule:
        clock.advance(150)
        schedule.fire()
        clock.advance(10)
        schedule.pause()
        clock.advance(100)
        schedule.resume()
        clock.advance(3600)
        schedule.join(LIMIT_S)

    moved = [*range(280, 401, 60), *range(700, 3401, 300)]
    assert seen == injected == [60, 120, 150, *moved]
    assert schedule.rows.outcomes == {"succeeded": 16}
    assert [row.point for row in schedule.rows] == [1, 2, None, *range(3, 16)]
    assert {row.lateness_s for row in schedule.rows} == {0.0}
    assert schedule.rows[3].due_at != schedule.rows[3].planned_at


def test_the_results_are_found_by_position_and_by_a_label_of_their_own() -> None:
    clock = ManualClock()
    schedule = Schedule(lambda: 1, Action(lambda: 2, label="second"), lambda: 3, journal=None, clock=clock)

    with schedule.at(after(1)):
        clock.advance(1)

    results = schedule.rows[0].result
    assert results.labels == ("action", "second", "action-2")
    assert [results[0], results["second"], results["action-2"]] == [1, 2, 3]


def test_an_action_may_be_a_coroutine_and_all_share_one_loop() -> None:
    clock, loops = ManualClock(), set[int]()

    async def measure(wavelength_nm: float) -> float:
        await asyncio.sleep(0)
        loops.add(id(asyncio.get_running_loop()))
        return wavelength_nm

    schedule = Schedule(Action(measure, 532.0), journal=None, clock=clock)
    with schedule.every(1, times=3):
        clock.advance(3)
        schedule.join(LIMIT_S)

    assert [row.result[0] for row in schedule.rows] == [532.0] * 3
    assert len(loops) == 1
    assert schedule.rows[0].args == {"measure": {"wavelength_nm": 532.0}}


def test_an_action_that_yields_seconds_waits_by_the_clock_of_the_schedule() -> None:
    clock, seen = ManualClock(), list[float]()

    def stir(seconds: float) -> Generator[float, None, str]:
        for _ in range(3):
            seen.append(clock.monotonic())
            yield seconds
        return "stirred"

    schedule = Schedule(Action(stir, 7), noting(seen, clock), journal=None, clock=clock)
    with schedule.every(60, times=2):
        clock.advance(200)
        schedule.join(LIMIT_S)

    assert seen == [60, 67, 74, 81, 120, 127, 134, 141]
    assert [row.result["stir"] for row in schedule.rows] == ["stirred", "stirred"]
    assert schedule.rows[0].as_dict()["ended_at"].endswith("00:01:21Z")


@pytest.mark.parametrize(
    ("how", "outcomes", "ends"),
    [(Stop.AFTER_POINT, ["succeeded"], [60]), (Stop.AFTER_ACTION, ["aborted"], [60]), (Stop.NOW, ["aborted"], [5])],
)
def test_an_action_that_waits_is_cut_short_by_a_stop_now_alone_and_cleans_up(
    how: Stop, outcomes: list[str], ends: list[float]
) -> None:
    clock, ended, cleaned = ManualClock(), list[float](), threading.Event()

    def heat() -> Generator[float, None, None]:
        try:
            yield 60
        finally:
            ended.append(clock.monotonic())
            cleaned.set()

    schedule = Schedule(heat, lambda: None, journal=None, clock=clock).at(after(0)).start()
    clock.advance(5)
    schedule.stop(how)
    if how is not Stop.NOW:
        clock.advance(100)
    schedule.join(LIMIT_S)

    assert cleaned.wait(LIMIT_S)
    assert ended == ends
    assert [row.outcome for row in schedule.rows] == outcomes


def test_an_action_that_yields_no_seconds_has_failed() -> None:
    clock = ManualClock()

    def heat() -> Generator[Any, None, None]:
        yield "60"

    with Schedule(heat, journal=None, clock=clock).at(after(0)) as schedule:
        schedule.join(LIMIT_S)

    assert schedule.rows[0].outcome == "failed"
    assert "a wait cannot be '60'" in (schedule.rows[0].error or {})["message"]


def test_keywords_are_passed_through_at_points_and_by_hand() -> None:
    clock = ManualClock()

    def inject(volume_ml: float = 1.0) -> float:
        return volume_ml

    schedule = Schedule(inject, journal=None, clock=clock)
    schedule.at(after(1)).at(after(2), inject={"volume_ml": 2.0})
    with schedule:
        clock.advance(1)
        schedule.fire(inject={"volume_ml": 3.0})
        clock.advance(1)
        schedule.join(LIMIT_S)

    assert [row.result["inject"] for row in schedule.rows] == [1.0, 3.0, 2.0]
    assert schedule.rows[2].args == {"inject": {"volume_ml": 2.0}}


@pytest.mark.parametrize("keywords", [{"nosuch": {"value": 1}}, {"inject": {"nosuch": 1}}, {"inject": 5}])
def test_wrong_keywords_are_refused_before_the_start(keywords: dict[str, Any]) -> None:
    def inject(volume_ml: float = 1.0) -> float:
        return volume_ml

    schedule = Schedule(inject, journal=None).at(after(1), **keywords)

    with pytest.raises(UsageError, match=r"nosuch|keywords"):
        schedule.start()


def test_an_argument_that_is_missing_is_refused_before_the_start() -> None:
    def inject(volume_ml: float) -> float:
        return volume_ml

    with pytest.raises(UsageError, match="volume_ml"):
        Schedule(inject, journal=None).every(1).start()


def test_more_actions_run_at_the_points_that_are_named() -> None:
    clock, seen = ManualClock(), list[float]()
    schedule = (
        Schedule(lambda: None, journal=None, clock=clock).every(1, times=5).also(noting(seen, clock), points=[1, 3])
    )

    with schedule:
        clock.advance(5)

    assert seen == [1, 3]


def test_a_condition_leaves_an_action_out() -> None:
    clock = ManualClock()
    schedule = Schedule(Action(lambda: 1, label="fill", when=lambda: clock.monotonic() > 1), journal=None, clock=clock)

    with schedule.every(1, times=2):
        clock.advance(2)

    assert [row.outcome for row in schedule.rows] == ["bypassed", "succeeded"]
    assert "fill" in schedule.rows[0].reason


def test_an_action_that_raises_leaves_the_later_ones_of_its_point_out_and_the_later_points_in() -> None:
    clock, seen = ManualClock(), list[float]()

    def fail() -> None:
        if clock.monotonic() == 1:
            raise OSError("no vial")

    schedule = Schedule(fail, noting(seen, clock), journal=None, clock=clock)
    with schedule.every(1, times=2):
        clock.advance(2)

    assert [row.outcome for row in schedule.rows] == ["failed", "succeeded"]
    assert seen == [2]
    assert schedule.rows[0].error == {"kind": "bug", "message": "no vial", "because": "OSError", "try": ""}


def test_a_failed_action_is_tried_again_after_growing_waits() -> None:
    clock, tries = ManualClock(), list[float]()

    def fail_twice() -> str:
        tries.append(clock.monotonic())
        if len(tries) < 3:
            raise OSError("busy")
        return "done"

    retry = Retry(attempts=3, first=2, jitter=0)
    schedule = Schedule(fail_twice, on_error=OnError.RETRY, retry=retry, journal=None, clock=clock)
    with schedule.at(after(10)):
        clock.advance(60)
        schedule.join(LIMIT_S)

    assert tries == [10, 12, 16]
    assert schedule.rows[0].outcome == "succeeded"


@pytest.mark.parametrize("on_error", OnError)
def test_the_safe_state_is_reached_at_every_end(on_error: OnError) -> None:
    clock, reached = ManualClock(), list[float]()

    def fail() -> None:
        raise OSError("leak")

    options: dict[str, Any] = {"on_error": on_error, "retry": Retry(attempts=1), "journal": None, "clock": clock}
    schedule = Schedule(fail, safe_state=noting(reached, clock), **options)
    with schedule.every(1, times=3):
        clock.advance(3)
        schedule.join(LIMIT_S)

    stops = on_error is OnError.STOP
    assert reached == [1 if stops else 3]
    assert [row.outcome for row in schedule.rows] == (["failed", "aborted", "aborted"] if stops else ["failed"] * 3)


def test_ctrl_c_aborts_what_runs_and_reaches_the_safe_state() -> None:
    clock, reached, cancelled = ManualClock(), threading.Event(), threading.Event()
    running = threading.Event()

    async def stir() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def close_valves() -> None:
        reached.set()

    schedule = Schedule(stir, safe_state=close_valves, journal=None, clock=clock).every(1, times=2, first=0)
    mover = threading.Thread(target=schedule.start)
    mover.start()
    assert running.wait(LIMIT_S)
    with pytest.raises(KeyboardInterrupt), schedule:
        raise KeyboardInterrupt
    mover.join(LIMIT_S)

    assert reached.is_set()
    assert cancelled.wait(LIMIT_S)
    assert [row.outcome for row in schedule.rows] == ["aborted", "aborted"]
    assert "KeyboardInterrupt" in schedule.rows[0].reason


@pytest.mark.parametrize(
    ("how", "outcome", "results"),
    [(Stop.AFTER_POINT, "succeeded", 2), (Stop.AFTER_ACTION, "aborted", 1), (Stop.NOW, "aborted", 0)],
)
def test_a_stop_ends_after_as_much_as_it_says(how: Stop, outcome: str, results: int) -> None:
    running, may_end = threading.Event(), threading.Event()

    def hold() -> int:
        running.set()
        assert may_end.wait(LIMIT_S)
        return 1

    schedule = Schedule(hold, lambda: 2, journal=None).every(1000, times=2, first=0).start()
    assert running.wait(LIMIT_S)
    schedule.stop(how)
    if how is not Stop.NOW:
        may_end.set()
    schedule.join(LIMIT_S)
    may_end.set()

    assert sorted(row.outcome for row in schedule.rows) == sorted([outcome, "aborted"])
    assert max(len(row.result) for row in schedule.rows) == results


def test_an_alarm_tells_of_an_action_that_takes_longer_than_its_budget() -> None:
    alarmed = threading.Event()
    schedule = Schedule(Action(lambda: alarmed.wait(LIMIT_S), label="heat", budget=0.02), journal=None).at(after(0))

    with schedule.start():
        while not schedule.notes:
            threading.Event().wait(0.01)
        alarmed.set()
        schedule.join(LIMIT_S)

    assert [note.kind for note in schedule.notes] == ["over_budget"]
    assert "heat at point 1" in schedule.notes[0].text
    assert schedule.rows[0].outcome == "succeeded"


def test_schedules_that_share_a_lock_use_the_instrument_one_after_the_other() -> None:
    pump, inside, most = threading.Lock(), list[int](), list[int]()

    def use() -> None:
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.005)
        inside.pop()

    schedules = [Schedule(Action(use, locks=[pump]), name=f"s{n}", journal=None).every(0.002, times=5) for n in (1, 2)]
    for schedule in schedules:
        schedule.start()
    for schedule in schedules:
        schedule.join(LIMIT_S)

    assert most == [1] * 10


def test_the_wall_clock_may_be_set_while_intervals_go_on() -> None:
    clock, seen = ManualClock(), list[float]()
    schedule = Schedule(noting(seen, clock), journal=None, clock=clock).every(60, times=3)

    with schedule:
        clock.advance(90)
        clock.step_wall(3600)
        clock.advance(1)
        clock.step_wall(-7200)
        clock.advance(89)
        schedule.join(LIMIT_S)

    assert seen == [60, 120, 180]
    assert [note.kind for note in schedule.notes] == ["clock_stepped", "clock_stepped"]


def test_rows_are_written_as_they_happen_and_exported(tmp_path: Path) -> None:
    clock = ManualClock()
    path = tmp_path / "samples.jsonl"
    odd = iter([float("nan"), b"\xff", object(), {1: {2, 3}}, "\ud800"])
    schedule = Schedule(Action(lambda: next(odd), label="odd"), journal=path, clock=clock).every(1, times=5)

    with schedule:
        clock.advance(2)
        written = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        clock.advance(3)
        schedule.join(LIMIT_S)

    assert sum(line["record"] == "row" for line in written) == 2
    schedule.rows.to_csv(tmp_path / "rows.csv")
    schedule.rows.to_json(tmp_path / "rows.json")
    schedule.rows.to_jsonl(tmp_path / "rows.jsonl")
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as file:
        assert next(tuple(row) for row in csv.reader(file)) == FIELDS
    exported = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert exported == lines == schedule.rows.as_dicts()
    assert exported[0]["result"] == {"odd": {"$float": "nan"}}
    assert "<table>" in schedule.rows._repr_html_()


def test_a_journal_belongs_to_one_schedule_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first = Schedule(lambda: None, journal=path).every(1000).start()

    with pytest.raises(LockedError, match="in use"):
        Schedule(lambda: None, journal=path).every(1000).start()
    first.stop()
    first.join(LIMIT_S)


def crashed(path: Path, *, interrupted: bool = True) -> None:
    """Leave the file of a schedule that died at 130 s, in its second point."""
    clock = ManualClock()
    schedule = Schedule(Action(lambda: 1, label="sample"), journal=path, clock=clock).every(60, times=5)
    with schedule:
        clock.advance(120)
    lines = path.read_text(encoding="utf-8").splitlines()
    last = next(place for place, line in enumerate(lines) if json.loads(line).get("point") == 2)
    kept = lines[: last + 1 if interrupted else last]
    path.write_text("\n".join([*kept, '{"record": "ro']), encoding="utf-8")


def going_on(path: Path, crash: Crash) -> tuple[Schedule, ManualClock]:
    clock = ManualClock()
    clock.advance(200)
    return Schedule(Action(lambda: 2, label="sample"), journal=path, clock=clock, crash=crash).every(60, times=5), clock


@pytest.mark.parametrize(
    ("crash", "outcomes"),
    [
        (Crash.PAUSE, ["succeeded", "interrupted", "missed_down", "succeeded", "succeeded"]),
        (Crash.SKIP, ["succeeded", "interrupted", "missed_down", "succeeded", "succeeded"]),
        (Crash.REPEAT, ["succeeded", "succeeded", "missed_down", "succeeded", "succeeded"]),
    ],
)
def test_the_next_start_goes_on_after_a_crash(tmp_path: Path, crash: Crash, outcomes: list[str]) -> None:
    crashed(tmp_path / "rows.jsonl")
    schedule, clock = going_on(tmp_path / "rows.jsonl", crash)

    with schedule:
        assert schedule.is_paused == (crash is Crash.PAUSE)
        clock.advance(10)
        schedule.resume()
        clock.advance(110)
        schedule.join(LIMIT_S)

    rows = sorted(schedule.rows, key=lambda row: row.point or 0)
    assert [row.outcome for row in rows] == outcomes
    assert [row.point for row in rows] == [1, 2, 3, 4, 5]
    shifted = 10 if crash is Crash.PAUSE else 0
    assert rows[3].started_at is not None
    assert (rows[3].started_at - ManualClock().now()).total_seconds() == 240 + shifted


def test_a_crash_between_two_points_costs_none(tmp_path: Path) -> None:
    crashed(tmp_path / "rows.jsonl", interrupted=False)
    schedule, clock = going_on(tmp_path / "rows.jsonl", Crash.PAUSE)

    with schedule:
        clock.advance(100)
        schedule.join(LIMIT_S)

    assert [row.outcome for row in schedule.rows] == [
        "succeeded",
        "missed_down",
        "missed_down",
        "succeeded",
        "succeeded",
    ]


def test_a_run_that_has_ended_is_not_gone_on_with(tmp_path: Path) -> None:
    for _ in range(2):
        clock = ManualClock()
        with Schedule(lambda: 1, journal=tmp_path / "rows.jsonl", clock=clock).every(1, times=2) as schedule:
            clock.advance(2)
            schedule.join(LIMIT_S)
        assert len(schedule.rows) == 2


def test_a_crashed_run_of_another_plan_is_not_gone_on_with_unless_it_is_said(tmp_path: Path) -> None:
    crashed(tmp_path / "rows.jsonl")
    clock = ManualClock()
    other = Schedule(lambda: 2, journal=tmp_path / "rows.jsonl", clock=clock).every(7, times=1)

    with pytest.raises(ConflictError, match="another schedule"):
        other.start()
    other.start(fresh=True)
    clock.advance(7)
    other.join(LIMIT_S)

    assert other.rows.outcomes == {"succeeded": 1}


def test_a_stop_ends_a_run_that_waits_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    crashed(path)
    schedule, _ = going_on(path, Crash.PAUSE)

    schedule.start().stop()
    schedule.join(LIMIT_S)

    assert schedule.rows.outcomes == {"succeeded": 1, "interrupted": 1, "missed_down": 1, "aborted": 2}
    assert last_run_in(path) == []


def test_a_resumed_run_is_ended_by_ctrl_c_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    crashed(path)
    schedule, _ = going_on(path, Crash.PAUSE)

    schedule.start().resume()
    with pytest.raises(KeyboardInterrupt), schedule:
        raise KeyboardInterrupt

    assert last_run_in(path) == []


def test_a_preview_of_a_run_that_was_cut_short_shows_what_is_left_of_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    crashed(path)
    written = path.read_bytes()
    schedule, clock = going_on(path, Crash.PAUSE)

    title, *lines = str(schedule.preview()).splitlines()

    assert "goes on after 1 rows" in title
    assert [line.split()[:2] for line in lines] == [["4", "+240.000"], ["5", "+300.000"]]
    assert len(str(schedule.preview(start=clock.now())).splitlines()) == 6
    assert path.read_bytes() == written
    repeating, _ = going_on(path, Crash.REPEAT)
    assert [line.split()[0] for line in str(repeating.preview()).splitlines()[1:]] == ["2", "4", "5"]


def test_a_preview_of_what_a_start_would_refuse_shows_a_start_anew(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    crashed(path)
    other = Schedule(Action(lambda: 1, label="sample"), journal=path, clock=ManualClock()).every(7, times=2)
    assert [line.split()[1] for line in str(other.preview()).splitlines()[1:]] == ["+7.000", "+14.000"]

    path.write_text("nonsense\n", encoding="utf-8")
    assert [line.split()[1] for line in str(other.preview()).splitlines()[1:]] == ["+7.000", "+14.000"]


def test_a_damaged_journal_is_refused_with_its_line_and_kept_aside_when_one_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for number in (1, 2):
        crashed(path)
        damaged = path.read_bytes().replace(b'"record": "row"', b'"record": row', 1)
        path.write_bytes(damaged)
        schedule, clock = going_on(path, Crash.SKIP)
        with pytest.raises(DamagedError, match=rf"line 3 of .*{path.name}"):
            schedule.start()
        assert path.read_bytes() == damaged

        schedule.start(fresh=True)
        clock.advance(300)
        schedule.join(LIMIT_S)

        aside = path.with_name("rows.jsonl.damaged" + ("" if number == 1 else "-2"))
        assert aside.read_bytes() == damaged
        assert schedule.rows.outcomes == {"succeeded": 5}
        assert str(aside) in schedule.notes[0].text
        path.unlink()


def test_a_line_that_a_crash_cut_short_does_not_run_into_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    crashed(path)
    for _ in range(2):
        schedule, clock = going_on(path, Crash.PAUSE)
        with pytest.raises(KeyboardInterrupt), schedule:
            raise KeyboardInterrupt
        with path.open("a", encoding="utf-8") as file:
            file.write('{"record": "no')
    schedule, clock = going_on(path, Crash.PAUSE)
    with schedule:
        schedule.resume()
        clock.advance(300)
        schedule.join(LIMIT_S)

    assert schedule.rows.outcomes == {"succeeded": 3, "interrupted": 1, "missed_down": 1}


def damage(content: bytes, data: st.DataObject) -> bytes:
    """Damage the lines of a journal in one of the ways in which files are damaged."""
    place = data.draw(st.integers(0, len(content) - 1))
    lines = content.splitlines(keepends=True)
    match data.draw(st.sampled_from(["overwrite", "cut out", "insert", "swap", "change a value"])):
        case "overwrite":
            length = data.draw(st.integers(1, 40))
            return content[:place] + data.draw(st.binary(min_size=length, max_size=length)) + content[place + length :]
        case "cut out":
            return content[:place] + content[place + data.draw(st.integers(1, 80)) :]
        case "insert":
            return content[:place] + data.draw(st.binary(min_size=1, max_size=20)) + content[place:]
        case "swap":
            return b"".join(data.draw(st.permutations(lines)))
        case _:
            number = data.draw(st.integers(0, len(lines) - 2))
            line = json.loads(lines[number])
            line[data.draw(st.sampled_from(sorted(line)))] = data.draw(JSON)
            return b"".join([*lines[:number], json.dumps(line).encode() + b"\n", *lines[number + 1 :]])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_has_become_of_a_journal_it_is_gone_on_with_or_refused_by_line(
    tmp_path: Path, data: st.DataObject
) -> None:
    path, clean = tmp_path / "rows.jsonl", tmp_path / "clean.jsonl"
    if not clean.exists():
        crashed(clean)
    path.write_bytes(damage(clean.read_bytes(), data))
    schedule, clock = going_on(path, Crash.SKIP)
    previewed = str(schedule.preview())

    refused: LabwrightError | None = None
    try:
        schedule.start()
    except (DamagedError, ConflictError) as error:
        refused = error
    else:
        clock.advance(10_000)
        schedule.stop(Stop.NOW)
        schedule.join(LIMIT_S)
    assert refused is None or str(path) in refused.message
    assert not isinstance(refused, DamagedError) or re.search(r"line \d+ of", refused.message)
    assert previewed


@given(length=st.integers(0, 2000))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_a_crash_cuts_the_journal_short_no_finished_point_runs_again(tmp_path: Path, length: int) -> None:
    path, clean = tmp_path / "rows.jsonl", tmp_path / "clean.jsonl"
    if not clean.exists():
        crashed(clean)
    kept = clean.read_bytes()[:length]
    path.write_bytes(kept)
    finished = sum(line.get("record") == "row" for line in map(json.loads, kept.split(b"\n")[:-1]))
    schedule, clock = going_on(path, Crash.REPEAT)

    with schedule:
        clock.advance(300)
        schedule.join(LIMIT_S)

    points = sorted(row.point or 0 for row in schedule.rows)
    assert points == [1, 2, 3, 4, 5]
    assert sum(row.result.as_dict() == {"sample": 1} for row in schedule.rows) in {finished, finished + 1}


@pytest.mark.parametrize(("where", "because"), [("nowhere/rows.jsonl", "there is no folder"), ("", "that is a folder")])
def test_a_journal_that_cannot_be_is_refused(tmp_path: Path, where: str, because: str) -> None:
    with pytest.raises(UsageError, match="cannot be written") as refused:
        Schedule(print, journal=tmp_path / where).every(1).start()

    assert because in refused.value.because
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "samples.csv"
    path.write_text("point,name\n1,a\n", encoding="utf-8")

    with pytest.raises(DamagedError, match="line 1"):
        Schedule(print, journal=path).every(1).start()
    assert path.read_text(encoding="utf-8") == "point,name\n1,a\n"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Schedule(print).at(after(0.3, of="nope") | after(1).named("yes")).start(), "'nope'"),
        (lambda: Schedule(print).at(after(0.3, of="nope")).preview(), "'nope'"),
        (lambda: Schedule(print, journal=None).at("2020-01-01T00:00Z").start(), "ahead"),
        (lambda: Schedule(print, journal=None).at(every(60, until=LONG_AGO)).start(), "ahead"),
        (lambda: Schedule(print).at([1, 2, 3]), "instant"),  # pyright: ignore[reportArgumentType]
        (lambda: Schedule(print).at(5), "instant"),  # pyright: ignore[reportArgumentType]
        (lambda: pairs((5,)), "pair"),  # pyright: ignore[reportArgumentType]
        (lambda: pairs(5, 60), "pair"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_points_that_would_never_be_due_are_refused_with_what_to_do(make: Callable[[], object], told: str) -> None:
    with pytest.raises(UsageError, match=told) as refused:
        make()

    assert refused.value.because
    assert refused.value.cure


def test_points_are_inserted_and_withdrawn_while_it_runs() -> None:
    clock, seen = ManualClock(), list[str]()
    schedule = Schedule(Action(lambda: seen.append("sample"), label="sample"), journal=None, clock=clock)
    schedule.at(after(10).named("first")).at((3 * every(100)).named("later")).at(every(300).named("endless"))
    schedule.at(after(20).named("last"))

    with schedule:
        clock.advance(5)
        schedule.insert(after(7), Action(lambda: seen.append("rinse"), label="rinse"))
        schedule.insert(after(8).named("gone"))
        assert schedule.withdraw("gone", "later", "endless") == 3
        clock.advance(5)
        assert schedule.withdraw("first") == 0
        schedule.insert(after(15).named("gone"))
        clock.advance(1000)
        schedule.join(LIMIT_S)
        with pytest.raises(NotRunningError, match="is over"):
            schedule.insert(after(2000))
        with pytest.raises(NotRunningError, match="is over"):
            schedule.fire()

    assert seen == ["rinse", "sample", "sample", "sample"]
    rows = [(row.name, row.lateness_s) for row in schedule.rows]
    assert rows == [("", 0.0), ("first", 0.0), ("gone", 0.0), ("last", 0.0)]
    assert schedule.rows[0].result.labels == ("rinse",)


def test_a_point_that_waits_for_another_is_withdrawn_too() -> None:
    running, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        running.set()
        assert may_end.wait(LIMIT_S)

    schedule = Schedule(hold, journal=None, overlap="wait").at(after(0).named("first"), after(0).named("second"))
    schedule.at(after(5, of="second").named("third"))
    with schedule:
        assert running.wait(LIMIT_S)
        schedule.fire(name="by-hand")
        assert schedule.withdraw("second", "third", "by-hand") == 3
        may_end.set()
        schedule.join(LIMIT_S)

    assert [row.name for row in schedule.rows] == ["first"]


def test_a_point_by_hand_may_have_a_name_and_actions_of_its_own() -> None:
    clock, told = ManualClock(), list[tuple[str, str]]()
    schedule = Schedule(
        lambda: None, journal=None, clock=clock, on_row=lambda row: told.append((row.name, str(row.outcome)))
    )

    with schedule.at(after(5)):
        schedule.fire(Action(lambda volume_ml: volume_ml, label="inject"), name="extra", inject={"volume_ml": 2})
        with pytest.raises(UsageError, match="volume"):
            schedule.fire(Action(lambda volume_ml: volume_ml, label="inject"))

    assert told == [("extra", "succeeded"), ("", "aborted")]
    assert schedule.rows[0].result["inject"] == 2


def test_somebody_who_fails_to_be_told_of_a_row_does_not_stop_a_schedule(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()

    with Schedule(lambda: None, journal=None, clock=clock, on_row=lambda row: row.nosuch).every(1, times=2) as schedule:  # pyright: ignore[reportAttributeAccessIssue]
        clock.advance(2)
        schedule.join(LIMIT_S)

    assert schedule.rows.outcomes == {"succeeded": 2}
    assert "nosuch" in caplog.text


def test_what_was_inserted_before_a_crash_is_not_done_twice(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    seen: list[float] = []

    def started(at_s: float) -> tuple[Schedule, ManualClock]:
        clock = ManualClock()
        clock.advance(at_s)
        schedule = Schedule(noting(seen, clock), journal=path, clock=clock, crash=Crash.SKIP).every(100, times=4)
        return schedule.start().insert(after([50, 150, 250])), clock

    first, clock = started(0)
    clock.advance(160)
    kept = path.read_bytes()
    first.stop()
    first.join(LIMIT_S)
    for at_s in (170, 260):
        path.write_bytes(kept)
        again, clock = started(at_s)
        clock.advance(60)
        kept = path.read_bytes()
        again.stop()
        again.join(LIMIT_S)

    assert seen == [50, 100, 150, 200, 300]


def test_a_join_has_a_timeout_and_needs_a_start() -> None:
    schedule = Schedule(lambda: None, journal=None).every(1000)

    with pytest.raises(NotRunningError):
        schedule.join()
    with schedule, pytest.raises(WaitTimeoutError, match="not over"):
        schedule.join(0.01)
    assert schedule.is_over


def test_a_started_schedule_takes_no_more_points() -> None:
    with (
        Schedule(lambda: None, journal=None).every(1000) as schedule,
        pytest.raises(ConflictError, match="no more points"),
    ):
        schedule.every(5)


@pytest.mark.parametrize(
    "make",
    [
        Schedule,
        lambda: Schedule(5),  # pyright: ignore[reportArgumentType]
        lambda: Schedule(print, late="never"),
        lambda: Schedule(print, tolerance=float("nan")),
        lambda: Schedule(print).start(),
        lambda: Schedule(print).every(1).also(print, points=[0]),
        lambda: Schedule(print).every(1).every(2),
        lambda: Action(print, budget=-1),
    ],
)
def test_what_could_never_work_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        make()


def test_a_preview_shows_the_plan_and_a_timeline_what_came_of_it() -> None:
    clock = ManualClock()
    schedule = Schedule(Action(lambda: 1, label="sample"), journal=None, clock=clock).at(2 * every(60) + every(300))

    preview = str(schedule.preview(4))
    assert [line.split()[1] for line in preview.splitlines()[1:5]] == ["+60.000", "+120.000", "+420.000", "+720.000"]
    assert preview.endswith("...")
    with schedule:
        clock.advance(120)

    assert "1       +60.000 s  succeeded, 0.000 s late" in str(schedule.timeline())
    assert schedule._repr_html_().count("<rect") == 2


def test_points_that_are_inserted_in_any_order_run_in_the_order_of_time() -> None:
    clock, seen = ManualClock(), list[float]()
    schedule = Schedule(noting(seen, clock), journal=None, clock=clock)
    for number in range(10_000):
        schedule.after((number * 7919) % 10_007, since="start")

    with schedule:
        clock.advance(50)
        schedule.stop(Stop.NOW)

    assert seen == sorted(seen)
    assert len(schedule.rows) == 10_000


def test_points_in_parallel_run_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=LIMIT_S)
    schedule = Schedule(together.wait, overlap="parallel", journal=None).every(0.01, times=3)

    with schedule:
        schedule.join(LIMIT_S)

    assert schedule.rows.outcomes == {"succeeded": 3}


def test_a_coroutine_that_is_replaced_has_cleaned_up_before_the_next_begins() -> None:
    told: list[str] = []
    begun = threading.Semaphore(0)

    async def stir() -> None:
        told.append("begin")
        begun.release()
        try:
            if told.count("begin") < 3:
                await asyncio.Event().wait()
        finally:
            told.append("end")

    schedule = Schedule(stir, overlap="replace_running", journal=None).at(after(0))
    with schedule:
        for _ in range(2):
            assert begun.acquire(timeout=LIMIT_S)
            schedule.fire()
        schedule.join(LIMIT_S)

    assert told == ["begin", "end"] * 3
    assert [row.outcome for row in schedule.rows] == ["aborted", "aborted", "succeeded"]
    assert "replaced by fired 1" in schedule.rows[0].reason
