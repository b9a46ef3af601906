"""`labwright call` and `labwright run` on fleets: rows, exit codes, refusals, a tree, and a calm Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.conftest import Terminal, command, environment, running, served, wait_until, write_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """Give a served site with two pumps."""
    with served(tmp_path_factory.mktemp("fleet")) as terminal, ExitStack() as stack:
        for name in ("pump-1", "pump-2"):
            stack.enter_context(running(terminal, name, "--label", "kind=pump"))
        yield terminal


def test_a_fleet_has_a_row_for_each_target(site: Terminal) -> None:
    found = site("call", "dispense", "--on", "kind=pump", "-p", "volume_ml=2", "--json").json
    assert (found["operation"], found["selector"], found["succeeded"], found["quorum"]) == (
        "dispense",
        "kind=pump",
        True,
        2,
    )
    assert {name: row["outcome"] for name, row in found["targets"].items()} == dict.fromkeys(
        ("pump-1", "pump-2"), "succeeded"
    )
    shown = site("runs", "show", found["run"], "--json").json
    assert shown["result"]["targets"].keys() == found["targets"].keys()


def test_people_see_a_table_and_where_to_look_next(site: Terminal) -> None:
    done = site("call", "dispense", "--on", "kind=pump", "-p", "volume_ml=2")
    assert "pump-1" in done.out
    assert "succeeded" in done.out
    assert "dispense succeeded: 2 succeeded; 2 had to succeed" in done.err
    assert "next: labwright runs show run_" in done.err


def test_a_fleet_that_fails_exits_with_1_and_a_quorum_forgives(site: Terminal) -> None:
    (site.folder / "targets.yaml").write_text("- {name: pump-3, labels: {kind: pump}}\n")
    words = ("call", "dispense", "--on", "kind=pump", "-p", "volume_ml=1", "--json")
    failed = site(*words, code=1).json
    assert failed["targets"]["pump-3"]["outcome"] == "unreachable"
    assert site(*words, "--quorum", "2").json["succeeded"] is True
    (site.folder / "targets.yaml").unlink()


def test_what_is_started_and_goes_on_is_not_called_a_success(site: Terminal) -> None:
    done = site("call", "dispense", "--on", "kind=pump", "-p", "volume_ml=1", "-p", "seconds=600", "--no-wait")
    assert "started" in done.out
    assert "succeeded" not in done.out + done.err
    assert "dispense was started on 2 of 2 targets, and goes on there" in done.err
    site("abort", "--on", "kind=pump")
    wait_until(lambda: not _running(site))


def test_what_was_only_started_is_no_success_in_json_either(site: Terminal) -> None:
    shown = site("call", "dispense", "--on", "kind=pump", "-p", "volume_ml=1", "--no-wait", "--json").json
    assert {(row["outcome"], row["result"]) for row in shown["targets"].values()} == {("started", None)}
    wait_until(lambda: not _running(site))


def test_a_target_that_is_away_has_its_row_by_its_name_alone(site: Terminal) -> None:
    (site.folder / "targets.yaml").write_text("- {name: pump-7}\n")
    found = site("call", "dispense", "--on", "pump-7", "-p", "volume_ml=1", "--json", code=1).json
    assert found["targets"]["pump-7"]["outcome"] == "unreachable"
    assert "did you mean" not in found["targets"]["pump-7"]["error"]["try"]
    (site.folder / "targets.yaml").unlink()


@pytest.mark.parametrize("more", [(), ("--no-wait",)])
def test_what_no_agent_of_a_fleet_takes_is_refused_before_anything_starts(
    site: Terminal, more: tuple[str, ...]
) -> None:
    (site.folder / "targets.yaml").write_text("- {name: pump-3, labels: {kind: pump}}\n")
    runs = site("runs", "list", "--json").json["items"]
    words = ("--on", "kind=pump", "--json", *more)

    unknown = site("call", "dispence", *words, code=3).error
    wrong = site("call", "dispense", "-p", "volume_ml=much", *words, code=2).error

    assert (unknown["message"], unknown["kind"]) == ("pump-1 has no operation 'dispence'", "not_found")
    assert unknown["because"] == "did you mean 'dispense'?; so it is with all 2 agents that were chosen and are here"
    assert [finding.split(":")[0] for finding in wrong["findings"]] == ["volume_ml"]
    assert wrong["because"] == "so it is with all 2 agents that were chosen and are here"
    assert wrong["try"] == "mend what is named; `labwright agents show pump-1 dispense` tells what the operation takes"
    assert site("runs", "list", "--json").json["items"] == runs
    (site.folder / "targets.yaml").unlink()


def test_what_some_of_a_fleet_take_is_started_there_and_the_others_rows_say_why_not(site: Terminal) -> None:
    with running(site, "stage-1", "--label", "kind=pump", agent="bench.stage:Stage"):
        found = site("call", "dispense", "--on", "kind=pump", "-p", "volume_ml=1", "--quorum", "2", "--json").json

    assert {name: row["outcome"] for name, row in found["targets"].items()} == {
        "pump-1": "succeeded",
        "pump-2": "succeeded",
        "stage-1": "refused",
    }


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--on", "kind=valve"), 3, "nobody is chosen"),
        (("--on", "pump-1|pump-9"), 3, "neither an agent nor a target 'pump-9'"),
        (("--on", "kind=="), 2, "cannot be read"),
        (("--on", "kind=pump", "--quorum", "5"), 2, "cannot be reached"),
        (("--on", "kind=pump", "--waves", "0"), 2, "never ends"),
        (("--on", "kind=pump", "--key", "k"), 2, "--key"),
    ],
)
def test_what_cannot_be_meant_is_refused(site: Terminal, words: tuple[str, ...], code: int, said: str) -> None:
    error = site("call", "dispense", "-p", "volume_ml=1", *words, "--json", code=code).error
    assert said in f"{error['message']} {error['because']}"


def test_ctrl_c_at_a_terminal_offers_to_abort_what_runs(site: Terminal) -> None:
    """Somebody sits at a terminal, presses Ctrl-C, and says yes."""
    words = command("call", "dispense", "--on", "kind=pump", "-p", "volume_ml=1", "-p", "seconds=600")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(site.folder)
        os.execve(words[0], words, {**environment(), "COLUMNS": "120"})
    said = b""
    try:
        wait_until(lambda: len(_running(site)) == 2)
        os.kill(pid, signal.SIGINT)
        while b"abort what" not in said:
            said += os.read(terminal, 4096)
        os.write(terminal, b"y\n")
        while b"is aborted" not in said:
            said += os.read(terminal, 4096)
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    wait_until(lambda: not _running(site))


def test_ctrl_c_in_a_script_leaves_the_call_running_and_says_how_to_end_it(site: Terminal) -> None:
    with site.started("call", "dispense", "--on", "kind=pump", "-p", "volume_ml=1", "-p", "seconds=600") as process:
        wait_until(lambda: len(_running(site)) == 2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    run_id = next(word for word in err.split() if word.startswith("run_"))
    assert f"labwright abort {run_id}" in err
    assert len(_running(site)) == 2
    site("abort", run_id)
    wait_until(lambda: not _running(site))


def _running(site: Terminal) -> list[str]:
    items = site("sessions", "list", "--operation", "dispense", "--state", "running", "--json").json["items"]
    return [item["id"] for item in items]


def test_a_task_is_rolled_out_in_waves_and_shown_as_a_tree(site: Terminal) -> None:
    (site.folder / "targets.yaml").write_text("".join(f"- {{name: b{number}}}\n" for number in range(4)))
    words = ("run", "add", "--on", "name=b*", "-p", "first=1", "-p", "second=2", "--waves", "1,all")
    done = json.loads(site(*words, "--wait", "--json").out)
    parent = next(item for item in done["items"] if item["task"] == "fleet-run")
    assert parent["result"]["succeeded"] is True
    assert len(parent["result"]["targets"]) == 4
    listed = site("runs", "list", "--cause", parent["id"], "--json").json["items"]
    assert {item["parent"] for item in listed} == {parent["id"]}
    assert len(listed) == 4
    heading = next(line for line in site("runs", "show", parent["id"]).out.splitlines() if line.startswith("target "))
    assert heading.split() == ["target", "outcome", "took", "run", "result"]
    assert site("run", "add", "-p", "first=1", "-p", "second=2", "--waves", "1", code=2).err
    (site.folder / "targets.yaml").unlink()


def test_without_serve_agents_answer_all_the_same(tmp_path: Path) -> None:
    terminal = Terminal(write_site(tmp_path / "alone"))
    with terminal.started("serve", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"] is True
        try:
            with running(terminal, "pump-1"), running(terminal, "pump-2"):
                process.kill()
                process.wait(30)  # nats-server outlives it
                found = terminal("call", "dispense", "--on", "pump-1|pump-2", "-p", "volume_ml=1", "--json").json
        finally:
            terminal("serve", "--stop")
    assert found["succeeded"] is True
    assert "run" not in found, "nobody keeps it as one"


@pytest.mark.parametrize("more", [("--serial",), ("--waves", "1,all"), ("--failure-budget", "1"), ("--retries", "2")])
def test_who_does_not_wait_starts_all_at_once(site: Terminal, more: tuple[str, ...]) -> None:
    refused = site("call", "dispense", "--on", "kind=pump", "-p", "volume_ml=1", "--json", "--no-wait", *more, code=2)
    assert "all targets at once" in refused.error["message"]
