"""What needs no lab: plan, check, new, doctor, demo, and what is refused before anything starts."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import Terminal, end, until

# --- plan ------------------------------------------------------------------------------------------------------------


def test_plan_gives_the_decision_with_every_rule_and_its_reasons(site: Terminal) -> None:
    decision = site("plan", "-", "--json", given=site.event(type="sample.arrived", subject="42")).json
    outcomes = {rule["rule"]: rule["outcome"] for rule in decision["rules"]}
    assert outcomes["bench.rules:weigh_red"] == "fired"
    assert set(outcomes.values()) == {"fired", "not_matched"}
    assert {"id", "at", "held", "event", "scenario", "rules", "requests"} <= set(decision)
    assert decision["scenario"]["facts"] == {"color": "red", "weight": 3}
    (request,) = decision["requests"]
    assert request["params"] == {"first": 3, "second": 1}
    assert request["rules"] == ["bench.rules:weigh_red"]
    fired = next(rule for rule in decision["rules"] if rule["outcome"] == "fired")
    assert fired["requests"] == [request["id"]]
    assert [reason["holds"] for reason in fired["reasons"]] == [True, True]


def test_plan_tells_people_which_condition_is_missing(site: Terminal) -> None:
    file = site.folder / "event.json"
    file.write_text(site.event(type="sample.arrived", subject="unheard-of"))
    done = site("plan", file)
    assert "missing" in done.out
    assert "a site may print" in done.err, "what the site's code prints is no data"
    assert "a site may print" not in done.out


def test_plan_notes_an_unknown_task_and_exits_with_0(site: Terminal) -> None:
    decision = site("plan", "-", "--json", given='{"type": "sample.lost"}').json
    assert any("no-such-task" in note for note in decision["scenario"]["notes"])
    assert decision["runs"][0]["error"]["kind"] == "not_found"


def test_plan_reports_a_rule_that_raises_with_its_traceback(site: Terminal) -> None:
    decision = site("plan", "-", "--json", given='{"type": "sample.odd"}').json
    (failed,) = [rule for rule in decision["rules"] if rule["outcome"] == "failed"]
    assert "an odd sample" in failed["error"]["message"]
    assert "Traceback" in failed["error"]["traceback"]


def test_plan_survives_a_rule_that_ends_the_process(site: Terminal) -> None:
    assert site("plan", "-", "--json", given='{"type": "poison"}', code=1).error["kind"] == "poisoned"


def test_plan_prints_command_lines(site: Terminal) -> None:
    done = site("plan", "-", "--commands", given=site.event(type="sample.arrived", subject="42"))
    assert done.out.strip() == "labwright run add -p first=3 -p second=1"


def test_plan_needs_an_event_or_collections(site: Terminal) -> None:
    assert site("plan", "--json", code=2).error["try"]
    assert site("plan", "event.json", "--dcid", "5", "--json", code=2).error["kind"] == "usage"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("not json", "not JSON"),
        ('{"type": "a", "specversion": "0.3"}', "specversion"),
        ('{"id": "1"}', "no type"),
        ("[1]", "not a JSON object"),
        ('{"type": "a", "data": NaN}', "NaN"),
    ],
)
def test_an_event_that_is_none_is_a_usage_error(site: Terminal, given: str, said: str) -> None:
    assert said in site("plan", "-", "--json", given=given, code=2).error["message"]


def test_a_file_that_is_not_there_is_a_usage_error(site: Terminal) -> None:
    assert "nowhere.json" in site("plan", "nowhere.json", "--json", code=2).error["message"]


# --- check, new ------------------------------------------------------------------------------------------------------


def test_check_counts_what_a_sound_site_has(site: Terminal) -> None:
    found = site("check", "--json").json
    assert (found["ok"], found["findings"], found["rules"], found["targets"]) == (True, [], 7, 3)


def test_a_target_that_stands_in_the_file_and_comes_from_a_function_is_a_finding(site: Terminal) -> None:
    (site.folder / "bench" / "inventory.py").write_text(
        "from labwright import target_source\n"
        "@target_source(every=300)\n"
        "def inventory():\n"
        "    return [{'name': 'slot-1'}, {'name': 'slot-9', 'labels': {'crate': 9}}]\n"
    )
    (finding,) = site("check", "--json", code=1).json["findings"]
    assert "two targets are named 'slot-1'" in finding
    listed = site("targets", "list", "--on", "crate=9")
    assert "slot-9" in listed.out
    assert "warning: two targets are named 'slot-1'" in listed.err


def test_check_tells_every_finding(site: Terminal) -> None:
    break_site(site)
    found = site("check", "--json", code=1).json
    assert found["ok"] is False
    assert any("targets.yaml" in finding for finding in found["findings"])
    assert any("bench.broken" in finding for finding in found["findings"])
    people = site("check", code=1)
    assert "bench.broken" in people.out


def test_serve_refuses_a_site_that_does_not_load_with_every_finding(site: Terminal) -> None:
    break_site(site)
    error = json.loads(site("serve", "--json", code=1).err.splitlines()[-1])
    assert error["kind"] == "site"
    assert len(error["findings"]) >= 2


def break_site(site: Terminal) -> None:
    (site.folder / "bench" / "broken.py").write_text("import no_such_module\n")
    (site.folder / "targets.yaml").write_text("- {labels: {}}\n")


def test_an_unknown_setting_names_the_nearest(site: Terminal) -> None:
    (site.folder / "labwright.toml").write_text("[site]\npakage = 'bench'\n")
    assert "'package'" in site("check", "--json", code=2).error["try"]


def test_a_new_site_is_sound_and_its_tests_pass(tmp_path: Path) -> None:
    here = Terminal(tmp_path)
    made = here("new", "site", "my-lab", "--json").json
    assert made == {"folder": str(tmp_path / "my-lab"), "package": "my_lab"}
    assert here("check", "--site", "my-lab", "--json").json["ok"] is True
    assert not [path for path in (tmp_path / "my-lab").rglob("*") if "mylab" in path.name]
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / "my-lab",
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout


def test_a_new_site_overwrites_nothing_and_needs_a_name_of_a_package(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    here = Terminal(tmp_path)
    assert here("new", "site", "mine", "--json", code=6).error["kind"] == "conflict"
    assert here("new", "site", "9lives", "--json", code=2).error["kind"] == "usage"
    assert here("new", "site", "json", "--json", code=2).error["because"] == "another Python package has that name"


# --- without a lab ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [("runs", "list"), ("emit", "-"), ("run", "add", "-p", "first=1"), ("pools", "list"), ("reload",), ("worker",)],
)
def test_without_a_lab_what_needs_one_is_unreachable(site: Terminal, words: tuple[str, ...]) -> None:
    error = site(*words, "--json", given='{"type": "a"}', code=5).error
    assert error["kind"] == "unreachable"
    assert "labwright serve" in error["try"]


def test_an_error_tells_people_what_why_and_what_to_try(site: Terminal) -> None:
    lines = site("runs", "list", code=5).err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["error", "because", "try"]


def test_what_the_site_has_is_told_from_its_files(site: Terminal) -> None:
    assert {task["name"] for task in site("tasks", "list", "--json").json["items"]} >= {"add", "needs"}
    assert site("targets", "list", "--on", "slot!=3", "--json").json["items"][1]["name"] == "slot-2"
    assert site("facts", "show", "42", "--json").json == {"subject": "42", "facts": {"color": "red", "weight": 3}}
    assert site("facts", "show", "unheard-of", "--json", code=3).error["kind"] == "not_found"


def test_doctor_works_with_nothing_running(site: Terminal) -> None:
    found = site("doctor", "--json").json
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert found["ok"] is True
    assert states["python"] == states["nats-server"] == "ok"
    assert states["lab"] == "note"


def test_doctor_says_why_a_nats_server_is_refused(site: Terminal) -> None:
    found = site("doctor", "--json", code=1, LABWRIGHT_NATS_SERVER="false").json
    (server,) = [check for check in found["checks"] if check["name"] == "nats-server"]
    assert server["state"] == "wrong"
    assert "does not run" in server["detail"]
    assert server["try"]


def test_stopping_and_rebuilding_are_safe_where_nothing_runs(site: Terminal) -> None:
    assert site("serve", "--stop", "--json").json == {"ended": []}
    assert site("rebuild-view", "--json").json["removed"] is False


# --- demo ------------------------------------------------------------------------------------------------------------


def test_the_demo_closes_the_loop_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = Terminal(tmp_path)("demo", "--once", "--json")
    found = json.loads(done.out)
    assert found["ok"] is True
    assert found["event"]["type"] == "data_collection.end"
    assert any(rule["outcome"] == "fired" for rule in found["decision"]["rules"])
    assert {run["state"] for run in found["runs"]} == {"succeeded"}
    assert [part["kind"] for part in found["why"]][:2] == ["event", "decision"]
    assert found["session"]["outcome"] == "succeeded"
    assert {row["outcome"] for row in found["fleet"]["targets"].values()} == {"succeeded"}
    assert len(found["fleet"]["targets"]) == 4
    assert not Path(found["site"]).exists()
    assert not naming(found["site"])


def test_the_demo_stays_up_until_it_is_interrupted(tmp_path: Path) -> None:
    here = Terminal(tmp_path)
    with here.started("demo", "--site-dir", tmp_path / "kept") as process:
        said = until(process, "Ctrl-C ends it")
        assert f"labwright --site {tmp_path / 'kept'} runs list" in said
        assert here("runs", "list", "--site", tmp_path / "kept", "--json").json["items"]
        agents = {
            agent["name"] for agent in here("agents", "list", "--site", tmp_path / "kept", "--json").json["items"]
        }
        done = end(process)
    assert done.code == 0
    assert "the loop has closed" in done.out
    assert "256 of 256 channels track well" in said
    assert agents >= {"smurf-s2", "smurf-s3", "smurf-s4", "smurf-s5"}
    assert not naming(tmp_path / "kept")
    _check_history(here, tmp_path / "kept")


def _check_history(here: Terminal, site: Path) -> None:
    """After everything was restarted, what the script showed, gave and printed is still there."""
    with here.started("serve", "--site", site) as process:
        until(process, "next, in another terminal")
        listed = here("sessions", "list", "--operation", "run", "--site", site, "--json").json["items"]
        assert [session["state"] for session in listed if session["agent"] == "smurf-s2"] == ["succeeded"]
        session = here("sessions", "show", listed[0]["id"], "--site", site, "--json").json
        assert (session["data"]["tracking"], session["result"]["exit_code"]) == (256, 0)
        log = here("sessions", "log", session["id"], "--site", site, "--json").lines
        assert any(line["text"] == "256 of 256 channels track well" for line in log)
        end(process)


def naming(folder: object) -> list[str]:
    """Give the processes whose command names a folder."""
    found: list[str] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if str(folder) in command:
                found.append(command)
    return found
