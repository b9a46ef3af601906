"""Who is here: one holder for each name, gone as soon as it is silent, made again when the server forgets."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest

from labwright.core.errors import UnreachableError
from labwright.journal.connection import Address, Connection
from labwright.journal.journal import Journal
from labwright.journal.nats_server import EmbeddedServer
from labwright.journal.presence import HeldError, Presence, ProcessIdentity, Seen, ensure_presence, lead, watch


@pytest.fixture
async def journal(journal: Journal) -> Journal:
    await ensure_presence(journal)
    return journal


def presence(journal: Journal, name: str = "w1", **body: object) -> Presence:
    return Presence(journal, "worker", name, lambda: body)


class Watcher:
    """What one who watches has seen."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._came = asyncio.Event()

    async def run(self, connection: Connection, *, only_changes: bool) -> None:
        async for seen in watch(connection, "worker", only_changes=only_changes):
            if seen is not None:
                self.seen.append(seen)
            self._came.set()

    async def until(self, name: str, *, here: bool, seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not (mine := [seen for seen in self.seen if seen.name == name]) or (mine[-1].body is None) == here:
                self._came.clear()
                await self._came.wait()


@asynccontextmanager
async def watching(server: EmbeddedServer, *, only_changes: bool = False) -> AsyncGenerator[Watcher]:
    watcher = Watcher()
    async with Connection(lambda: Address.read(server.connection_file)) as connection:
        task = asyncio.create_task(watcher.run(connection, only_changes=only_changes))
        yield watcher
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def killed_and_kept(server: EmbeddedServer, journal: Journal) -> AsyncGenerator[None]:
    """Kill the server and have it started again."""
    keeping = asyncio.create_task(server.keep())
    generation = journal.connection.generation
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        while journal.connection.generation == generation:
            await asyncio.sleep(0.01)
    yield
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


async def test_a_second_of_a_name_is_refused(journal: Journal) -> None:
    await presence(journal, host="a").announce()
    with pytest.raises(HeldError, match=r"worker\.w1 is held") as held:
        await presence(journal, host="b").announce()
    assert held.value.holder["host"] == "a"


async def test_a_holder_may_announce_itself_again(journal: Journal) -> None:
    """As after an acknowledgement that was lost."""
    mine = presence(journal)
    await mine.announce()
    mine.seq = 0
    await mine.announce()
    await mine.refresh()


async def test_a_holder_whose_own_words_come_late_is_not_taken_for_another(journal: Journal) -> None:
    """As on a machine that is so busy that a word arrives after its sender has given it up."""
    mine = presence(journal)
    await mine.announce(ttl_s=60)
    speak = mine._try
    late: list[int] = []

    async def speak_late(body: dict[str, Any], expected: int, ttl_s: int = 60) -> bool:
        if len(late) < 2:
            late.append(expected)
            await speak(body, expected, ttl_s)
        return await speak(body, expected, ttl_s)

    mine._try = speak_late
    await mine.refresh(ttl_s=60)

    assert len(late) == 2
    await mine.refresh(ttl_s=60)


async def test_one_that_falls_silent_is_seen_as_gone_within_its_time(server: EmbeddedServer, journal: Journal) -> None:
    async with watching(server) as watcher:
        await presence(journal).announce()
        await watcher.until("w1", here=True)
        began = time.monotonic()
        await watcher.until("w1", here=False)
        assert time.monotonic() - began < 3.2  # the server's two seconds and its second of grace


async def test_the_name_of_one_who_has_died_may_be_taken_unless_somebody_has_spoken_since(journal: Journal) -> None:
    first = presence(journal, host="a")
    await first.announce(ttl_s=60)
    with pytest.raises(HeldError) as held:
        await presence(journal, host="b").announce(ttl_s=60)
    await first.refresh(ttl_s=60)
    with pytest.raises(HeldError):
        await presence(journal, host="c").announce(ttl_s=60, instead_of=held.value)
    with pytest.raises(HeldError) as held:
        await presence(journal, host="d").announce(ttl_s=60)
    await presence(journal, host="e").announce(ttl_s=60, instead_of=held.value)
    with pytest.raises(HeldError) as held:
        await first.refresh(ttl_s=60)
    assert held.value.holder["host"] == "e"


async def test_who_follows_changes_alone_hears_of_no_refresh_that_says_nothing_new(
    server: EmbeddedServer, journal: Journal
) -> None:
    said: dict[str, object] = {"mood": "good"}
    mine = Presence(journal, "worker", "w1", lambda: said)
    other = presence(journal, "w2")
    async with watching(server, only_changes=True) as watcher:
        for _ in range(5):
            await mine.refresh(ttl_s=60)
        await watcher.until("w1", here=True)
        said["mood"] = "bad"
        await mine.refresh(ttl_s=60)
        await other.announce(ttl_s=60)
        await watcher.until("w2", here=True)
        await mine.leave()
        await watcher.until("w1", here=False)
        await mine.announce(ttl_s=60)
        await watcher.until("w1", here=True)
    mine_seen = [seen for seen in watcher.seen if seen.name == "w1"]
    assert [seen.body and seen.body["mood"] for seen in mine_seen] == ["good", "bad", None, "bad"]
    assert [seen.said_farewell for seen in mine_seen] == [False, False, True, False]


async def test_one_that_speaks_seldom_counts_for_longer(server: EmbeddedServer, journal: Journal) -> None:
    async with watching(server, only_changes=True) as watcher:
        await presence(journal, "slow").announce(ttl_s=60)
        await presence(journal, "quick").announce()
        await watcher.until("slow", here=True)
        await watcher.until("quick", here=False)
        assert [(seen.name, seen.said_farewell) for seen in watcher.seen if seen.body is None] == [("quick", False)]


async def test_one_that_refreshes_stays(server: EmbeddedServer, journal: Journal) -> None:
    mine = presence(journal)
    await mine.announce()
    async with watching(server) as watcher:
        for _ in range(4):
            await asyncio.sleep(0.9)
            await mine.refresh()
        await watcher.until("w1", here=True)
    assert all(seen.body is not None for seen in watcher.seen)


async def test_a_farewell_is_seen_at_once(server: EmbeddedServer, journal: Journal) -> None:
    async with watching(server) as watcher:
        mine = presence(journal)
        await mine.announce()
        await watcher.until("w1", here=True)
        await mine.leave()
        await watcher.until("w1", here=False, seconds=0.5)
    await presence(journal).announce()


async def test_a_refresh_after_another_took_the_name_is_refused(journal: Journal) -> None:
    mine = presence(journal)
    await mine.announce()
    async with asyncio.timeout(10):
        while True:
            with suppress(HeldError):
                await presence(journal).announce()
                break
            await asyncio.sleep(0.1)
    with pytest.raises(HeldError):
        await mine.refresh()


async def test_it_is_made_again_after_the_server_was_killed(server: EmbeddedServer, journal: Journal) -> None:
    mine = presence(journal)
    await mine.announce()
    for _ in range(20):
        await mine.refresh()
    async with watching(server) as watcher:
        await watcher.until("w1", here=True)
        async with killed_and_kept(server, journal):
            watcher.seen.clear()
            await mine.refresh()
            await watcher.until("w1", here=True)


async def test_one_that_died_while_the_server_was_away_is_seen_as_gone(
    server: EmbeddedServer, journal: Journal
) -> None:
    await presence(journal, "dead").announce()
    alive = presence(journal, "alive")
    await alive.announce()
    async with watching(server) as watcher:
        await watcher.until("dead", here=True)
        await watcher.until("alive", here=True)
        async with killed_and_kept(server, journal):
            waiting = asyncio.create_task(watcher.until("dead", here=False, seconds=15))
            while not waiting.done():
                await alive.refresh()
                await asyncio.sleep(0.5)
            await waiting
        assert not [seen for seen in watcher.seen if seen.name == "alive" and seen.body is None]


async def test_the_lead_is_one_and_passes_on(server: EmbeddedServer, journal: Journal) -> None:
    async with aclosing(lead(journal, "dispatcher", {"name": "first"})) as first:
        assert await anext(first)
        async with Connection(lambda: Address.read(server.connection_file)) as connection:
            second = lead(Journal(connection), "dispatcher", {"name": "second"})
            coming = asyncio.ensure_future(anext(second))
            staying = asyncio.ensure_future(anext(first))
            await asyncio.sleep(2.5)
            assert not coming.done()
            assert not staying.done()
            staying.cancel()  # the first one ends, and says so
            with suppress(asyncio.CancelledError):
                await staying
            assert await asyncio.wait_for(coming, 3)
            await second.aclose()


async def test_a_leader_that_is_not_acknowledged_stops_in_time(server: EmbeddedServer, journal: Journal) -> None:
    async with aclosing(lead(journal, "dispatcher", {"name": "first"})) as first:
        assert await anext(first)
        pid = server.pid()
        assert pid is not None
        await asyncio.sleep(0.2)
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert not await asyncio.wait_for(anext(first), 5)
            assert time.monotonic() - began < 1.9
        finally:
            os.kill(pid, signal.SIGCONT)
        assert await asyncio.wait_for(anext(first), 10)


def test_the_identity_of_a_process_is_read_back() -> None:
    mine = ProcessIdentity.mine()
    assert ProcessIdentity.parse(str(mine)) == mine
    assert mine.is_here
    assert mine.is_alive
    assert not ProcessIdentity(mine.host, mine.pid, "1").is_alive
    assert ProcessIdentity.parse("a worker") is None
    assert issubclass(HeldError, Exception)
    assert not issubclass(HeldError, UnreachableError)
