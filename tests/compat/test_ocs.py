"""OCS's clients on a real agent: what each request answers in each state, and published code as it stands."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from labwright.compat import ocs
from labwright.compat.ocs import ERROR, OK, TIMEOUT, ControlClientError, MatchedClient, OCSClient, OCSReply, encoded
from labwright.core.model import ErrorRecord, SessionMessage, SessionSnapshot, SessionState
from tests.cli.conftest import Terminal, end, environment, running, served, wait_until

KEYS = {"session_id", "op_name", "op_code", "status", "success", "start_time", "end_time", "messages", "data"}

PUBLISHED = """
from labwright.compat.ocs import MatchedClient

controller = MatchedClient('pysmurf-controller', args=[])

script_path = '/config/scripts/pysmurf/tune.py'
controller.run.start(script=script_path)
"""
"""The example of the controller's documentation, with its import line changed and its parenthesis mended."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    with served(tmp_path_factory.mktemp("ocs")) as terminal:
        yield terminal


@pytest.fixture(scope="module")
def agents(lab: Terminal) -> Iterator[None]:
    with running(lab, "pump-1"), running(lab, "pysmurf-controller", agent="Controller"):
        yield


@pytest.fixture(autouse=True)
def at_the_site(lab: Terminal, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LABWRIGHT_SITE", str(lab.folder))
    yield
    ocs._LABS.close()


@pytest.fixture
def pump(agents: None) -> Iterator[Any]:
    client = OCSClient("pump-1", args=["--site-http", "http://elsewhere"])
    yield client
    for operation in (client.dispense, client.pressure):
        (operation.abort if operation is client.dispense else operation.stop)()
        assert operation.wait(30).status == OK


def test_the_published_example_runs(lab: Terminal, agents: None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PUBLISHED],
        env={**environment(), "LABWRIGHT_SITE": str(lab.folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    reply: OCSReply = MatchedClient("pysmurf-controller", args=[]).run.wait(30)
    assert reply.session["success"] is True
    assert reply.session["messages"][0][1] == "would run /config/scripts/pysmurf/tune.py"


def test_the_site_is_found_in_the_current_folder(lab: Terminal, agents: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABWRIGHT_SITE")
    monkeypatch.chdir(lab.folder)
    assert OCSClient("pump-1").self_test().status == OK


def test_operations_stand_as_attributes_and_bring_their_help(pump: Any) -> None:
    assert pump.dispense.__doc__ == "Dispense a volume."
    assert pump.self_test().status == OK
    with pytest.raises(AttributeError, match="no_such"):
        pump.no_such.start()


def test_calling_a_task_starts_it_and_waits(pump: Any) -> None:
    reply = pump.dispense(volume_ml=2)
    assert (reply.status, reply.session["success"], reply.session["status"]) == (OK, True, "done")
    assert "SUCCEEDED" in reply.msg
    session = reply.session
    assert session.keys() >= KEYS
    assert (session["op_name"], session["op_code"]) == ("dispense", 5)
    assert session["start_time"] <= session["end_time"] <= time.time() + 60
    assert session["messages"][0][1].startswith("dispensing")
    assert session["data"] == {"volume_ml": 2, "odd": None}


def test_a_task_that_fails_was_a_good_request(pump: Any) -> None:
    status, msg, session = pump.prime()
    assert (status, session["success"], session["op_code"]) == (OK, False, 6)
    assert "FAILED" in msg
    assert session["messages"][-1][1] == "ERROR: the tube is empty"


def test_a_start_is_refused_while_it_runs_and_shows_what_runs(pump: Any) -> None:
    started = pump.dispense.start(volume_ml=1, seconds=60)
    assert started.status == OK
    assert started.session["status"] in {"starting", "running"}
    again = pump.dispense.start(volume_ml=1)
    assert (again.status, again.session["session_id"]) == (ERROR, started.session["session_id"])
    assert "already in progress" in again.msg
    assert pump.dispense(volume_ml=1).status == ERROR
    held = pump.prime.start()
    assert (held.status, held.session) == (ERROR, {})
    assert started.session["session_id"] in held.msg


@pytest.mark.parametrize("params", [{}, {"volume_ml": "much"}, {"volume_ml": 1, "stray": 2}])
def test_bad_parameters_are_an_error_without_a_session(pump: Any, params: dict[str, Any]) -> None:
    reply = pump.dispense.start(**params)
    assert (reply.status, reply.session) == (ERROR, {})
    assert "volume_ml" in reply.msg or "stray" in reply.msg


def test_waiting_tells_whether_the_time_was_up(pump: Any) -> None:
    pump.dispense.start(volume_ml=1, seconds=60)
    for timeout in (0.1, 0, -1):
        reply = pump.dispense.wait(timeout)
        assert (reply.status, reply.session["success"]) == (TIMEOUT, None)
    assert pump.dispense.abort().status == OK
    reply = pump.dispense.wait()
    assert (reply.status, reply.session["success"], reply.session["status"]) == (OK, False, "done")
    assert pump.dispense.wait(-1).status == OK


def test_what_never_ran_is_idle(lab: Terminal) -> None:
    with running(lab, "new-pump"):
        client: Any = OCSClient("new-pump")
        assert client.dispense.wait() == (OK, "Idle.", {})
        assert client.dispense.status() == (OK, "No session active.", {})
        assert client.pressure() == (OK, "No session active.", {})
        assert (client.dispense.abort().status, client.pressure.stop().status) == (ERROR, ERROR)
        assert str(client.dispense.status()) == "OCSReply: OK : No session active."


def test_ending_is_an_error_for_the_wrong_kind_and_where_nothing_runs(pump: Any) -> None:
    pump.dispense.start(volume_ml=1, seconds=60)
    assert pump.dispense.stop().status == ERROR
    assert pump.dispense.abort().status == OK
    pump.dispense.wait(30)
    done = pump.dispense.abort()
    assert (done.status, done.session["status"]) == (ERROR, "done")

    pump.pressure.start()
    assert pump.pressure.abort().status == ERROR
    assert pump.pressure.stop().status == OK
    pump.pressure.wait(30)
    assert pump.pressure.stop().status == ERROR


def test_calling_a_process_gives_its_status(pump: Any) -> None:
    pump.pressure.start()
    wait_until(lambda: pump.pressure().session["data"].get("bar", 0) > 1)
    assert pump.pressure().session["status"] == "running"
    pump.pressure.stop()
    assert pump.pressure.wait(30).session["success"] is True


def test_the_status_of_a_gone_agent_does_not_hang(lab: Terminal, agents: None) -> None:
    with running(lab, "doomed") as process:
        client: Any = OCSClient("doomed")
        started = client.dispense.start(volume_ml=1, seconds=60)
        end(process, signal.SIGKILL)
    begun = time.monotonic()
    wait_until(lambda: client.dispense.status().status == ERROR)
    reply = client.dispense.status()
    assert reply.session["session_id"] == started.session["session_id"]
    assert (reply.session["status"], reply.session["success"]) == ("done", False)
    assert client.dispense.wait().status == ERROR
    assert client.dispense.start(volume_ml=1).status == ERROR
    assert client.dispense.abort().status == ERROR
    assert time.monotonic() - begun < 60
    with pytest.raises(ControlClientError, match=r"doomed.*here are: .*pump-1") as raised:
        OCSClient("doomed")
    assert raised.value.__suppress_context__


def test_without_a_lab_there_is_no_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABWRIGHT_SITE", str(tmp_path))
    with pytest.raises(ControlClientError, match="no lab"):
        OCSClient("pump-1")


def test_any_data_becomes_a_dictionary_that_json_can_say(agents: None) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    session = SessionSnapshot(
        id="ses_1",
        agent="a",
        operation="o",
        state=SessionState.LOST,
        started_at=moment,
        messages=tuple(SessionMessage(at=moment, text=f"line {n}") for n in range(8)),
        data={"list": [{"$float": "nan"}, {"$float": "inf"}, 1.5]},
        error=ErrorRecord(kind="bug", message="ValueError: no"),
    )
    shown = encoded(session)
    assert shown["data"] == {"list": [None, math.inf, 1.5]}
    assert shown["messages"][-1][1] == "CRASH: ValueError: no"
    printed = str(OCSReply(OK, "done", shown))
    assert "line 7" in printed
    assert "line 3" not in printed
