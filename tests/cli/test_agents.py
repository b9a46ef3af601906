"""Agents from the command line: started, seen, called and ended; sessions, feeds and files; with and without serve."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Terminal, end, environment, here, running, until, wait_until, write_site

SESSION = {
    "id",
    "agent",
    "operation",
    "kind",
    "state",
    "params",
    "key",
    "run",
    "by",
    "started_at",
    "ended_at",
    "messages",
    "data",
    "result",
    "error",
}


def fresh() -> str:
    return uuid.uuid4().hex


@pytest.fixture(scope="module")
def pump(lab: Terminal) -> Iterator[str]:
    """Give the name of a pump that is here."""
    with running(lab, "pump-1", "--label", "bench=2", "--arg", "flow=2") as process:
        yield "pump-1"
        assert end(process, signal.SIGTERM).code == 0
    wait_until(lambda: "pump-1" not in here(lab))


def row(done: dict[str, Any]) -> dict[str, Any]:
    (found,) = done["targets"].values()
    return found


# --- who is here -----------------------------------------------------------------------------------------------------


def test_an_agent_is_listed_and_shown(lab: Terminal, pump: str) -> None:
    agent = here(lab)[pump]
    assert agent["labels"] == {"bench": "2"}
    assert agent["class"].endswith("Pump")
    assert pump in lab("agents", "list").out

    shown = lab("agents", "show", pump, "--json").json
    operations = {operation["name"]: operation for operation in shown["operations"]}
    assert operations.keys() == {"dispense", "prime", "self-test", "pressure", "record"}
    assert operations["dispense"]["params"]["properties"]["volume_ml"]["type"] == "number"
    assert (operations["dispense"]["kind"], operations["pressure"]["kind"]) == ("task", "process")
    text = lab("agents", "show", pump).out
    assert "volume_ml: number" in text
    assert "Dispense a volume." in text


def test_an_agent_that_is_not_here_is_not_found_and_the_nearest_is_named(lab: Terminal, pump: str) -> None:
    assert "'pump-1'" in lab("agents", "show", "pump-2", "--json", code=3).error["try"]


def test_agents_are_chosen_by_name_class_and_label(lab: Terminal, pump: str) -> None:
    def chosen(selector: str) -> list[str]:
        return [agent["name"] for agent in lab("agents", "list", "--on", selector, "--json").json["items"]]

    assert chosen("class=Pump,bench in (1,2)") == chosen("name=pump-*,bench=2") == [pump]
    assert chosen("class=Stage|bench!=2,bench=2") == []
    assert "no agent is chosen by bench=3" in lab("agents", "list", "--on", "bench=3").err
    assert lab("agents", "list", "--on", "bench=", "--json", code=2).error["kind"] == "usage"


def test_doctor_shows_the_agents(lab: Terminal, pump: str) -> None:
    (check,) = [check for check in lab("doctor", "--json").json["checks"] if check["name"] == "agents"]
    assert pump in check["detail"]


@pytest.mark.parametrize(
    "words",
    [
        ("bench.instruments:Pump", "--name", "a b"),
        ("bench.instruments:Pump", "--name", "p", "--label", "crate"),
        ("bench.instruments:Pump", "--name", "p", "--arg", "=5"),
    ],
)
def test_an_agent_that_cannot_be_named_is_a_usage_error(site: Terminal, words: tuple[str, ...]) -> None:
    assert site("agent", "start", *words, "--json", code=2).error["kind"] == "usage"


# --- calling ---------------------------------------------------------------------------------------------------------


def test_a_task_is_called_and_its_session_is_history(lab: Terminal, pump: str) -> None:
    done = lab("call", "dispense", "--on", pump, "-p", "volume_ml=2.5", "--json").json
    assert done.keys() >= {"operation", "selector", "succeeded", "quorum", "targets"}
    assert (done["succeeded"], row(done)["outcome"], row(done)["result"]) == (True, "succeeded", 5.0)

    session_id = row(done)["session"]
    shown = lab("sessions", "show", session_id, "--json").json
    assert shown.keys() >= SESSION
    assert (shown["state"], shown["params"]["volume_ml"], shown["data"]["volume_ml"]) == ("succeeded", 2.5, 2.5)
    assert shown["messages"][0]["text"].startswith("dispensing 2.5 ml")
    assert "dispensing" in lab("sessions", "show", session_id).out
    wait_until(lambda: session_id in listed(lab, "--agent", pump, "--operation", "dispense", "--state", "succeeded"))
    wait_until(lambda: "dispensing" in lab("sessions", "log", session_id).out)
    assert "dispensing" in lab("sessions", "log", session_id, "--follow", "--json").lines[0]["text"]


def listed(lab: Terminal, *filters: str) -> dict[str, dict[str, Any]]:
    items = lab("sessions", "list", *filters, "--json").json["items"]
    return {session["id"]: session for session in items}


def test_people_see_log_progress_and_data_while_they_wait(lab: Terminal, pump: str) -> None:
    done = lab("call", "dispense", "--on", pump, "-p", "volume_ml=3", "-p", "seconds=1")
    assert "dispensing 3.0 ml" in done.err
    assert "half way" in done.err
    assert "volume_ml: 3" in done.err
    assert "succeeded" in done.out
    assert "6.0" in done.out


def test_a_task_that_fails_fails_the_call(lab: Terminal, pump: str) -> None:
    failed = row(lab("call", "prime", "--on", pump, "--json", code=1).json)
    assert (failed["outcome"], failed["error"]["kind"]) == ("failed", "terminal")
    assert "fill it" in lab("call", "prime", "--on", pump, code=1).out


def test_a_deadline_ends_the_session(lab: Terminal, pump: str) -> None:
    words = ("call", "dispense", "--on", pump, "-p", "volume_ml=1", "-p", "seconds=60", "--timeout", "0.2")
    assert row(lab(*words, "--json", code=1).json)["outcome"] == "timeout"


def test_what_cannot_be_called_is_refused_with_its_exit_code(lab: Terminal, pump: str) -> None:
    error = lab("call", "dispense", "--on", pump, "-p", "volume_ml=much", "--json", code=2).error
    assert "volume_ml" in json.dumps(error)
    error = lab("call", "dispence", "--on", pump, "--json", code=3).error
    assert "dispense" in json.dumps(error)
    assert lab("call", "dispense", "--on", "nobody", "-p", "volume_ml=1", "--json", code=3).error["kind"] == "not_found"
    assert lab("call", "dispense", "-p", "volume_ml=1", "--json", code=2).error["kind"] == "usage"


def test_a_busy_agent_names_the_holder_and_is_freed_by_an_abort(lab: Terminal, pump: str) -> None:
    words = ("call", "dispense", "--on", pump, "-p", "volume_ml=1", "-p", "seconds=60", "--no-wait")
    session_id = lab(*words).out.strip()
    error = lab("call", "prime", "--on", pump, "--json", code=6).error
    assert session_id in json.dumps(error)
    (ended,) = lab("abort", session_id, "--json").json["items"]
    assert (ended["state"], ended["id"]) == ("aborted", session_id)
    (again,) = lab("sessions", "abort", session_id, "--json").json["items"]
    assert again["state"] == "aborted"

    other = lab(*words).out.strip()
    (ended,) = lab("abort", "--on", pump, "--operation", "dispense", "--json").json["items"]
    assert (ended["state"], ended["id"]) == ("aborted", other)
    lab("abort", "--on", pump, "--operation", "dispense", "--json", code=3)
    assert lab("abort", "--operation", "dispense", "--json", code=2).error["kind"] == "usage"


def test_everything_on_an_agent_is_ended_at_once(lab: Terminal, pump: str) -> None:
    session_id = lab("call", "pressure", "--on", pump).out.strip()
    (ended,) = lab("abort", "--on", "bench=2", "--json").json["items"]
    assert (ended["id"], ended["state"]) == (session_id, "aborted")


def test_a_key_makes_one_session_and_refuses_other_parameters(lab: Terminal, pump: str) -> None:
    key = fresh()
    words = ("call", "dispense", "--on", pump, "--key", key, "--json")
    first, again = (row(lab(*words, "-p", "volume_ml=1").json) for _ in range(2))
    assert first["session"] == again["session"]
    assert lab(*words, "-p", "volume_ml=2", code=6).error["kind"] == "conflict"


def test_a_process_is_started_and_stopping_it_is_its_success(lab: Terminal, pump: str) -> None:
    session_id = lab("call", "pressure", "--on", pump).out.strip()
    wait_until(lambda: lab("sessions", "show", session_id, "--json").json["data"].get("bar", 0) > 1)
    (ended,) = lab("sessions", "stop", session_id, "--json").json["items"]
    assert ended["state"] == "succeeded"


def test_a_task_cannot_be_stopped(lab: Terminal, pump: str) -> None:
    session_id = row(lab("call", "self-test", "--on", pump, "--json").json)["session"]
    assert lab("sessions", "stop", session_id, "--json", code=2).error["kind"] == "usage"


def test_waiting_can_be_interrupted_and_the_session_goes_on(lab: Terminal, pump: str) -> None:
    with lab.started("call", "dispense", "--on", pump, "-p", "volume_ml=1", "-p", "seconds=60") as process:
        until(process, "dispensing")
        assert end(process).code == 130
    (ended,) = lab("abort", "--on", pump, "--json").json["items"]
    assert ended["state"] == "aborted"


def test_a_log_is_followed_to_the_end_of_its_session(lab: Terminal, pump: str) -> None:
    words = ("call", "dispense", "--on", pump, "-p", "volume_ml=7", "-p", "seconds=1", "--no-wait", "--json")
    (session,) = lab(*words).json["items"]
    lines = lab("sessions", "log", session["id"], "--follow", "--json").lines
    assert any("dispensing 7.0 ml" in line["text"] for line in lines)
    assert lab("sessions", "show", session["id"], "--json").json["state"] == "succeeded"


# --- feeds and files -------------------------------------------------------------------------------------------------


def test_a_feed_is_listed_and_watched(lab: Terminal, pump: str) -> None:
    session_id = lab("call", "pressure", "--on", pump).out.strip()
    wait_until(lambda: lab("feeds", "list", "--json").json["items"])
    assert lab("feeds", "list", "--agent", pump, "--json").json["items"][0].items() >= {
        ("agent", pump),
        ("feed", "pressure"),
    }
    with lab.started("feeds", "watch", "pressure", "--agent", pump, "--json") as process:
        assert process.stdout is not None
        sample = json.loads(process.stdout.readline())
        assert end(process).code == 130
    assert (sample["agent"], sample["feed"], sample["data"]["ok"]) == (pump, "pressure", True)
    assert datetime.fromisoformat(sample["at"]).tzinfo is not None
    lab("sessions", "stop", session_id)


def test_a_file_that_was_announced_is_listed(lab: Terminal, pump: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    session_id = row(lab("call", "record", "--on", pump, "-p", f"path={path}", "--json").json)["session"]
    wait_until(lambda: lab("files", "list", "--session", session_id, "--json").json["items"])
    (file,) = lab("files", "list", "--session", session_id, "--kind", "trace", "--json").json["items"]
    assert (file["path"], file["agent"], file["action"]) == (str(path), pump, "record")
    assert str(path) in lab("files", "list", "--since", "5m").out


# --- when something is away ------------------------------------------------------------------------------------------


def test_an_open_session_of_a_dead_agent_is_shown_as_lost_and_never_as_running(lab: Terminal) -> None:
    with running(lab, "doomed") as process:
        words = ("call", "dispense", "--on", "doomed", "-p", "volume_ml=1", "-p", "seconds=60", "--no-wait")
        session_id = lab(*words).out.strip()
        wait_until(lambda: listed(lab, "--agent", "doomed", "--state", "running").get(session_id, {}).get("messages"))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    wait_until(lambda: "doomed" not in here(lab))
    wait_until(lambda: session_id in listed(lab, "--agent", "doomed", "--state", "lost"))
    assert listed(lab, "--agent", "doomed", "--state", "running") == {}
    shown = lab("sessions", "show", session_id, "--json").json
    assert (shown["state"], shown["error"]["kind"], shown["ended_at"]) == ("lost", "lost", None)
    assert shown["messages"]
    assert lab("sessions", "abort", session_id, "--json", code=5).error["kind"] == "unreachable"
    assert lab("sessions", "log", session_id, "--follow", code=5).out

    with running(lab, "doomed"):
        wait_until(lambda: lab("sessions", "show", session_id, "--json").json["ended_at"])
        assert lab("sessions", "show", session_id, "--json").json["state"] == "lost"


def stays_of(lab: Terminal, name: str) -> list[dict[str, Any]]:
    return lab("agents", "history", name, "--json").json["items"]


def whys(lab: Terminal, name: str) -> list[str | None]:
    return [stay["why"] for stay in stays_of(lab, name)]


def test_history_tells_of_an_agent_that_closed_and_of_one_that_was_killed(lab: Terminal) -> None:
    with running(lab, "mortal") as process:
        pid = process.pid
        wait_until(lambda: whys(lab, "mortal") == [None])
        (stay,) = lab("agents", "show", "mortal", "--json").json["stays"]
        assert (stay["class"], stay["pid"], stay["is_found"], stay["gone_at"]) == ("Pump", pid, False, None)
        assert "here, as far as is known" in lab("agents", "show", "mortal").out
        assert end(process, signal.SIGTERM).code == 0
    assert "mortal" not in here(lab)
    wait_until(lambda: whys(lab, "mortal") == ["farewell"])
    with running(lab, "mortal") as process:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    wait_until(lambda: whys(lab, "mortal") == ["silent", "farewell"])
    killed, closed = stays_of(lab, "mortal")
    assert closed["came_at"] < closed["gone_at"] < killed["came_at"] < killed["gone_at"]

    assert "mortal" not in here(lab)
    away = {agent["name"]: agent for agent in lab("agents", "list", "--all", "--json").json["items"]}["mortal"]
    assert (away["is_here"], away["gone_at"], away["why"]) == (False, killed["gone_at"], "silent")
    assert "mortal" in lab("agents", "list", "--all", "--on", "class=Pump").out
    assert "it fell silent" in lab("agents", "history", "--since", "1h").out
    assert "it fell silent" in lab("agents", "show", "mortal", "--json", code=3).error["because"]


def test_a_frozen_agent_is_gone_and_back_at_once_when_it_goes_on(lab: Terminal) -> None:
    with running(lab, "frozen") as process:
        wait_until(lambda: whys(lab, "frozen") == [None])
        process.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: "frozen" not in here(lab))
            wait_until(lambda: whys(lab, "frozen") == ["silent"])
        finally:
            process.send_signal(signal.SIGCONT)
        wait_until(lambda: "frozen" in here(lab))
        wait_until(lambda: whys(lab, "frozen") == [None, "silent"])
        back, before = stays_of(lab, "frozen")
        assert back["pid"] == before["pid"] == process.pid


def test_a_session_of_a_predecessor_that_its_agent_does_not_know_is_lost(lab: Terminal, tmp_path: Path) -> None:
    with running(lab, "forgetful", "--state", str(tmp_path / "one")) as process:
        words = ("call", "dispense", "--on", "forgetful", "-p", "volume_ml=1", "-p", "seconds=60", "--no-wait")
        session_id = lab(*words).out.strip()
        wait_until(lambda: session_id in listed(lab, "--agent", "forgetful", "--state", "running"))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    wait_until(lambda: "forgetful" not in here(lab))
    with running(lab, "forgetful", "--state", str(tmp_path / "two")):
        assert listed(lab, "--agent", "forgetful")[session_id]["state"] == "lost"
        assert lab("sessions", "show", session_id, "--json").json["state"] == "lost"


def test_a_call_ends_when_its_agent_dies(lab: Terminal) -> None:
    with running(lab, "dying") as process:
        words = ("call", "dispense", "--on", "dying", "-p", "volume_ml=1", "-p", "seconds=60")
        with lab.started(*words) as calling:
            until(calling, "dispensing")
            process.send_signal(signal.SIGKILL)
            out, err = calling.communicate(timeout=60)
    assert calling.returncode == 1, err
    assert "unreachable" in out


def test_agents_are_reached_without_serve(tmp_path: Path) -> None:
    own = Terminal(write_site(tmp_path / "site"))
    with own.started("serve", "--json") as serve:
        assert serve.stdout is not None
        assert json.loads(serve.stdout.readline())["ready"] is True
        with running(own, "pump-1"):
            try:
                serve.kill()
                serve.wait(30)
                assert "pump-1" in here(own)
                assert own("agents", "show", "pump-1", "--json").json["operations"]
                session_id = row(own("call", "self-test", "--on", "pump-1", "--json").json)["session"]
                wait_until(lambda: own("sessions", "show", session_id, "--json").json["state"] == "succeeded")
                error = own("sessions", "list", "--json", code=5).error
                assert error["try"] == "labwright serve"
                assert own("sessions", "show", session_id[:-4], "--json", code=3).error["kind"] == "not_found"
                process_id = own("call", "pressure", "--on", "pump-1").out.strip()
                (ended,) = own("abort", "--on", "pump-1", "--json").json["items"]
                assert ended["id"] == process_id
            finally:
                own("serve", "--stop")


# --- the door --------------------------------------------------------------------------------------------------------


def test_an_interruption_while_commands_are_loaded_is_no_traceback(tmp_path: Path) -> None:
    code = """
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "labwright.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from labwright.cli.entry import main
sys.exit(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
