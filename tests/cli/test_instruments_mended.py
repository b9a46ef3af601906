"""What a new user stumbled over with agents: interruptions, long logs, what is refused, advice, narrow terminals."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator

import pytest
from rich.console import Console

from labwright.cli.call import show_row
from labwright.cli.caller import Caller
from labwright.cli.files import cut_folder
from labwright.cli.output import Output
from tests.cli.conftest import Terminal, end, running, until, wait_until

NAME = "stage-1"


@pytest.fixture(scope="module")
def stage(lab: Terminal) -> Iterator[str]:
    """Give the name of a stage that is here."""
    with running(lab, NAME, "--label", "axis=x", agent="bench.stage:Stage"):
        yield NAME


# --- logs ------------------------------------------------------------------------------------------------------------


def test_following_a_log_can_be_interrupted_without_a_word(lab: Terminal, stage: str) -> None:
    session_id = lab("call", "jog", "--on", stage).out.strip()
    with lab.started("sessions", "log", session_id, "--follow") as process:
        assert process.stdout is not None
        assert "jog" in process.stdout.readline()
        done = end(process)
    lab("sessions", "stop", session_id)
    assert (done.code, done.err) == (130, "")


def test_all_lines_of_a_session_that_says_much_are_told(lab: Terminal, stage: str) -> None:
    done = lab("call", "chatter", "--on", stage, "-p", "lines=30000")
    said = [line for line in done.err.splitlines() if " line " in line]
    assert (len(said), said[-1].rpartition(" ")[2]) == (30000, "29999")


# --- an agent that cannot be started ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "arguments", "words"),
    [
        ("bench.stage", (), "bench.stage:Stage"),
        ("bench.stage:Stagee", (), "did you mean bench.stage:Stage?"),
        ("bench.stage:not_an_agent", (), "is no agent"),
        ("bench.nothing:Stage", (), "No module named"),
        ("bench.stage:Stage", ("--arg", "axes=y"), "limits: array=[0.0, 1.0]"),
        ("bench.instruments:Pump", (), "port: string, flow: number=1.0"),
    ],
)
def test_an_agent_that_cannot_be_started_says_why_in_the_one_shape(
    site: Terminal, place: str, arguments: tuple[str, ...], words: str
) -> None:
    with site.started("agent", "start", place, "--name", "s", *arguments, "--json") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, ""), err
    assert words in err
    assert json.loads(err).keys() >= {"kind", "message", "because", "try"}
    assert "agents show" not in err


def test_an_agent_whose_constructor_raises_says_so(lab: Terminal) -> None:
    with lab.started("agent", "start", "bench.stage:Stage", "--name", "b", "--arg", "axis=broken") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: ValueError: there is no such axis" in err


def test_a_second_agent_of_a_name_says_who_has_it(lab: Terminal, stage: str) -> None:
    with lab.started("agent", "start", "bench.stage:Stage", "--name", stage, "--json") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 6, err
    assert stage in json.loads(err.splitlines()[-1])["message"]


def test_a_name_that_is_none_is_told_in_good_grammar(lab: Terminal) -> None:
    error = lab("agent", "start", "bench.stage:Stage", "--name", "a b", "--json", code=2).error
    assert "cannot name an agent" in error["message"]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_an_abort_of_nothing_says_what_is_not_there(lab: Terminal, stage: str) -> None:
    error = lab("abort", "--on", stage, "--operation", "mov", "--json", code=3).error
    assert ("'mov'" in error["message"], error["try"]) == (True, "did you mean 'move'?")
    error = lab("abort", "--on", "stage-2", "--json", code=3).error
    assert ("'stage-2'" in error["message"], error["try"]) == (True, f"did you mean {stage!r}?")
    assert "chosen by" in lab("abort", "--on", "colour=red", "--json", code=3).error["message"]
    assert lab("abort", "--on", "slot-1", "--json", code=3).error["message"] == "nothing runs on slot-1"


def test_an_abort_of_all_leaves_what_begins_with_the_agent(lab: Terminal, stage: str) -> None:
    error = lab("abort", "--on", stage, "--json", code=3).error
    assert "check_state" in error["because"]
    session_id = lab("call", "jog", "--on", stage).out.strip()
    (ended,) = lab("abort", "--on", stage, "--json").json["items"]
    assert ended["id"] == session_id
    (ended,) = lab("abort", "--on", stage, "--operation", "check_state", "--json").json["items"]
    assert ended["operation"] == "check_state"


def test_of_several_sessions_the_good_are_ended_and_the_bad_are_told(lab: Terminal, stage: str) -> None:
    session_id = lab("call", "jog", "--on", stage).out.strip()
    done = lab("sessions", "abort", session_id, "ses_00000000000000000000000000", "--json", code=3)
    assert [item["id"] for item in done.json["items"]] == [session_id]
    assert "ses_0000" in done.error["message"]


def test_a_feed_that_is_not_there_is_not_watched(lab: Terminal, stage: str) -> None:
    assert "'nofeed'" in lab("feeds", "watch", "nofeed", "--json", code=3).error["message"]
    assert stage in lab("feeds", "watch", "--agent", "nothere", "--json", code=3).error["because"]
    assert lab("feeds", "list", "--agent", "nothere", "--json").json["items"] == []


def test_what_does_not_fit_names_where_the_parameters_are_told(lab: Terminal, stage: str) -> None:
    error = lab("call", "move", "--on", stage, "-p", "to=far", "--json", code=2).error
    assert f"labwright agents show {stage} move" in error["try"]


def test_a_parameter_without_a_value_is_shown_with_its_own_name(site: Terminal) -> None:
    assert "-p duration=VALUE" in site("call", "move", "--on", "s", "-p", "duration", "--json", code=2).error["try"]


# --- waiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [False, True])
def test_who_stops_waiting_is_told_that_the_session_goes_on(lab: Terminal, stage: str, as_json: bool) -> None:
    with running(lab, "waiting") as _:
        words = ["call", "dispense", "--on", "waiting", "-p", "volume_ml=1", "-p", "seconds=60"]
        with lab.started(*words, *(["--json"] if as_json else [])) as process:
            listed = ("sessions", "list", "--agent", "waiting", "--state", "running", "--json")
            if not as_json:
                until(process, "dispensing")
            wait_until(lambda: lab(*listed).json["items"])
            (session,) = lab(*listed).json["items"]
            done = end(process)
        lab("abort", session["id"])
    assert done.code == 130
    if as_json:
        assert done.error["session"] == session["id"]
    else:
        assert f"{session['id']} goes on: labwright sessions log {session['id']} --follow" in done.err


def test_a_call_whose_agent_died_says_that_it_may_come_back(lab: Terminal) -> None:
    with running(lab, "dying-2") as process:
        words = ("call", "dispense", "--on", "dying-2", "-p", "volume_ml=1", "-p", "seconds=60")
        with lab.started(*words) as calling:
            until(calling, "dispensing")
            process.send_signal(signal.SIGKILL)
            out, _ = calling.communicate(timeout=60)
    assert "may come back with its agent: labwright sessions show ses_" in out


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_an_operation_has_help(lab: Terminal, stage: str) -> None:
    text = lab("agents", "show", stage, "move").out
    assert "It waits until the stage stands still." in text
    rows = {line.split()[0]: line.split()[1:3] for line in text.splitlines() if line.strip()}
    assert rows["to"] == ["number", "required"]
    assert (rows["speed"], rows["mode"]) == (["number", "0.5"], ["string|null", "null"])
    assert lab("agents", "show", stage, "move", "--json").json["params"]["required"] == ["to"]
    assert "'move'" in lab("agents", "show", stage, "mov", "--json", code=3).error["try"]
    lab("call", "move", "--on", stage, "-p", "to=1")
    lines = [line.split() for line in lab("agents", "show", stage).out.splitlines()]
    assert ["session", "operation", "state", "started", "took", "by"] in lines


def test_what_was_too_large_is_no_word_and_a_result_is_shown_once(lab: Terminal, stage: str) -> None:
    done = lab("call", "measure", "--on", stage)
    assert "$left_out" not in done.out + done.err
    done = lab("call", "move", "--on", stage, "-p", "to=7", "--json").json
    (row,) = done["targets"].values()
    assert lab("sessions", "show", row["session"]).out.count('"position": 7') == 1


def test_a_narrow_terminal_breaks_no_id_of_a_session_and_no_name_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    output, written = Output(), io.StringIO()
    monkeypatch.setattr(output, "_data", Console(file=written, width=80))
    session_id = "ses_01M7WJPMHBS9BKANDWCV9CGVFG"
    result = {"result": list(range(500)), "error": None}
    row = {"outcome": "succeeded", "session": session_id, "duration_s": 1.5, **result}
    show_row(Caller(output=output), "an-agent-with-a-long-name", row)
    assert session_id in written.getvalue()
    path = cut_folder("/data/of/this/place/in/2026/01/02/with/many/folders/scan_000123.dat", 35)
    assert (len(path) <= 35, path.startswith("…"), path.endswith("/scan_000123.dat")) == (True, True, True)


def test_advice_names_options_of_the_command_line(lab: Terminal) -> None:
    words = ("call", "dispense", "--on", "slow", "-p", "volume_ml=1", "-p", "seconds=60", "--timeout", "0.2")
    with running(lab, "slow"):
        done = lab(*words, code=1)
        assert "timeout_s" not in done.out
        (row,) = lab(*words, "--json", code=1).json["targets"].values()
    assert "--timeout" in row["error"]["try"]
    assert "timeout_s" not in lab("sessions", "show", row["session"]).out
