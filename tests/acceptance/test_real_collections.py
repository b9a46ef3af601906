"""The real rows of ISPyB, from the command line: what is planned is what runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

PACKAGE = '''\
from labwright import Request, Task, rule, step
from labwright.conditions import event_type, fact

ended = event_type("data_collection.end")


@rule(ended & fact("data_collection_class", "rotation"))
def reduce(scenario):
    """Reduce every rotation."""
    yield Request("reduce", dcid=scenario.dcid, images=scenario.images)


@rule(ended & fact("data_collection_class", "screening"))
def strategy(scenario):
    """Find a strategy for every screening."""
    yield Request("strategy", dcid=scenario.dcid)


@rule(ended & fact("data_collection_class", "grid"))
def find_crystal(scenario):
    """Find the crystal in every grid scan."""
    yield Request("find-crystal", dcid=scenario.dcid, on="hosts=yes")


@step
async def say(ctx, dcid: int, images: int = 0):
    return {"dcid": dcid, "images": images, "event": ctx.event.type}


tasks = [Task(name, steps=[say]) for name in ("reduce", "strategy", "find-crystal")]
first, second, third = tasks
'''
TARGETS = "- {name: h1, labels: {hosts: 'yes'}}\n- {name: h2, labels: {hosts: 'yes'}}\n"
COLLECTIONS = {993677: ("rotation", "reduce"), 1052494: ("screening", "strategy"), 6017405: ("grid", "find-crystal")}


@pytest.fixture
def site(tmp_path: Path, ispyb_url: str) -> Path:
    """A site whose facts are the real rows."""
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "__init__.py").write_text(PACKAGE)
    (tmp_path / "labwright.toml").write_text(f'[site]\npackage = "mylab"\n[facts]\nispyb = "{ispyb_url}"\n')
    (tmp_path / "targets.yaml").write_text(TARGETS)
    return tmp_path


@pytest.fixture
async def served(site: Path) -> AsyncGenerator[Path]:
    """The same site, served."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "labwright", "serve", "--site", str(site), stderr=PIPE, process_group=0
    )
    assert process.stderr is not None
    said = b""
    while b"next" not in said:
        line = await process.stderr.readline()
        assert line, said
        said += line
    reading = asyncio.create_task(process.stderr.read())
    yield site
    process.send_signal(signal.SIGTERM)
    await process.wait()
    await reading
    assert process.returncode == 0


async def labwright(site: Path, *args: str) -> tuple[int, Any]:
    """Run a command with `--json`, and give its exit code and what it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "labwright",
        *args,
        "--site",
        str(site),
        "--json",
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "NO_COLOR": "1"},
    )
    out, _ = await process.communicate()
    return process.returncode or 0, json.loads(out) if out else None


@pytest.mark.parametrize("dcid", list(COLLECTIONS))
async def test_a_plan_of_a_real_collection_says_what_it_is_and_why(site: Path, dcid: int) -> None:
    kind, task = COLLECTIONS[dcid]
    code, plans = await labwright(site, "plan", "--dcid", str(dcid))
    assert code == 0
    start, end = plans["items"]
    assert start["event"]["type"] == "data_collection.start"
    assert start["requests"] == []
    assert end["scenario"]["facts"]["data_collection_class"] == kind
    assert [request["task"] for request in end["requests"]] == [task]
    outcomes = {rule["rule"]: rule for rule in end["rules"]}
    assert sorted(rule["outcome"] for rule in outcomes.values()) == ["fired", "not_matched", "not_matched"]
    for rule in outcomes.values():
        assert rule["reasons"]
        assert all(reason["holds"] in {True, False, "missing"} for reason in rule["reasons"])


async def test_a_collection_that_does_not_exist_is_not_found(site: Path) -> None:
    code, _ = await labwright(site, "plan", "--dcid", "424242")
    assert code == 3


async def test_what_is_planned_is_what_runs(served: Path, tmp_path: Path) -> None:
    for dcid in COLLECTIONS:
        event = {"type": "data_collection.end", "subject": str(dcid), "id": f"end-{dcid}", "source": "test"}
        file = tmp_path / f"{dcid}.json"
        file.write_text(json.dumps(event))
        _, planned = await labwright(served, "plan", str(file))
        code, emitted = await labwright(served, "emit", str(file), "--wait", "--timeout", "60")
        assert code == 0, emitted
        _, listed = await labwright(served, "runs", "list", "--cause", f"end-{dcid}")
        ran = sorted((run["task"], run["params"]["dcid"]) for run in listed["items"])
        wanted = [(request["task"], request["params"]["dcid"]) for request in planned["requests"]]
        assert sorted(set(ran)) == sorted(set(wanted))
        assert len(ran) == (2 if dcid == 6017405 else 1), "a grid scan goes to both hosts"
        assert {run["state"] for run in listed["items"]} == {"succeeded"}
        assert {run["result"]["event"] for run in listed["items"]} == {"data_collection.end"}
        code, story = await labwright(served, "runs", "why", listed["items"][0]["id"])
        assert [item["kind"] for item in story] == ["event", "decision", "request", "run"]
