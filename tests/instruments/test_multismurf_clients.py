"""The MultiSmurf manager from the command line, from Python and through OCS's clients; its docs show what it shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from labwright.client import connect
from labwright.compat import ocs
from labwright.compat.ocs import ERROR, OK, MatchedClient, OCSReply
from tests.cli.conftest import Terminal, here, served, wait_until

pytestmark = pytest.mark.timeout(180)

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "pysmurf.md"
SIMULATED = {"LABWRIGHT_SMURF_RESONATORS": "2", "LABWRIGHT_SMURF_SPEED": "100000"}
SLOTS = (2, 3)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """Give a lab with two controllers on simulated cards and their manager."""
    agents = {
        f"smurf-s{slot}": [
            "labwright.instruments.pysmurf:PysmurfController",
            *("--arg", f"slot={slot}", "--arg", "simulate=true", "--label", "crate=1", "--label", f"slot={slot}"),
        ]
        for slot in SLOTS
    }
    agents["multismurf"] = ["labwright.instruments.pysmurf:MultiSmurfManager"]
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in SIMULATED.items():
            patch.setenv(name, value)
        terminal = stack.enter_context(served(tmp_path_factory.mktemp("multismurf")))
        for name, words in agents.items():
            stack.enter_context(terminal.started("agent", "start", *words, "--name", name))
        wait_until(lambda: agents.keys() <= here(terminal).keys())
        wait_until(lambda: "uxm_setup" in operations(terminal))
        yield terminal


def operations(terminal: Terminal) -> dict[str, dict[str, Any]]:
    shown = terminal("agents", "show", "multismurf", "--json").json
    return {operation["name"]: operation for operation in shown["operations"]}


@pytest.fixture
def client(lab: Terminal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("LABWRIGHT_SITE", str(lab.folder))
    yield MatchedClient("multismurf", args=[])
    ocs._LABS.close()


def test_the_command_line_calls_the_controllers_that_are_named(lab: Terminal) -> None:
    words = ("call", "set_biases", "--on", "multismurf", "-p", "bias=1.5", "--json")

    done = lab(*words, "-p", 'stream_ids=["crate1slot2"]').json
    refused = lab(*words, "-p", 'stream_ids=["crate1slot7"]', code=3)
    partly = lab("call", "set_biases", "--on", "multismurf", "-p", "bias=much", "--json", code=1).json

    row = done["targets"]["multismurf"]
    assert row["outcome"] == "succeeded"
    assert row["result"]["targets"]["crate1slot2"]["outcome"] == "succeeded"
    assert refused.error["message"] == "no controller has the stream_id 'crate1slot7'"
    assert "crate1slot2 refused" in partly["targets"]["multismurf"]["error"]["because"]


def test_what_the_manager_can_do_is_shown_with_its_parameters(lab: Terminal) -> None:
    known = operations(lab)["uxm_setup"]

    assert {"bands", "kwargs", "stream_ids", "quorum", "timeout_s"} <= known["params"]["properties"].keys()
    assert known["timeout"] == 4 * 3600 + 5
    assert "stream_ids" in lab("agents", "show", "multismurf", "uxm_setup").out


def test_client_scripts_for_ocs_command_many_slots(client: Any) -> None:
    started: OCSReply = client.set_biases.start(bias=1.0, stream_ids=["crate1slot2", "crate1slot3"])
    waited: OCSReply = client.set_biases.wait(60)
    refused: OCSReply = client.set_biases.start(bias=1.0, stream_ids=["crate1slot2", "crate1slot2"])
    called: OCSReply = client.set_biases(bias=1.0, stream_ids=["crate1slot3"])

    assert started.status == OK
    assert (waited.status, waited.session["success"]) == (OK, True)
    assert {name: row["success"] for name, row in waited.session["data"].items()} == {
        "crate1slot2": True,
        "crate1slot3": True,
    }
    assert refused.status == ERROR
    assert "crate1slot2 stands twice" in refused.msg
    assert called.session["data"].keys() == {"crate1slot3"}


def test_a_fleet_does_the_same_without_a_manager(lab: Terminal) -> None:
    with connect(lab.folder) as opened:
        outcome = opened.fleet("class=PysmurfController", quorum="100%").set_biases(bias=0.5)

    assert outcome.succeeded
    assert outcome.rows.keys() == {"smurf-s2", "smurf-s3"}


# --- the docs --------------------------------------------------------------------------------------------------------


def block_after(words: str) -> Any:
    """Give the JSON block that follows these words on the page."""
    found = re.search(re.escape(words) + r".*?```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"the page has no block after {words!r}"
    return json.loads(found[1])


def shape(value: Any) -> Any:
    """Give a value's keys and kinds, without what differs from call to call."""
    if isinstance(value, Mapping):
        return {name: shape(each) for name, each in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list):
        return [shape(each) for each in cast("list[Any]", value)]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def test_the_page_shows_what_an_operation_shows(client: Any) -> None:
    reply: OCSReply = client.set_biases(bias=1.0, bgs=[0])

    documented = block_after("The data of an operation")
    assert shape(reply.session["data"]) == shape(documented)
    assert reply.session["data"]["crate1slot3"]["data"] == documented["crate1slot3"]["data"]


def test_the_page_shows_what_the_monitor_shows(client: Any) -> None:
    client.set_biases(bias=1.0, bgs=[0])
    documented = block_after("The data of `monitor`")
    wanted = documented["smurfs"]["smurf-s2"]["sessions"].keys()

    def shown() -> dict[str, Any]:
        return client.monitor.status().session["data"]["smurfs"]

    wait_until(lambda: shown()["smurf-s2"]["sessions"].get("check_state", {}).get("data", {}).get("reachable"))
    wait_until(lambda: shown()["smurf-s2"]["sessions"]["set_biases"]["status"] == "done")
    smurfs = shown()

    assert smurfs.keys() == {"smurf-s2", "smurf-s3"}
    controller = smurfs["smurf-s2"]
    controller["sessions"] = {name: controller["sessions"][name] for name in wanted}
    assert shape(controller) == shape(documented["smurfs"]["smurf-s2"])
