"""The view: it says what a fold of the journal says, can be lost at any time, and pages in a stable order."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from labwright.core.errors import UsageError
from labwright.core.model import Cause, ErrorRecord, Event, FileEntry, OperationKind, RunState, SessionState
from labwright.journal.journal import Entry
from labwright.journal.records import (
    AgentCame,
    AgentGone,
    Decided,
    FileRegistered,
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
    ScheduleDefined,
    ScheduleFired,
    SchedulePaused,
    SessionAdopted,
    SessionChanged,
    SessionEnded,
    SessionStarted,
    SetAside,
    UnknownRecord,
)
from labwright.journal.session_fold import decoded
from labwright.journal.state import Present
from labwright.journal.view import View, remove_view
from labwright.plan.durable import ScheduleDefinition
from tests.journal.history import NOW, requested, started

DEFINITION = ScheduleDefinition(task="one", points={"every": 60.0, "after": 60.0})
DECISION = '{"id": "d"}'
ERROR = ErrorRecord(kind="poisoned", message="it crashed")


class Fold:
    """A present and its view, fed by hand."""

    def __init__(self, path: Path) -> None:
        self.view = View(path)
        self.present = Present(recall=self.view)
        self.present.load(self.view.open_runs(), self.view.unreacted_events(), self.view.open_sessions())
        self.present.hand_outs.update(self.view.hand_outs())
        self.present.pools.update(self.view.pools())
        self.present.schedules.update((entry.schedule.name, entry) for entry in self.view.schedules())
        self.present.stays.update((entry.stay.agent, entry) for entry in self.view.newest_stays())

    async def take(self, *entries: Entry) -> None:
        await self.view.write(self.present.take(entries))


def session_started(agent: str = "s1", operation: str = "take_noise", **fields: Any) -> SessionStarted:
    given: dict[str, Any] = {"at": NOW, **fields}
    return SessionStarted(agent=agent, operation=operation, kind=OperationKind.TASK, **given)


def registered(number: int, **fields: Any) -> FileRegistered:
    given: dict[str, Any] = {"path": f"/data/{number}", "agent": "s1", "registered_at": NOW, **fields}
    entry = FileEntry(id=f"f{number}", **given)
    return FileRegistered(file=entry)


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
        session = f"session.s{number % 2}.ses{number % 12}"
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
                (session, session_started(f"s{number % 2}", run=f"r{number % 5}")),
                (session, SessionChanged(data={"step": number})),
                (session, SessionEnded(state=chance.choice(["succeeded", "lost"]), result=number)),
                (session, SessionAdopted()),
                (f"file.f{number % 7}", registered(number % 7, size=number)),
                (f"agent.s{number % 3}", AgentCame(owner=f"own{number % 5}", at=NOW)),
                (f"agent.s{number % 3}", AgentGone(why="silent", at=NOW)),
                (f"schedule.a%2E{number % 3}", ScheduleDefined(definition=DEFINITION, at=NOW)),
                (f"schedule.a%2E{number % 3}", SchedulePaused(at=NOW)),
                (f"schedule.a%2E{number % 3}", ScheduleFired(at=NOW)),
            ],
            k=4,
        )
    return entries(*said)


def everything(fold: Fold) -> dict[str, Any]:
    runs, _ = fold.view.runs({}, limit=1000)
    events, _ = fold.view.events(limit=1000)
    sessions, _ = fold.view.sessions({}, limit=1000)
    return {
        "sessions": [(entry.key, entry.session, entry.first_seq, entry.seq) for entry in sessions],
        "open sessions": sorted(fold.present.sessions),
        "files": fold.view.files({}, limit=1000)[0],
        "stays": fold.view.stays({}, limit=1000)[0],
        "schedules": {entry.schedule.name: entry for entry in fold.view.schedules()},
        "known schedules": fold.present.schedules,
        "newest stays": fold.present.stays,
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
    assert (fold.view.sessions({}), fold.view.files({})) == (([], None), ([], None))
    assert (fold.view.stays({}), fold.view.newest_stays()) == (([], None), [])


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


# --- sessions and files ----------------------------------------------------------------------------------------------


async def many_sessions(tmp_path: Path) -> Fold:
    """Give 30 sessions on three agents, of which each third has ended, each in its way."""
    fold = Fold(tmp_path / "v.sqlite")
    started_all = [
        (
            f"session.s{n % 3}.ses_{n}",
            session_started(
                f"s{n % 3}",
                "stream" if n % 2 else "take_noise",
                run="r1" if n < 4 else None,
                at=NOW + timedelta(seconds=n),
            ),
        )
        for n in range(30)
    ]
    ends = [
        (f"session.s{n % 3}.ses_{n}", SessionEnded.model_validate({"state": state}))
        for n, state in zip(range(0, 30, 3), ["succeeded", "failed", "lost", "aborted", "succeeded"] * 2, strict=True)
    ]
    await fold.take(*entries(*started_all, *ends))
    return fold


async def test_sessions_are_filtered(tmp_path: Path) -> None:
    view = (await many_sessions(tmp_path)).view

    def ids(**filters: str) -> set[int]:
        return {int(entry.session.id[4:]) for entry in view.sessions(filters, limit=100)[0]}

    assert ids(agent="s1") == set(range(1, 30, 3))
    assert ids(operation="stream", agent="s0") == set(range(3, 30, 6))
    assert ids(run="r1") == {0, 1, 2, 3}
    assert ids(state="failed,lost") == {3, 6, 18, 21}
    assert ids(state="running") == {n for n in range(30) if n % 3}
    assert ids(since=(NOW + timedelta(seconds=20)).isoformat()) == set(range(20, 30))


async def test_an_open_session_of_an_agent_that_is_absent_counts_as_lost(tmp_path: Path) -> None:
    view = (await many_sessions(tmp_path)).view

    def ids(state: str, *present: str) -> set[int]:
        page, _ = view.sessions({"state": state}, present=present, limit=100)
        return {int(entry.session.id[4:]) for entry in page}

    assert ids("running", "s1") == set(range(1, 30, 3))
    assert ids("lost", "s1") == {6, 21} | set(range(2, 30, 3))
    assert ids("running", "s1", "s2") == {n for n in range(30) if n % 3}
    assert ids("running") == set()
    assert ids("succeeded,failed", "s1") == {0, 3, 12, 15, 18, 27}


async def test_sessions_are_paged_in_the_order_of_their_beginning(tmp_path: Path) -> None:
    fold = await many_sessions(tmp_path)
    first, cursor = fold.view.sessions({}, limit=20)
    await fold.take(*entries(("session.s1.ses_new", session_started()), first=100))
    second, cursor = fold.view.sessions({}, limit=20, cursor=cursor)
    assert [entry.session.id for entry in [*first, *second]] == [f"ses_{n}" for n in range(29, -1, -1)]
    assert cursor is None


async def test_a_session_is_found_by_its_id_whatever_its_agent(tmp_path: Path) -> None:
    fold = await many_sessions(tmp_path)
    twice = [(f"session.{agent}.ses_x", session_started(decoded(agent))) for agent in ("a%2Eb", "c")]
    await fold.take(*entries(*twice, first=100))
    assert [entry.key for entry in fold.view.sessions_with_id("ses_x")] == ["a%2Eb.ses_x", "c.ses_x"]
    assert sorted(fold.view.session_ids("ses_2")) == sorted(["ses_2", *(f"ses_{n}" for n in range(20, 30))])[:10]


async def test_a_session_that_was_lost_and_is_adopted_is_open_again_after_a_restart(tmp_path: Path) -> None:
    fold = Fold(tmp_path / "v.sqlite")
    await fold.take(*entries(("session.s1.a", session_started()), ("session.s1.a", SessionEnded(state="lost"))))
    assert fold.present.sessions == {}
    await fold.take(*entries(("session.s1.a", SessionAdopted()), first=3))
    fold.view.close()
    again = Fold(tmp_path / "v.sqlite")
    assert again.present.sessions["s1.a"].session.state is SessionState.RUNNING
    assert again.present.sessions["s1.a"].first_seq == 1


async def test_what_is_found_out_of_a_file_later_replaces_what_was_announced(tmp_path: Path) -> None:
    fold = Fold(tmp_path / "v.sqlite")
    await fold.take(*entries(("file.f1", registered(1, kind="tune")), ("file.f2", registered(2, session="ses_1"))))
    await fold.take(*entries(("file.f1", registered(1, kind="tune", size=12, sha256="abc")), first=3))
    assert [file.id for file in fold.view.files({})[0]] == ["f2", "f1"]
    assert fold.view.files({"kind": "tune"})[0][0].size == 12
    assert [file.id for file in fold.view.files({"session": "ses_1"})[0]] == ["f2"]
    heard_elsewhere = registered(2, agent="monitor", note="there is no such file here")
    await fold.take(*entries(("file.f2", heard_elsewhere), first=4))
    await fold.take(*entries(("file.f2", registered(2, session="ses_1", size=7, sha256="def")), first=5))
    await fold.take(*entries(("file.f2", heard_elsewhere), first=6))
    (completed,), _ = fold.view.files({"session": "ses_1"})
    assert (completed.agent, completed.size, completed.sha256, completed.note) == ("s1", 7, "def", None)
    odd = registered(3, path="/data/ä\n'; DROP TABLE files")
    await fold.take(*entries(("file.f3", odd), first=7))
    assert fold.view.files({"path": odd.file.path})[0] == [odd.file]


@pytest.mark.parametrize(
    ("filters", "message"),
    [({"task": "x"}, "sessions cannot be filtered"), ({"state": "pending"}, "no state of a session")],
)
async def test_a_bad_question_about_sessions_is_a_usage_error(
    tmp_path: Path, filters: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        View(tmp_path / "v.sqlite").sessions(filters)
    with pytest.raises(UsageError, match="files cannot be filtered"):
        View(tmp_path / "v.sqlite").files({"state": "new"})


# --- stays -----------------------------------------------------------------------------------------------------------


async def many_stays(tmp_path: Path) -> Fold:
    """Give ten stays of two agents, each of a minute; the last one of each has not ended."""
    fold = Fold(tmp_path / "v.sqlite")
    said: list[tuple[str, Record]] = []
    for number in range(10):
        subject, came = f"agent.s%2E{number % 2}", NOW + timedelta(minutes=number)
        said.append((subject, AgentCame(owner=f"own{number}", host="h", at=came)))
        if number < 8:
            said.append((subject, AgentGone(why="farewell", at=came + timedelta(minutes=1))))
    await fold.take(*entries(*said))
    return fold


async def test_stays_are_paged_newest_first_and_filtered_by_agent(tmp_path: Path) -> None:
    view = (await many_stays(tmp_path)).view
    first, cursor = view.stays({}, limit=6)
    second, end = view.stays({}, limit=6, cursor=cursor)
    assert [entry.owner for entry in [*first, *second]] == [f"own{number}" for number in range(9, -1, -1)]
    assert end is None
    assert [entry.owner for entry in view.stays({"agent": "s.1"})[0]] == ["own9", "own7", "own5", "own3", "own1"]
    with pytest.raises(UsageError, match="stays cannot be filtered"):
        view.stays({"state": "here"})


async def test_stays_since_a_moment_are_those_that_lasted_then_or_began_later(tmp_path: Path) -> None:
    view = (await many_stays(tmp_path)).view
    since = (NOW + timedelta(minutes=6.5)).isoformat()
    assert [entry.owner for entry in view.stays({"since": since})[0]] == ["own9", "own8", "own7", "own6"]


async def test_the_newest_stay_of_each_agent_is_known_after_a_restart(tmp_path: Path) -> None:
    fold = await many_stays(tmp_path)
    fold.view.close()
    again = Fold(tmp_path / "v.sqlite")
    assert {name: (entry.owner, entry.is_open) for name, entry in again.present.stays.items()} == {
        "s.0": ("own8", True),
        "s.1": ("own9", True),
    }
    await again.take(*entries(("agent.s%2E0", AgentGone(why="silent", at=NOW + timedelta(hours=1))), first=100))
    (newest, *_), _ = again.view.stays({"agent": "s.0"})
    assert (newest.stay.why, newest.first_seq, newest.seq) == ("silent", 17, 100)


async def test_a_view_of_an_older_version_is_made_anew(tmp_path: Path) -> None:
    fold = Fold(tmp_path / "v.sqlite")
    await fold.take(*a_history(50, 1))
    fold.view._writer.execute("PRAGMA user_version = 1")
    fold.view.close()
    assert Fold(tmp_path / "v.sqlite").view.seq == 0
