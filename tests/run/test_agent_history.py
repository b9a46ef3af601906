"""Who was here when: written once by whoever leads, of what is seen and what is found, never with invented times."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from labwright.client import AsyncLab
from labwright.journal.connection import Address, Connection
from labwright.journal.journal import Journal
from labwright.journal.nats_server import EmbeddedServer
from labwright.journal.presence import OWNER, Presence, ensure_presence
from labwright.journal.records import AgentCame, AgentGone
from labwright.journal.session_fold import encoded
from labwright.journal.stay_fold import StayEntry, apply_stay, stay_subject
from labwright.run.agent_history import AgentHistory, next_record
from labwright.run.agents_here import AgentsHere, Sighting
from labwright.run.folding import Folding
from labwright.testing.lab import lab as lab_of
from tests.journal.history import NOW
from tests.run.lab_site import write_lab

pytestmark = pytest.mark.timeout(120)
SAID = {
    OWNER: "own_1",
    "class": "Pump",
    "labels": {"crate": "1"},
    "host": "h",
    "pid": 7,
    "since": "2026-01-02T03:04:00Z",
}
LONG_S = 600


# --- what a sighting adds --------------------------------------------------------------------------------------------


def stay(owner: str, *, is_open: bool = True) -> StayEntry:
    entry = apply_stay(None, AgentCame(owner=owner, at=NOW), subject="agent.a", seq=1)
    assert entry is not None
    if is_open:
        return entry
    gone = apply_stay(entry, AgentGone(owner=owner, why="silent", at=NOW), subject="agent.a", seq=2)
    assert gone is not None
    return gone


def sighting(said: Mapping[str, Any] | None, **fields: Any) -> Sighting:
    return Sighting(agent="a", said=None if said is None else dict(said), at=NOW + timedelta(minutes=1), **fields)


def test_one_that_comes_is_written_with_what_it_says_of_itself() -> None:
    for newest in (None, stay("own_1", is_open=False)):
        record = next_record(sighting(SAID), newest)
        assert isinstance(record, AgentCame)
        assert (record.owner, record.class_name, record.labels, record.is_found) == (
            "own_1",
            "Pump",
            {"crate": "1"},
            False,
        )
        assert record.at == NOW + timedelta(minutes=1)


def test_one_that_is_known_to_be_here_adds_nothing() -> None:
    assert next_record(sighting(SAID), stay("own_1")) is None
    assert next_record(sighting(SAID, is_found=True), stay("own_1")) is None


def test_one_that_is_known_to_be_away_adds_nothing() -> None:
    assert next_record(sighting(None), None) is None
    assert next_record(sighting(None), stay("own_1", is_open=False)) is None


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (sighting(None, said_farewell=True), "farewell"),
        (sighting(None), "silent"),
        (sighting(None, is_found=True), "unseen"),
        (sighting(SAID), "replaced"),
        (sighting(SAID, is_found=True), "unseen"),
    ],
)
def test_how_one_went_is_said_as_far_as_it_was_seen(seen: Sighting, why: str) -> None:
    record = next_record(seen, stay("own_0"))
    assert isinstance(record, AgentGone)
    assert (record.owner, record.why) == ("own_0", why)


def test_one_that_describes_itself_oddly_still_came() -> None:
    record = next_record(sighting({**SAID, "pid": "many", "labels": 5}), None)
    assert isinstance(record, AgentCame)
    assert (record.owner, record.pid, record.labels) == ("own_1", None, {})


# --- written by a lab ------------------------------------------------------------------------------------------------


def presence(journal: Journal, name: str) -> Presence:
    body = {"name": name, "class": "Pump", "labels": {"crate": "1"}, "pid": os.getpid()}
    return Presence(journal, "agent", encoded(name), lambda: body)


async def told(lab: AsyncLab, name: str, *whys: str | None) -> list[dict[str, Any]]:
    """Wait until the stays of an agent ended in these ways, newest first."""
    stays: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(60):
            while [each["why"] for each in stays] != list(whys):
                await asyncio.sleep(0.05)
                stays = (await lab.agent_history(name))["items"]
    except TimeoutError:
        raise AssertionError(f"{name} was here otherwise: {stays}") from None
    return stays


async def records_of(journal: Journal, name: str) -> list[str]:
    return [entry.record.type for entry in await journal.read(stay_subject(name))]


async def test_who_comes_goes_and_comes_back_has_a_stay_for_each_time(tmp_path: Path) -> None:
    write_lab(tmp_path)
    async with lab_of(tmp_path, workers=0) as lab:
        await presence(lab.journal, "bench.0").announce(ttl_s=LONG_S)
        await told(lab, "bench.0", None)  # from here on somebody looks
        mine = presence(lab.journal, "bench.1")
        await mine.announce(ttl_s=LONG_S)
        (stay,) = await told(lab, "bench.1", None)
        await mine.leave()
        await told(lab, "bench.1", "farewell")
        await mine.announce(ttl_s=LONG_S)
        await told(lab, "bench.1", None, "farewell")
        away = await lab.agents_away()
        history = await lab.agent_history(since=stay["came_at"])
    assert (stay["agent"], stay["class"], stay["labels"], stay["pid"]) == (
        "bench.1",
        "Pump",
        {"crate": "1"},
        os.getpid(),
    )
    assert (stay["is_found"], stay["gone_at"]) == (False, None)
    assert away == []
    mine_alone = [each for each in history["items"] if each["agent"] == "bench.1"]
    assert [each["why"] for each in mine_alone] == [None, "farewell"]


@asynccontextmanager
async def engine(folder: Path) -> AsyncGenerator[Journal]:
    """Have a nats-server that outlives labs, with a journal and the stream of presence."""
    server = EmbeddedServer(folder, tied=True)
    await server.start()
    try:
        async with Connection(lambda: Address.read(server.connection_file), patience_s=30) as connection:
            journal = Journal(connection)
            await journal.prepare()
            await ensure_presence(journal)
            yield journal
    finally:
        await server.stop()


@asynccontextmanager
async def leading(journal: Journal, view: Path) -> AsyncGenerator[Folding]:
    """Have somebody lead, and write who is here; gives what is folded."""
    folding, here = Folding(journal, view), AgentsHere()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(folding.run())]
        await folding.caught_up.wait()
        history = AgentHistory(journal, folding, here)
        tasks += [group.create_task(here.follow(journal.connection)), group.create_task(history.lead())]
        yield folding
        for task in tasks:
            task.cancel()
    folding.view.close()


async def until_folded(folding: Folding, name: str, *, is_open: bool) -> StayEntry:
    async with asyncio.timeout(60):
        while (entry := folding.present.stays.get(name)) is None or entry.is_open is not is_open:
            await asyncio.sleep(0.02)
    return entry


async def test_what_came_and_went_while_nobody_looked_is_found_and_said_to_be(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal:
        stays, goes, comes = (presence(journal, name) for name in ("stays", "goes", "comes"))
        for each in (stays, goes):
            await each.announce(ttl_s=LONG_S)
        async with leading(journal, tmp_path / "view.sqlite") as folding:
            for name in ("stays", "goes"):
                assert (await until_folded(folding, name, is_open=True)).stay.is_found
        await goes.leave()
        await comes.announce(ttl_s=LONG_S)

        async with leading(journal, tmp_path / "view.sqlite") as folding:
            came = await until_folded(folding, "comes", is_open=True)
            gone = await until_folded(folding, "goes", is_open=False)

        assert (came.stay.is_found, gone.stay.why) == (True, "unseen")
        assert await records_of(journal, "stays") == ["agent_came"]
        assert await records_of(journal, "goes") == ["agent_came", "agent_gone"]
        assert await records_of(journal, "comes") == ["agent_came"]


async def test_two_who_both_believe_that_they_lead_write_nothing_twice(tmp_path: Path) -> None:
    names = [f"a{number}" for number in range(20)]
    async with engine(tmp_path) as journal:
        agents = [presence(journal, name) for name in names]
        async with leading(journal, tmp_path / "one.sqlite") as one, leading(journal, tmp_path / "two.sqlite") as two:
            for agent in agents:
                await agent.announce(ttl_s=LONG_S)
            for name in names:
                for folding in (one, two):
                    await until_folded(folding, name, is_open=True)
            for agent in agents:
                await agent.leave()
            for name in names:
                for folding in (one, two):
                    await until_folded(folding, name, is_open=False)
        for name in names:
            assert await records_of(journal, name) == ["agent_came", "agent_gone"]


async def test_a_rebuilt_view_tells_the_same_and_what_has_left_the_journal_is_found_anew(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal:
        mine = presence(journal, "old")
        await mine.announce(ttl_s=LONG_S)
        async with leading(journal, tmp_path / "view.sqlite") as folding:
            first = await until_folded(folding, "old", is_open=True)
        async with leading(journal, tmp_path / "rebuilt.sqlite") as folding:
            assert await until_folded(folding, "old", is_open=True) == first
        await journal.api("STREAM.PURGE.JOURNAL", {"filter": stay_subject("old")})  # as the retention does

        async with leading(journal, tmp_path / "view.sqlite") as folding:  # a view that still knows it
            await mine.leave()
            await until_folded(folding, "old", is_open=False)
        assert await records_of(journal, "old") == ["agent_gone"]

        await journal.api("STREAM.PURGE.JOURNAL", {"filter": stay_subject("old")})
        await mine.announce(ttl_s=LONG_S)
        async with leading(journal, tmp_path / "again.sqlite") as folding:  # a view that knows nothing any more
            assert (await until_folded(folding, "old", is_open=True)).stay.is_found
