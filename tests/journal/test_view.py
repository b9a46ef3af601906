"""The view: it says what a fold of the journal says, can be lost at any time, and pages in a stable order."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from labwright.core.errors import UsageError
from labwright.core.model import Cause, ErrorRecord, Event, RunState
from labwright.journal.journal import Entry
from labwright.journal.records import (
    Decided,
    Finished,
    HandedOut,
    HandOut,
    PlannedRunRecord,
    PoolChanged,
    Received,
    Record,
    Released,
    Reopened,
    Requested,
    SetAside,
    UnknownRecord,
)
from labwright.journal.state import Present
from labwright.journal.view import View, remove_view
from tests.journal.history import NOW, requested, started

DECISION = '{"id": "d"}'
ERROR = ErrorRecord(kind="poisoned", message="it crashed")


class Fold:
    """A present and its view, fed by hand."""

    def __init__(self, path: Path) -> None:
        self.view = View(path)
        self.present = Present(recall_run=self.view.run, recall_event=self.view.event)
        self.present.load(self.view.open_runs(), self.view.unreacted_events())
        self.present.hand_outs.update(self.view.hand_outs())
        self.present.pools.update(self.view.pools())

    async def take(self, *entries: Entry) -> None:
        await self.view.write(self.present.take(entries))


def received(number: int) -> Received:
    return Received(event=Event(id=f"e{number}", source="s", type="t", time=NOW), content="c")


def entries(*said: tuple[str, Record], first: int = 1) -> list[Entry]:
    return [Entry(seq, subject, record) for seq, (subject, record) in enumerate(said, first)]


def a_history(length: int, seed: int) -> list[Entry]:
    """Make records of several runs and events as a lab would write them, in a random order of runs."""
    chance = random.Random(seed)
    said: list[tuple[str, Record]] = []
    for number in range(length):
        run, event = f"run.r{number % 40}", f"event.e{number % 10}"
        said += chance.sample(
            [
                (run, requested(target=f"t{number % 3}")) if number < 40 else (run, started(number, "a")),
                (run, Finished(state=chance.choice(["succeeded", "failed"]))),
                (run, Reopened()),
                (event, received(number % 10)),
                (event, Decided(decision_json=DECISION, runs=(PlannedRunRecord(id=f"r{number % 60}", request=0),))),
                ("pool.default", PoolChanged(pool="default", state=chance.choice(["paused", "active"]))),
                ("dispatch.0", HandedOut(leader="l", items=(HandOut(run=f"r{number % 40}", attempt=1),))),
                (run, UnknownRecord(type="new")),
            ],
            k=2,
        )
    return entries(*said)


def everything(fold: Fold) -> dict[str, Any]:
    runs, _ = fold.view.runs({}, limit=1000)
    events, _ = fold.view.events(limit=1000)
    return {
        "runs": [run.model_dump() for run in runs],
        "events": [(e.key, e.state, e.decision, e.runs, e.error, e.first_seq) for e in events],
        "pools": fold.view.pools(),
        "hand_outs": fold.view.hand_outs(),
        "seq": fold.view.seq,
        "open": sorted(fold.present.runs),
        "unreacted": sorted((e.key, tuple(sorted(e.missing))) for e in fold.present.events.values()),
        "held": fold.present.hand_outs,
    }


@pytest.mark.parametrize("seed", range(5))
async def test_folding_in_batches_with_restarts_is_folding_at_once(tmp_path: Path, seed: int) -> None:
    history = a_history(120, seed)
    at_once = Fold(tmp_path / "one.sqlite")
    await at_once.take(*history)
    chance = random.Random(seed)
    place = 0
    while place < len(history):
        in_parts = Fold(tmp_path / "two.sqlite")
        assert in_parts.view.seq == place
        for _ in range(chance.randint(1, 4)):
            size = chance.randint(1, 25)
            if history[place : place + size]:
                await in_parts.take(*history[place : place + size])
            place = min(place + size, len(history))
        in_parts.view.close()
    reopened = Fold(tmp_path / "two.sqlite")
    assert everything(reopened) == everything(at_once)


async def test_a_deleted_view_is_empty_and_can_be_folded_again(tmp_path: Path) -> None:
    fold = Fold(tmp_path / "v.sqlite")
    history = a_history(50, 1)
    await fold.take(*history)
    before = everything(fold)
    fold.view.close()
    remove_view(tmp_path / "v.sqlite")
    again = Fold(tmp_path / "v.sqlite")
    assert again.view.seq == 0
    await again.take(*history)
    assert everything(again) == before


@pytest.mark.parametrize("damage", [b"no database", b"\0" * 8192])
async def test_a_damaged_view_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    fold = Fold(tmp_path / "v.sqlite")
    await fold.take(*a_history(50, 1))
    fold.view.close()
    path = tmp_path / "v.sqlite"
    path.write_bytes(damage + path.read_bytes()[len(damage) :])
    again = Fold(path)
    assert again.view.seq == 0
    await again.take(*a_history(50, 1))
    assert again.view.runs({})[0]


async def test_a_cleared_view_knows_nothing(tmp_path: Path) -> None:
    fold = Fold(tmp_path / "v.sqlite")
    await fold.take(*a_history(50, 1))
    await fold.view.clear()
    assert (fold.view.seq, fold.view.runs({}), fold.view.pools()) == (0, ([], None), {})


async def many_runs(tmp_path: Path) -> Fold:
    fold = Fold(tmp_path / "v.sqlite")
    await fold.take(
        *entries(
            *(
                (
                    f"run.r{n}",
                    Requested(
                        task="clean" if n % 3 else "measure",
                        target=f"t{n % 4}",
                        cause=Cause(kind="event", id=f"e{n % 5}"),
                        parent="r0" if n in {7, 8} else None,
                        at=NOW + timedelta(seconds=n / 2),
                    ),
                )
                for n in range(60)
            ),
            *((f"run.r{n}", Finished(state="failed")) for n in range(0, 60, 10)),
        )
    )
    return fold


async def test_runs_are_filtered(tmp_path: Path) -> None:
    view = (await many_runs(tmp_path)).view

    def ids(**filters: str) -> set[int]:
        return {int(run.id[1:]) for run in view.runs(filters, limit=100)[0]}

    assert ids(task="measure") == set(range(0, 60, 3))
    assert ids(target="t1") == set(range(1, 60, 4))
    assert ids(state="failed") == set(range(0, 60, 10))
    assert ids(state="failed, pending") == set(range(60))
    assert ids(cause="e2") == set(range(2, 60, 5))
    assert ids(parent="r0") == {7, 8}
    assert ids(task="measure", target="t0", state="pending") == {12, 24, 36, 48}
    assert view.counts() == {"failed": 6, "pending": 54}


@pytest.mark.parametrize("text", ["2026-01-02T03:04:15Z", "2026-01-02T05:04:15+02:00", "2026-01-02T03:04:15"])
async def test_runs_since_a_moment_are_compared_as_moments(tmp_path: Path, text: str) -> None:
    view = (await many_runs(tmp_path)).view
    assert {int(run.id[1:]) for run in view.runs({"since": text}, limit=100)[0]} == set(range(20, 60))


@pytest.mark.parametrize(
    ("filters", "cursor", "message"),
    [
        ({"colour": "red"}, None, "cannot be filtered"),
        ({"state": "sleeping"}, None, "no state of a run"),
        ({"since": "yesterday"}, None, "no moment"),
        ({}, "abc", "no cursor"),
    ],
)
async def test_a_bad_question_is_a_usage_error(
    tmp_path: Path, filters: dict[str, str], cursor: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        View(tmp_path / "v.sqlite").runs(filters, cursor=cursor)


async def test_pages_stay_the_same_while_runs_come_and_change(tmp_path: Path) -> None:
    fold = await many_runs(tmp_path)
    first, cursor = fold.view.runs({}, limit=20)
    await fold.take(
        *entries(("run.new", requested()), ("run.r45", Finished(state="succeeded")), ("run.r5", Reopened()), first=1000)
    )
    second, cursor = fold.view.runs({}, limit=20, cursor=cursor)
    third, cursor = fold.view.runs({}, limit=20, cursor=cursor)
    assert [run.id for run in [*first, *second, *third]] == [f"r{n}" for n in range(59, -1, -1)]
    assert cursor is None


async def test_events_are_paged(tmp_path: Path) -> None:
    fold = Fold(tmp_path / "v.sqlite")
    await fold.take(*entries(*((f"event.k{n}", received(n)) for n in range(30))))
    first, cursor = fold.view.events(limit=20)
    second, cursor = fold.view.events(limit=20, cursor=cursor)
    assert [entry.key for entry in [*first, *second]] == [f"k{n}" for n in range(29, -1, -1)]
    assert cursor is None
    assert [entry.key for entry in fold.view.events_with_id("e3")] == ["k3"]


async def test_the_beginning_of_an_id_finds_the_run(tmp_path: Path) -> None:
    fold = await many_runs(tmp_path)
    assert sorted(fold.view.run_ids("r5")) == sorted(["r5", *(f"r5{n}" for n in range(10))])[:10]


async def test_undecided_events_and_missing_runs_are_found_after_a_restart(tmp_path: Path) -> None:
    fold = Fold(tmp_path / "v.sqlite")
    two = (PlannedRunRecord(id="r1", request=0), PlannedRunRecord(id="r2", request=0))
    await fold.take(
        *entries(
            ("event.new", received(1)),
            ("event.half", received(2)),
            ("event.half", Decided(decision_json=DECISION, runs=two)),
            ("run.r1", requested()),
            ("event.done", received(3)),
            ("event.done", Decided(decision_json=DECISION, runs=two[:1])),
            ("event.aside", received(4)),
            ("event.aside", SetAside(tries=3, error=ERROR)),
        )
    )
    fold.view.close()
    again = Fold(tmp_path / "v.sqlite")
    assert {key: set(entry.missing) for key, entry in again.present.events.items()} == {"new": set(), "half": {"r2"}}
    await again.take(*entries(("run.r2", requested()), ("event.aside", Released()), first=100))
    assert set(again.present.events) == {"new", "aside"}
    assert again.present.events["aside"].error is None


async def test_a_run_that_comes_and_ends_in_the_batch_of_its_decision_is_not_missing(tmp_path: Path) -> None:
    fold = Fold(tmp_path / "v.sqlite")
    await fold.take(
        *entries(
            ("event.e", received(1)),
            ("run.r1", requested()),
            ("run.r1", Finished(state="aborted")),
            ("event.e", Decided(decision_json=DECISION, runs=(PlannedRunRecord(id="r1", request=0),))),
        )
    )
    assert fold.present.events == {}


async def test_a_hand_out_ends_with_its_run(tmp_path: Path) -> None:
    fold = Fold(tmp_path / "v.sqlite")
    out = HandedOut(leader="l", items=(HandOut(run="r1", attempt=1),))
    await fold.take(*entries(("run.r1", requested()), ("dispatch.0", out)))
    assert fold.view.hand_outs() == fold.present.hand_outs == {"r1": (2, out.items[0])}
    await fold.take(*entries(("run.r1", Finished(state="aborted")), ("dispatch.0", out), first=3))
    assert fold.view.hand_outs() == fold.present.hand_outs == {}


async def test_an_ended_run_that_is_reopened_is_open_again_after_a_restart(tmp_path: Path) -> None:
    fold = Fold(tmp_path / "v.sqlite")
    await fold.take(*entries(("run.r1", requested()), ("run.r1", Finished(state="failed"))))
    assert fold.present.runs == {}
    await fold.take(*entries(("run.r1", Reopened()), first=3))
    fold.view.close()
    again = Fold(tmp_path / "v.sqlite")
    assert again.present.runs["r1"].run.state is RunState.PENDING
    assert again.present.runs["r1"].first_seq == 1


async def test_who_needs_fresh_answers_waits_for_them(tmp_path: Path) -> None:
    fold = Fold(tmp_path / "v.sqlite")
    waiting = asyncio.create_task(fold.view.wait_for(1, 5))
    await asyncio.sleep(0)
    await fold.take(*entries(("run.r1", requested())))
    assert await waiting
    assert not await fold.view.wait_for(2, 0.01)
