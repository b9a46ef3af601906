"""`plan --dcid` on the real rows of an ISPyB database."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Terminal

CLASSES = {993677: "rotation", 1052494: "screening", 6017405: "grid"}

RULES = """
from labwright import Request, rule
from labwright.conditions import event_type, fact


@rule(event_type("data_collection.end") & fact("data_collection_class", "rotation"))
def reduce(scenario):
    yield Request("reduce", dcid=scenario.dcid)
"""


@pytest.fixture
def collections(site: Terminal, ispyb_url: str) -> Terminal:
    (site.folder / "bench" / "rules.py").write_text(RULES)
    with (site.folder / "labwright.toml").open("a") as file:
        file.write(f'ispyb = "{ispyb_url}"\n')
    text = (site.folder / "labwright.toml").read_text()
    (site.folder / "labwright.toml").write_text(text.replace("[pools.slow]\nconcurrency = 4\n", ""))
    return site


@pytest.mark.mariadb
def test_start_and_end_of_each_collection_are_planned(collections: Terminal) -> None:
    words = [word for dcid in CLASSES for word in ("--dcid", str(dcid))]
    items = collections("plan", *words, "--json").json["items"]
    assert [item["event"]["type"].rpartition(".")[2] for item in items] == ["start", "end"] * 3
    found = {int(item["event"]["subject"]): item["scenario"]["facts"]["data_collection_class"] for item in items}
    assert found == CLASSES
    assert [[request["task"] for request in item["requests"]] for item in items] == [[], ["reduce"], [], [], [], []]


@pytest.mark.mariadb
def test_commands_are_printed_and_an_unknown_collection_is_not_found(collections: Terminal) -> None:
    assert collections("plan", "--dcid", "993677", "--commands").out == "zocalo.go -r reduce 993677\n"
    (line,) = collections("plan", "--dcid", "993677", "--commands", "--json").json["items"]
    assert line["command"] == "zocalo.go -r reduce 993677"
    assert collections("plan", "--dcid", "1", "--json", code=3).error["kind"] == "not_found"
