"""Kill anything at any moment: every run succeeds once, and no recorded step runs again."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from labwright.client import AsyncLab, connect_async
from labwright.core.errors import UnreachableError
from labwright.core.model import Run, RunState
from labwright.core.request import Request
from labwright.journal.connection import Connection
from labwright.journal.fold import apply
from labwright.journal.follow import follow
from labwright.journal.journal import Journal
from labwright.journal.records import Finished, Record, StepEnded, decode
from labwright.run.engine import locator
from labwright.run.settings import Settings, load_settings
from tests.kill import site
from tests.kill.chaos import Chaos

KILLS = int(os.environ.get("LABWRIGHT_KILLS", "10"))
SEED = int(os.environ.get("LABWRIGHT_SEED", "0")) or int.from_bytes(os.urandom(3))
TARGETS = 25
PAUSE_S = 1.2
EVENTS = 25
REQUESTS = 250
LIMIT_S = 120 + 6 * KILLS

pytestmark = [pytest.mark.kill, pytest.mark.timeout(LIMIT_S + 60)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A site whose steps count themselves."""
    (tmp_path / "hardlab").mkdir()
    (tmp_path / "hardlab" / "__init__.py").write_text(site.PACKAGE)
    (tmp_path / "labwright.toml").write_text(site.SETTINGS)
    (tmp_path / "targets.yaml").write_text(site.targets(TARGETS))
    (tmp_path / "deaths").mkdir()
    (tmp_path / "ledger.txt").touch()
    return load_settings(tmp_path, {})


@pytest.fixture
async def chaos(settings: Settings) -> AsyncGenerator[Chaos]:
    """The lab's processes."""
    chaos = Chaos(settings.folder, SEED)
    await chaos.start()
    yield chaos
    await chaos.close()


async def test_every_run_succeeds_once_while_processes_are_killed(settings: Settings, chaos: Chaos) -> None:
    print(f"LABWRIGHT_SEED={SEED} LABWRIGHT_KILLS={KILLS}")  # noqa: T201 - to repeat a failure
    async with asyncio.timeout(LIMIT_S):
        await _until_connected(settings)
        async with connect_async(settings=settings) as lab:
            await asyncio.gather(chaos.attack(KILLS, PAUSE_S), _emit(lab), _request(lab))
            print(dict(chaos.done))  # noqa: T201 - what was killed
            runs = await _all_ended(settings, EVENTS * 10 + REQUESTS)
    records = await _records(settings)
    assert {run.state for run in runs.values()} == {RunState.SUCCEEDED}
    assert len(runs) == EVENTS * 10 + REQUESTS
    _check_ledger(settings.folder / "ledger.txt", runs, records)


async def _until_connected(settings: Settings) -> None:
    while True:
        try:
            async with connect_async(settings=settings) as lab:
                await lab.ask("status")
                return
        except UnreachableError:
            await asyncio.sleep(0.1)


async def _emit(lab: AsyncLab) -> None:
    for number in range(EVENTS):
        event = {"type": "hard.event", "id": f"e{number}", "data": {"n": number, "targets": TARGETS}}
        while True:
            try:
                await lab.emit(event)
                break
            except (UnreachableError, TimeoutError):
                await asyncio.sleep(0.1)
        await asyncio.sleep(KILLS * PAUSE_S / EVENTS)


async def _request(lab: AsyncLab) -> None:
    for number in range(REQUESTS):
        while True:
            try:
                await lab.request(Request("five", on=f"t{number % TARGETS}", key=f"r{number}"))
                break
            except (UnreachableError, TimeoutError):
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.8 * KILLS * PAUSE_S / REQUESTS)


async def _all_ended(settings: Settings, count: int) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    async with Connection(locator(settings), name="judge") as connection:
        async for entries in Journal(connection).follow(["run.>"], after=0):
            for entry in entries:
                run = apply(runs.get(entry.key), entry.record, entry.key)
                assert run is not None
                runs[entry.key] = run
            if len(runs) >= count and all(run.state.is_final for run in runs.values()):
                return runs
    raise AssertionError


async def _records(settings: Settings) -> list[tuple[str, int, Record]]:
    """Give every record of a run with the moment, in nanoseconds, at which the server stored it."""
    found: list[tuple[str, int, Record]] = []
    async with Connection(locator(settings), name="judge") as connection:
        last = await Journal(connection).last_seq()
        async for messages in follow(connection, "JOURNAL", ["run.>"], after=0):
            found += [(item.subject.partition(".")[2], item.stored_ns, decode(item.data)) for item in messages]
            if not messages or messages[-1].seq >= last:
                return found
    raise AssertionError


def _check_ledger(path: Path, runs: dict[str, Run], records: list[tuple[str, int, Record]]) -> None:
    lines = [line.split() for line in path.read_text().splitlines()]
    recorded: dict[tuple[str, str], int] = {}
    for run_id, stored_ns, record in records:
        if isinstance(record, StepEnded | Finished) and record.step is not None:
            name = {"perform": ("first", "second", "", "fourth", "fifth")[record.step.position]}.get(
                record.step.name, record.step.name
            )
            recorded.setdefault((run_id, name), stored_ns)
    executions: defaultdict[tuple[str, str], int] = defaultdict(int)
    for moment, word, run_id, name, *_ in lines:
        if word == "begin":
            executions[run_id, name] += 1
            assert int(moment) <= recorded[run_id, name], f"{name} of {run_id} began after it was recorded"
    assert set(executions) == {
        (run_id, name) for run_id in runs for name in ("first", "second", "blocking", "fourth", "fifth")
    }
    _check_no_overlap(lines)


def _check_no_overlap(lines: list[list[str]]) -> None:
    """On one target, between a step's begin and its end, nobody else begins while that process lives."""
    busy: dict[str, tuple[str, str, str]] = {}
    for _, word, run_id, name, target, pid in lines:
        if word == "begin":
            holder = busy.get(target)
            assert holder is None or holder[2] != pid or holder[0] == run_id, f"{target}: {holder} and {run_id} {name}"
            busy[target] = (run_id, name, pid)
        else:
            assert busy.get(target) == (run_id, name, pid), f"{target}: {name} of {run_id} ended under {busy[target]}"
            del busy[target]
