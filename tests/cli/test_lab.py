"""What is asked of a running lab: every command once with its JSON shape, every exit code, and bad input."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Terminal, end, until, write_site

RUN = {
    "id",
    "task",
    "target",
    "params",
    "priority",
    "key",
    "by",
    "state",
    "cause",
    "parent",
    "attempt",
    "requested_at",
    "started_at",
    "ended_at",
    "not_before",
    "not_after",
    "next_attempt_at",
    "waiting_for",
    "approve",
    "approved",
    "worker",
    "result",
    "note",
    "error",
    "steps",
}
STEP = {"name", "position", "state", "attempts", "started_at", "ended_at", "output", "error"}
ERROR = {"kind", "message", "because", "try", "traceback"}
DECISION = {"id", "at", "held", "event", "scenario", "rules", "requests"}
REQUEST = {"id", "task", "params", "on", "priority", "not_before", "not_after", "key", "approve", "rules"}


def fresh() -> str:
    return uuid.uuid4().hex


def one_run(lab: Terminal, *words: str, code: int = 0) -> dict[str, Any]:
    (run,) = lab("run", *words, "--json", code=code).json["items"]
    return run


def workers(lab: Terminal) -> int:
    (check,) = [check for check in lab("doctor", "--json").json["checks"] if check["name"] == "workers"]
    return len(check["detail"].split(", ")) if check["state"] == "ok" else 0


# --- events and decisions --------------------------------------------------------------------------------------------


def test_an_event_is_sent_decided_and_its_runs_are_waited_for(lab: Terminal) -> None:
    name = fresh()
    done = lab("emit", "-", "--wait", "--json", given=lab.event(id=name, type="sample.arrived", subject="42")).json
    assert done["id"] == name
    assert done["decision"].keys() >= DECISION
    (request,) = done["decision"]["requests"]
    assert request.keys() >= REQUEST
    (run,) = done["runs"]
    assert run.keys() >= RUN
    assert (run["state"], run["result"]) == ("succeeded", 4)
    assert run["steps"][0].keys() >= STEP
    assert run["cause"] == {"kind": "event", "id": name, "source": "tests", "point": None}

    assert lab("decisions", "show", name, "--json").json["id"] == done["decision"]["id"]
    assert lab("events", "show", name, "--json").json["runs"] == [run["id"]]
    story = lab("runs", "why", run["id"], "--json").json
    assert [part["kind"] for part in story] == ["event", "decision", "request", "run"]
    assert all(part.keys() == {"kind", "id", "summary", "at", "depth"} for part in story)
    assert [part["depth"] for part in story] == [0, 1, 2, 3]
    assert "weigh_red" in lab("runs", "why", run["id"]).out
    assert lab("runs", "list", "--cause", name, "--json").json["items"][0]["id"] == run["id"]


def test_emit_prints_the_id_and_says_the_rest_on_standard_error(lab: Terminal) -> None:
    name = fresh()
    done = lab("emit", "-", "--wait", given=lab.event(id=name, type="sample.arrived", subject="42"))
    assert done.out == f"{name}\n"
    assert "1 succeeded" in done.err
    again = lab("emit", "-", given=lab.event(id=name, type="sample.arrived", subject="42"))
    assert again.out == f"{name}\n"
    assert "already" in again.err


def test_the_same_identity_with_other_content_is_a_conflict(lab: Terminal) -> None:
    name = fresh()
    lab("emit", "-", given=lab.event(id=name, type="other"))
    error = lab("emit", "-", "--json", given=lab.event(id=name, type="another"), code=6).error
    assert error.keys() >= ERROR
    assert error["kind"] == "conflict"


def test_an_unknown_type_of_event_is_kept_and_matches_no_rule(lab: Terminal) -> None:
    done = lab("emit", "-", "--wait", "--json", given=lab.event(id=fresh(), type="unheard.of")).json
    assert {rule["outcome"] for rule in done["decision"]["rules"]} == {"not_matched"}
    assert all(rule["reasons"] for rule in done["decision"]["rules"])
    assert done["runs"] == []


@pytest.mark.parametrize("given", ["no json", '{"type": "a", "specversion": "2.0"}', '{"specversion": "1.0"}'])
def test_what_is_no_event_is_refused(lab: Terminal, given: str) -> None:
    assert lab("emit", "-", "--json", given=given, code=2).error["kind"] == "usage"


def test_an_event_of_50_mb_is_refused(lab: Terminal) -> None:
    file = lab.folder / "large.json"
    file.write_text(json.dumps({"type": "large", "data": "x" * 50_000_000}))
    assert "too large" in lab("emit", file, "--json", code=2).error["message"]


def test_an_event_whose_run_fails_exits_with_1(lab: Terminal) -> None:
    done = lab("emit", "-", "--wait", "--json", given=lab.event(id=fresh(), type="sample.broken"), code=1).json
    assert done["runs"][0]["error"]["message"] == "it is broken"
    unknown = lab("emit", "-", "--wait", "--json", given=lab.event(id=fresh(), type="sample.lost"), code=1).json
    assert "no-such-task" in unknown["runs"][0]["error"]["message"]


def test_waiting_ends_after_its_timeout_and_the_runs_go_on(lab: Terminal) -> None:
    done = lab(
        "emit", "-", "--wait", "--timeout", "1", "--json", given=lab.event(id=fresh(), type="sample.slow"), code=124
    )
    assert done.error["kind"] == "timeout"
    (run,) = done.json["runs"]
    shown = lab("runs", "show", run["id"], "--json").json
    assert shown["state"] == "running"
    (ended,) = lab("abort", run["id"], "--json").json["items"]
    assert ended["state"] == "aborted"


def test_lists_of_events_and_decisions_have_pages(lab: Terminal) -> None:
    for _ in range(2):
        lab("emit", "-", "--wait", given=lab.event(id=fresh(), type="unheard.of"))
    for noun in ("events", "decisions"):
        first = lab(noun, "list", "--limit", "1", "--json").json
        second = lab(noun, "list", "--limit", "1", "--cursor", first["next_cursor"], "--json").json
        assert len(first["items"]) == len(second["items"]) == 1
        assert first["items"] != second["items"]
    assert lab("events", "list", "--state", "decided").out


def test_a_past_event_is_decided_again_with_the_rules_of_now(lab: Terminal) -> None:
    name = fresh()
    lab("emit", "-", "--wait", given=lab.event(id=name, type="sample.arrived", subject="42"))
    assert lab("events", "decide", name, "--dry-run", "--json").json.keys() >= DECISION
    assert lab("events", "decide", name, "--json", code=6).error["kind"] == "conflict"


def test_what_is_not_there_is_not_found(lab: Terminal) -> None:
    for words in (
        ("runs", "show", "run_nothing"),
        ("runs", "why", "run_nothing"),
        ("events", "show", "nothing"),
        ("decisions", "show", "nothing"),
        ("tasks", "show", "nothing"),
        ("targets", "list", "--on", "crate=9"),
        ("runs", "abort", "--task", "nothing"),
        ("run", "nothing"),
        ("run", "add", "-p", "first=1", "--on", "crate=9"),
        ("pools", "pause", "nothing"),
    ):
        assert lab(*words, "--json", code=3).error["kind"] == "not_found"


# --- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_is_requested_shown_and_its_log_is_told(lab: Terminal) -> None:
    run = one_run(lab, "add", "-p", "first=2", "-p", "second=5", "--wait")
    assert run.keys() >= RUN
    assert (run["state"], run["result"], run["target"]) == ("succeeded", 7, None)
    assert run["cause"]["kind"] == "operator"
    shown = lab("runs", "show", run["id"])
    assert "sum_up" in shown.out
    assert "runs why" in shown.err
    (line,) = lab("runs", "log", run["id"], "--json").lines
    assert (line["text"], line["fields"]) == ("adding", {"step": "sum_up", "first": 2})
    assert "adding" in lab("runs", "log", run["id"]).out


def test_parameters_come_from_a_file_and_text_stays_text(lab: Terminal) -> None:
    (lab.folder / "given.json").write_text('{"first": 10}')
    dry = lab("run", "add", "-p", "@given.json", "-p", "second=3", "--dry-run", "--json").json
    assert dry["request"]["params"] == {"first": 10, "second": 3}
    assert dry["targets"] == [None]
    assert lab("run", "needs", "-p", "path=a b", "--dry-run", "--json").json["request"]["params"] == {"path": "a b"}


def test_one_run_is_made_on_each_target(lab: Terminal) -> None:
    done = lab("run", "add", "-p", "first=1", "--on", "crate=1,slot!=3", "--wait", "--json").json
    assert [run["target"] for run in sorted(done["items"], key=lambda run: run["target"])] == ["slot-1", "slot-2"]
    assert done["next_cursor"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add",), "first: it is required"),
        (("add", "-p", "first=many"), "first"),
        (("add", "-p", "first=1", "-p", "third=2"), "third"),
        (("add", "-p", "first"), "NAME=VALUE"),
        (("add", "-p", "first=1", "--not-before", "+2h", "--not-after", "+1h"), "not_after"),
        (("add", "-p", "first=1", "--not-after", "tomorrow"), "--not-after"),
        (("add", "-p", "first=1", "--on", "slot!3"), "\n      ^"),
        (("add", "-p", "first=1", "--timeout", "3"), "--wait"),
    ],
)
def test_a_request_that_makes_no_sense_is_a_usage_error(lab: Terminal, words: tuple[str, ...], said: str) -> None:
    error = lab("run", *words, "--json", code=2).error
    assert error["kind"] == "usage"
    assert said in json.dumps(error, ensure_ascii=False).replace("\\n", "\n")


def test_a_key_makes_one_run_and_refuses_other_parameters(lab: Terminal) -> None:
    key = fresh()
    first = one_run(lab, "add", "-p", "first=1", "--key", key, "--wait")
    again = one_run(lab, "add", "-p", "first=1", "--key", key, "--wait")
    assert first["id"] == again["id"]
    assert lab("run", "add", "-p", "first=2", "--key", key, "--json", code=6).error["kind"] == "conflict"


def test_a_run_that_failed_is_retried_from_the_step_that_failed(lab: Terminal) -> None:
    path = lab.folder / fresh()
    run = one_run(lab, "needs", "-p", f"path={path}", "--wait", code=1)
    assert run["state"] == "failed"
    path.touch()
    lab("runs", "retry", run["id"], "--json")
    last = lab("runs", "watch", run["id"], "--json").lines[-1]
    assert last["state"] == "succeeded"
    assert [step["attempts"] for step in last["steps"]] == [1, 2]
    assert lab("runs", "retry", run["id"], "--json", code=6).error["kind"] == "conflict"
    lab("runs", "retry", run["id"], "--from-start")
    assert lab("runs", "watch", run["id"], "--json").lines[-1]["state"] == "succeeded"


def test_runs_are_watched_and_aborted_by_filter(lab: Terminal) -> None:
    lab("run", "dwell", "--on", "slot-1")
    lab("run", "dwell", "--on", "slot-1")
    waiting = lab("runs", "list", "--task", "dwell", "--on", "slot-1", "--state", "pending", "--json").json["items"]
    assert "slot-1" in waiting[0]["waiting_for"]["detail"]
    ended = lab("runs", "abort", "--task", "dwell", "--on", "slot-1", "--since", "5m", "--json").json["items"]
    assert {run["state"] for run in ended} == {"aborted"}
    assert lab("runs", "watch", ended[0]["id"], code=1).out.startswith(ended[0]["id"])
    assert lab("runs", "abort", "--json", code=2).error["kind"] == "usage"


def test_runs_are_asked_for_with_approval_and_approved(lab: Terminal) -> None:
    runs = lab("run", "add", "-p", "first=1", "--on", "crate=1", "--approve", "--json").json["items"]
    assert {(run["state"], run["waiting_for"]["kind"]) for run in runs} == {("waiting", "approval")}
    first, *others = [run["id"] for run in runs]
    assert f"waits for approval: labwright runs approve {first}" in " ".join(lab("runs", "show", first).out.split())
    assert f"{first} add: approved" in lab("runs", "approve", first, "--reason", "it is safe").out
    lab("runs", "watch", first)
    assert ": it is safe" in lab("runs", "show", first).out
    assert "approved it: it is safe" in lab("runs", "why", first).out
    approved = lab("runs", "approve", "--task", "add", "--since", "1h", "--json").json["items"]
    assert {run["id"] for run in approved} == set(others)
    assert lab("runs", "approve", "--task", "add", "--json", code=3).error["kind"] == "not_found"
    assert lab("runs", "approve", "--json", code=2).error["kind"] == "usage"


def test_a_filter_that_cannot_be_read_is_a_usage_error(lab: Terminal) -> None:
    assert "states are" in lab("runs", "list", "--state", "broken", "--json", code=2).error["because"]
    assert lab("runs", "list", "--since", "yesterday", "--json", code=2).error["kind"] == "usage"
    assert lab("runs", "list", "--cursor", "x", "--json", code=2).error["kind"] == "usage"


def test_a_large_value_is_brought_when_asked_for(lab: Terminal) -> None:
    run = one_run(lab, "big", "--wait")
    assert lab("runs", "show", run["id"], "--json").json["steps"][0]["output"]["size"] > 400_000
    assert len(lab("runs", "show", run["id"], "--full", "--json").json["steps"][0]["output"]) == 400_000


def test_waiting_can_be_interrupted_and_the_run_goes_on(lab: Terminal) -> None:
    with lab.started("run", "dwell", "--wait", "--on", "slot-2") as process:
        until(process, "running")
        assert end(process).code == 130
    (run,) = lab("runs", "abort", "--on", "slot-2", "--json").json["items"]
    assert run["state"] == "aborted"


# --- what the site has -----------------------------------------------------------------------------------------------


def test_tasks_rules_targets_pools_and_facts_are_listed_and_shown(lab: Terminal) -> None:
    assert {task["name"] for task in lab("tasks", "list", "--json").json["items"]} >= {"add", "dwell"}
    assert lab("tasks", "show", "add", "--json").json["steps"] == ["sum_up", "tell"]
    assert "integer" in lab("tasks", "show", "add").out
    assert lab("rules", "list", "--json").json["items"][0].keys() >= {"name", "doc", "condition"}
    assert lab("rules", "show", "bench.rules:weigh_red", "--json").json["doc"] == "Weigh red samples."
    assert "'bench.rules:weigh_red'" in lab("rules", "show", "bench.rules:weigh_re", "--json", code=3).error["try"]
    assert lab("targets", "show", "slot-1", "--json").json["facts"] == {"url": "http://one"}
    assert lab("facts", "show", "42", "--json").json["facts"]["color"] == "red"
    assert lab("targets", "list", "--on", "slot!3", "--json", code=2).error["message"].endswith("^")


def test_a_pool_is_paused_drained_and_resumed(lab: Terminal) -> None:
    assert lab("pools", "pause", "slow", "--json").json["state"] == "paused"
    run = one_run(lab, "dwell", "-p", "seconds=0.01")
    assert "paused" in lab("runs", "show", run["id"], "--json").json["waiting_for"]["detail"]
    assert lab("pools", "drain", "slow", "--json").json["state"] == "draining"
    assert lab("pools", "resume", "slow", "--json").json["state"] == "active"
    assert lab("runs", "watch", run["id"], "--json").lines[-1]["state"] == "succeeded"
    assert {pool["name"] for pool in lab("pools", "list", "--json").json["items"]} == {"default", "slow", "fleets"}
    assert lab("pools", "show", "slow", "--json").json["concurrency"] == 4


# --- the lab itself --------------------------------------------------------------------------------------------------


def test_a_site_is_served_once(lab: Terminal) -> None:
    error = json.loads(lab("serve", "--json", code=6).err.splitlines()[-1])
    assert error["kind"] == "conflict"
    assert lab("rebuild-view", "--json", code=6).error["kind"] == "conflict"


def test_reload_is_all_or_nothing(lab: Terminal) -> None:
    broken = lab.folder / "bench" / "broken.py"
    broken.write_text("1 / 0\n")
    try:
        error = lab("reload", "--json", code=1).error
        assert any("bench.broken" in finding for finding in error["findings"])
    finally:
        broken.unlink()
    assert lab("reload", "--json").json["tasks"] >= 5
    assert one_run(lab, "add", "-p", "first=1", "--wait")["state"] == "succeeded"


def test_one_more_worker_comes_and_goes(lab: Terminal) -> None:
    with lab.started("worker", "--pool", "slow") as process:
        while workers(lab) < 2:  # none answers for a moment on a busy machine
            assert process.poll() is None
        assert end(process).code == 0
    while workers(lab) > 1:
        pass


def test_a_lab_starts_is_well_ends_and_its_view_is_rebuilt(tmp_path: Path) -> None:
    own = Terminal(write_site(tmp_path / "site"))
    with own.started("serve") as process:
        assert "nats-server started" in until(process, "next, in another terminal")
        assert own("doctor", "--json").json["ok"] is True
        while not workers(own):
            assert process.poll() is None
        assert end(process).code == 0
    assert own("rebuild-view", "--json").json["removed"] is True


def test_doctor_shows_what_was_set_aside_and_how_to_mend_it(tmp_path: Path) -> None:
    own = Terminal(write_site(tmp_path / "site"))
    with own.started("serve") as process:
        until(process, "next, in another terminal")
        words = ("emit", "-", "--wait", "--timeout", "8", "--json")
        error = own(*words, given='{"id": "p1", "type": "poison"}', code=1).error
        assert error["kind"] == "poisoned"
        found = own("doctor", "--json", code=1).json
        (aside,) = [check for check in found["checks"] if check["name"] == "event set aside"]
        assert "p1" in aside["detail"]
        assert "labwright events decide" in aside["try"]
        assert own("events", "list", "--state", "set_aside", "--json").json["items"][0]["id"] == "p1"
        assert own("events", "decide", "p1", "--json").json["state"] == "released"


def rows_when(lab: Terminal, name: str, number: int) -> list[dict[str, Any]]:
    """Wait until so many points of a schedule have succeeded, and give those, newest first."""
    end = time.monotonic() + 30
    while True:
        rows = [row for row in lab("schedules", "show", name, "--json").json["rows"] if row["outcome"] == "succeeded"]
        if len(rows) >= number:
            return rows
        assert time.monotonic() < end, rows


# --- schedules -------------------------------------------------------------------------------------------------------


def test_a_schedule_is_added_runs_is_shown_and_removed(lab: Terminal) -> None:
    name = f"s.{fresh()}"
    added = lab(
        "schedules", "add", name, "--task", "add", "-p", "first=2", "--on", "crate=1,slot!=3", "--every", "200ms",
        "--json",
    ).json  # fmt: skip
    assert (added["state"], added["when"], added["task"], added["on"]) == ("active", "0.2s", "add", "crate=1,slot!=3")
    assert name in [item["name"] for item in lab("schedules", "list", "--json").json["items"]]

    row = rows_when(lab, name, 2)[0]
    runs = [lab("runs", "show", run, "--json").json for run in row["runs"]]
    assert sorted(run["target"] for run in runs) == ["slot-1", "slot-2"]
    assert runs[0]["cause"] == {"kind": "schedule", "id": name, "source": None, "point": row["planned_at"]}
    assert runs[0]["result"] == 3
    story = lab("runs", "why", runs[0]["id"], "--json").json
    assert [part["kind"] for part in story] == ["schedule", "run"]

    assert lab("schedules", "remove", name).out == f"{name}: removed\n"
    error = lab("schedules", "show", name, "--json", code=3).error
    assert error["kind"] == "not_found"


def test_a_schedule_is_paused_fired_skipped_and_resumed(lab: Terminal) -> None:
    name = fresh()
    lab("schedules", "add", name, "--task", "add", "-p", "first=1", "--every", "1h")
    assert lab("schedules", "pause", name, "--json").json["state"] == "paused"
    assert lab("schedules", "pause", name, "--json", code=6).error["kind"] == "conflict"
    lab("schedules", "fire", name)
    rows_when(lab, name, 1)
    assert lab("schedules", "skip", name, "-n", "2", "--json").json["skips"] == 2
    assert "active, next" in lab("schedules", "resume", name).out
    text = lab("schedules", "show", name).out
    assert "succeeded" in text
    assert f"{name}: add, 3600s, active" in text
    lab("schedules", "remove", name)


def test_what_cannot_be_done_to_a_schedule_says_what_can(lab: Terminal) -> None:
    name = fresh()
    lab("schedules", "add", name, "--task", "add", "-p", "first=1", "--every", "1h")
    unknown = lab("schedules", "pause", "nope", "--json", code=3).error
    active = lab("schedules", "resume", name, "--json", code=6).error
    lab("schedules", "pause", name)
    paused = lab("schedules", "pause", name, "--json", code=6).error
    assert "removed" in unknown["because"]
    assert all(error["try"] for error in (unknown, active, paused))
    lab("schedules", "remove", name)


@pytest.mark.parametrize(
    "when",
    [
        ("--zone", "Europe/Paris", "--cron", "30 2 * * *"),
        ("--zone", "Europe/Paris", "--calendar", "*-*-* 02:30:00"),
        ("--calendar", "*-*-* 02:30:00 Europe/Paris"),
    ],
)
def test_a_schedule_is_previewed_in_its_zone(lab: Terminal, when: tuple[str, ...]) -> None:
    name = fresh()
    lab("schedules", "add", name, "--task", "add", "-p", "first=1", *when)
    lines = lab("schedules", "preview", name, "-n", "3").out.splitlines()
    assert len(lines) == 3
    assert all(line.endswith("02:30:00 Europe/Paris") for line in lines)
    items = lab("schedules", "preview", name, "--zone", "UTC", "--json").json["items"]
    assert len(items) == 10
    assert items[0]["local"].endswith(":30:00 UTC")
    lab("schedules", "remove", name)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--task", "add", "-p", "first=1"], 2),
        (["--task", "add", "-p", "first=1", "--every", "60s", "--cron", "* * * * *"], 2),
        (["--task", "add", "-p", "first=1", "--every", "60"], 2),
        (["--task", "add", "-p", "first=1", "--cron", "61 * * * *"], 2),
        (["--task", "add", "-p", "first=1", "--every", "60s", "--overlap", "never"], 2),
        (["--task", "add", "-p", "first=1", "--every", "60s", "--error", "retry"], 2),
        (["--task", "add", "-p", "first=1", "--every", "60s", "--on", "crate=="], 2),
        (["--task", "add", "--every", "60s"], 2),
        (["--task", "ad", "-p", "first=1", "--every", "60s"], 3),
    ],
)
def test_a_schedule_that_will_not_do_is_refused(lab: Terminal, words: list[str], code: int) -> None:
    error = lab("schedules", "add", fresh(), *words, "--json", code=code).error
    assert error.keys() >= ERROR
    assert error["message"]
