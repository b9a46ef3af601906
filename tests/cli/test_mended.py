"""What a new user stumbled over: waiting, following, a lab that is down, narrow terminals, and words."""

from __future__ import annotations

import inspect
import io
import re
import signal
import time
import uuid
from pathlib import Path

import pytest
import typer

from labwright.cli.main import app, main
from labwright.cli.output import Output
from tests.cli.conftest import Terminal, write_site


def commands() -> dict[str, str]:
    """Give each command's docstring by its words."""
    found: dict[str, str] = {}

    def add(of: typer.Typer, prefix: str) -> None:
        for item in of.registered_commands:
            assert item.callback is not None
            found[f"{prefix}{item.name or item.callback.__name__}"] = inspect.getdoc(item.callback) or ""

    add(app, "")
    for group in app.registered_groups:
        assert group.typer_instance is not None
        add(group.typer_instance, f"{group.name} ")
    return found


@pytest.mark.parametrize("words", commands())
def test_help_loses_no_square_brackets_and_flags_have_no_type(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert not [line for line in shown.splitlines() if "<bool>" in line and "--help" not in line]
    for bracketed in re.findall(r"\[[^\]\n]*\]", commands()[words]):
        assert bracketed in shown


def test_a_rule_that_kills_its_process_is_told_with_the_event_and_without_a_traceback(tmp_path: Path) -> None:
    own = Terminal(write_site(tmp_path / "site"))
    with own.started("serve", "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        name = uuid.uuid4().hex
        done = own("emit", "-", "--wait", given=own.event(id=name, type="poison"), code=1)
        assert done.out == f"{name}\n"
        assert f"labwright events decide {name}" in done.err
        assert "asynchronous generator" not in done.err
        assert "Traceback" not in done.err
        name = uuid.uuid4().hex
        error = own("emit", "-", "--wait", "--json", given=own.event(id=name, type="poison"), code=1).error
        assert name in error["message"]
        own("run", "dwell", "-p", "seconds=600")
        process.send_signal(signal.SIGKILL)
        process.wait()
        checks = {item["name"]: item for item in own("doctor", "--json", code=1).json["checks"]}
        assert checks["embedded journal"]["state"] == "wrong"
        assert "labwright serve" in checks["embedded journal"]["try"]
        own("serve", "--stop")
        started = time.monotonic()
        assert own("runs", "list", "--json", code=5).error["message"] == "no lab is running here"
        assert time.monotonic() - started < 3


def test_a_rule_that_raised_is_named_by_emit_with_wait(lab: Terminal) -> None:
    done = lab("emit", "-", "--wait", given=lab.event(id=uuid.uuid4().hex, type="sample.odd"))
    assert "rule bench.rules:raises failed: ValueError: an odd sample" in done.err
    assert "next: labwright decisions show dec_" in done.err


@pytest.mark.parametrize("seconds", ["0", "1"])
def test_following_a_log_ends_with_the_run(lab: Terminal, seconds: str) -> None:
    (run,) = lab("run", "dwell", "-p", f"seconds={seconds}", "--json").json["items"]
    lab("runs", "log", run["id"], "-f", timeout=20)
    assert lab("runs", "show", run["id"], "--json").json["state"] == "succeeded"


def test_a_followed_log_has_all_lines(lab: Terminal) -> None:
    (run,) = lab("run", "add", "-p", "first=1", "--json").json["items"]
    assert [line["text"] for line in lab("runs", "log", run["id"], "-f", "--json", timeout=20).lines] == ["adding"]


def test_an_unknown_state_of_events_is_refused_with_the_states(lab: Terminal) -> None:
    assert "set_aside" in lab("events", "list", "--state", "nonsense", "--json", code=2).error["because"]


def test_watching_what_filters_do_not_find_ends(lab: Terminal) -> None:
    assert lab("runs", "watch", "--task", "no-such-task").err == "nothing is open\n"


def test_a_choice_of_nothing_is_told_in_words(lab: Terminal) -> None:
    because = lab("runs", "abort", "--task", "no-such-task", "--json", code=3).error["because"]
    assert because.startswith("there is none with state ")
    assert "{" not in because


def test_doctor_notes_a_paused_pool(lab: Terminal) -> None:
    lab("pools", "pause", "slow")
    try:
        assert "slow is paused" in lab("doctor").out
    finally:
        lab("pools", "resume", "slow")


def test_a_folder_without_settings_is_told(tmp_path: Path) -> None:
    assert "no labwright.toml" in Terminal(tmp_path)("check").err


def test_outside_of_a_site_it_is_told_how_to_name_one(tmp_path: Path) -> None:
    error = Terminal(tmp_path)("runs", "list", "--json", code=5).error
    assert error["because"] == "it has no connection.json, which labwright serve writes"
    assert error["try"] == "start one: labwright serve; or name the site's folder: --site DIR"

    (tmp_path / "labwright.toml").write_text("")
    assert Terminal(tmp_path)("runs", "list", "--json", code=5).error["try"] == "start one: labwright serve"


def test_a_role_or_a_name_that_is_none_is_refused_in_plain_words(tmp_path: Path) -> None:
    user = Terminal(tmp_path)
    role = user("user", "add", "ada", "--role", "nonsense", "--json", code=2).error["message"]
    assert role.startswith("Invalid value for '--role': 'nonsense' is not one of")
    name = user("user", "add", "a b", "--role", "viewer", "--json", code=2).error["message"]
    assert name == "'a b' cannot name a user"


def test_a_new_site_tells_what_its_tests_need(tmp_path: Path) -> None:
    assert "its tests need pytest: pip install pytest" in Terminal(tmp_path)("new", "site", "site_that_nobody_has").err


def test_a_narrow_terminal_has_one_line_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    output = Output()
    written = io.StringIO()
    monkeypatch.setattr(output, "_data", Console(file=written, width=80))
    row = [
        "run_01M7WJPMHBS9BKANDWCV9CGVFG",
        "a-task-with-a-long-name",
        "a-target-with-a-long-name",
        "succeeded",
        "03:04:05",
        "n",
    ]
    columns = ("id", "task", "target", "state", "requested", "note")
    output.rows(columns, [row], nothing="", only_when_wide=("note",))
    heading, line = written.getvalue().splitlines()
    assert heading.split() == ["id", "task", "target", "state", "requested"]
    assert row[0] in line
    assert "succeeded" in line
    assert "03:04:05" in line
    assert "…" in line
