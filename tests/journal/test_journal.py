"""Appending and reading: fenced, the fate always found out, complete and in order whatever happens to the server."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from labwright.core.errors import ConflictError, EngineError, FateUnknownError, UnreachableError
from labwright.journal.connection import Address, Connection, heeding
from labwright.journal.journal import Entry, Journal, LeftBehindError, MovedError
from labwright.journal.nats_server import EmbeddedServer
from labwright.journal.records import Aborting, PoolChanged
from tests.journal.history import requested


async def count(journal: Journal, subjects: Sequence[str] = ("run.>",), after: int = 0) -> list[Entry]:
    """Follow until everything written so far has come."""
    entries: list[Entry] = []
    async for batch in journal.follow(subjects, after=after):
        if not batch:
            return entries
        entries += batch
    raise AssertionError


@asynccontextmanager
async def stopped(server: EmbeddedServer) -> AsyncGenerator[None]:
    """Have the server stand still."""
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_record_is_read_back_with_its_place(journal: Journal) -> None:
    record = requested()
    seq = await journal.append("run.r", record, after=0)
    assert await journal.read("run.r") == [Entry(seq, "run.r", record)]


async def test_a_stale_writer_learns_what_others_wrote(journal: Journal) -> None:
    first = await journal.append("run.r", requested(), after=0)
    abort = Aborting(by="anna")
    await journal.append("run.r", abort, after=first)
    with pytest.raises(MovedError) as moved:
        await journal.append("run.r", Aborting(by="ben"), after=first)
    assert [entry.record for entry in moved.value.entries] == [abort]
    assert len(await journal.read("run.r")) == 2


async def test_the_same_record_appended_twice_is_there_once(journal: Journal) -> None:
    record = requested()
    seq = await journal.append("run.r", record, after=0)
    assert await journal.append("run.r", record, after=0) == seq
    assert len(await journal.read("run.r")) == 1


async def test_creating_the_same_thing_again_gives_the_existing_one(journal: Journal) -> None:
    seq, is_new = await journal.create("run.r", requested(), content="measure")
    assert is_new
    assert await journal.create("run.r", requested(), content="measure") == (seq, False)


async def test_creating_another_thing_with_the_same_id_is_a_conflict(journal: Journal) -> None:
    await journal.create("run.r", requested(), content="measure")
    with pytest.raises(ConflictError, match="r exists already"):
        await journal.create("run.r", requested("clean"), content="clean")


async def test_a_writer_that_knows_what_is_not_there_is_told(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labwright.journal.journal.STALE_S", 0.2)
    await journal.append("run.r", requested(), after=0)
    async with asyncio.timeout(10):
        with pytest.raises(LeftBehindError):
            await journal.append("run.r", Aborting(), after=17)


async def test_a_record_written_while_the_answer_timed_out_is_found(
    server: EmbeddedServer, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labwright.journal.journal.APPEND_TIMEOUT_S", 0.3)
    record = requested()
    async with stopped(server):
        writing = asyncio.create_task(journal.append("run.r", record, after=0))
        await asyncio.sleep(1)  # long enough for more than one time-out
        assert not writing.done()
    seq = await asyncio.wait_for(writing, 10)
    assert [entry.record for entry in await journal.read("run.r")] == [record]
    assert seq == (await journal.read("run.r"))[0].seq


async def test_a_fate_that_cannot_be_found_out_in_time_is_said(
    server: EmbeddedServer, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labwright.journal.journal.APPEND_TIMEOUT_S", 0.2)
    monkeypatch.setattr("labwright.journal.journal.READ_TIMEOUT_S", 0.2)
    record = requested()
    async with stopped(server):
        with pytest.raises(FateUnknownError, match="not known whether"):
            await journal.append("run.r", record, after=0, patience_s=0.3)
    seq = await journal.append("run.r", record, after=0)
    assert [entry.seq for entry in await journal.read("run.r")] == [seq]


async def test_every_append_has_a_known_fate_while_the_server_is_killed(server: EmbeddedServer) -> None:
    keeping = asyncio.create_task(server.keep())
    locate = lambda: Address.read(server.connection_file)  # noqa: E731 - one expression, used twice
    wrote: dict[str, list[tuple[int, str]]] = {}
    told = asyncio.Event()

    async def write(writer: int) -> None:
        async with Connection(locate) as connection:
            journal = Journal(connection)
            subject, after = f"run.w{writer}", 0
            mine = wrote.setdefault(subject, [])
            while not told.is_set():
                record = requested() if not after else Aborting(by=str(writer))
                after = await journal.append(subject, record, after=after)
                mine.append((after, record.record_id))

    async with Connection(locate) as connection:
        journal = Journal(connection)
        await journal.prepare()
        writers = [asyncio.create_task(write(number)) for number in range(8)]
        for _ in range(6):
            await asyncio.sleep(random.uniform(0.1, 0.3))
            if (pid := server.pid()) is not None:
                os.kill(pid, signal.SIGKILL)
        told.set()
        await asyncio.wait_for(asyncio.gather(*writers), 30)
        for subject, mine in wrote.items():
            assert [(entry.seq, entry.record.record_id) for entry in await journal.read_patiently(subject)] == mine
        assert sum(map(len, wrote.values())) > 100
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


async def test_a_follower_gets_all_in_order_while_the_server_is_killed(server: EmbeddedServer) -> None:
    keeping = asyncio.create_task(server.keep())
    locate = lambda: Address.read(server.connection_file)  # noqa: E731 - one expression, used twice
    told = asyncio.Event()
    seen: list[int] = []
    reached = asyncio.Event()
    last = [1 << 60]

    async def follow() -> None:
        async with Connection(locate) as connection:
            async for batch in Journal(connection).follow(["run.>"], after=0):
                seen.extend(entry.seq for entry in batch)
                if seen and seen[-1] >= last[0]:
                    reached.set()

    async with Connection(locate) as connection:
        journal = Journal(connection)
        await journal.prepare()
        following = asyncio.create_task(follow())
        written: list[int] = []

        async def write() -> None:
            number = 0
            while not told.is_set():
                number += 1
                written.append(await journal.append(f"run.r{number}", requested(), after=0))

        writing = asyncio.create_task(write())
        for _ in range(5):
            await asyncio.sleep(random.uniform(0.1, 0.3))
            if (pid := server.pid()) is not None:
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.3)
        told.set()
        await asyncio.wait_for(writing, 20)
        last[0] = written[-1]
        written.append(await journal.append("run.last", requested(), after=0))
        await asyncio.wait_for(reached.wait(), 20)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
    assert seen == sorted(set(seen))
    assert set(written[:-1]) <= set(seen)
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


async def test_a_follower_tells_when_it_has_caught_up_and_goes_on(journal: Journal) -> None:
    for number in range(1200):
        await journal.append(f"run.r{number}", requested(), after=0)
    sizes: list[int] = []
    total = 0
    async for batch in journal.follow(["run.>"], after=0):
        sizes.append(len(batch))
        total += len(batch)
        if not batch:
            assert total == 1200
            break
    assert await count(journal, after=await journal.last_seq()) == []
    following = aiter(journal.follow(["run.>"], after=await journal.last_seq()))
    assert await anext(following) == []
    await journal.append("run.more", requested(), after=0)
    assert [entry.key for entry in await anext(following)] == ["more"]


async def test_a_follower_takes_only_its_subjects(journal: Journal) -> None:
    await journal.append("run.r", requested(), after=0)
    await journal.append("pool.p", Aborting(), after=0)
    assert [entry.subject for entry in await count(journal, ["pool.>"])] == ["pool.p"]


async def test_an_error_of_the_consumer_stops_the_following(journal: Journal) -> None:
    for number in range(3):
        await journal.append(f"run.r{number}", requested(), after=0)
    handled: list[Entry] = []

    async def consume() -> None:
        async for batch in journal.follow(["run.>"], after=0):
            for entry in batch:
                if len(handled) == 1:
                    raise ValueError("cannot handle this")
                handled.append(entry)

    with pytest.raises(ValueError, match="cannot handle this"):
        await consume()
    assert len(handled) == 1
    assert [entry.key for entry in await count(journal, after=handled[-1].seq)] == ["r1", "r2"]


async def test_a_long_history_of_one_subject_is_read_in_order(journal: Journal) -> None:
    seq = 0
    for number in range(700):
        seq = await journal.append("run.r", Aborting(by=str(number)), after=seq)
    entries = await journal.read("run.r")
    assert [entry.record.by for entry in entries if isinstance(entry.record, Aborting)] == [str(n) for n in range(700)]
    assert [entry.seq for entry in await journal.read("run.r", after=entries[-3].seq)] == [e.seq for e in entries[-2:]]
    assert await journal.read("run.other") == []


async def test_preparing_twice_keeps_the_records(journal: Journal) -> None:
    await journal.append("run.r", requested(), after=0)
    await journal.prepare()
    assert len(await journal.read("run.r")) == 1


async def test_a_server_that_is_too_old_is_refused(tmp_path: Path) -> None:
    """A server of 2.9 talks like any other; only its version tells."""
    from tests.support.old_nats import old_server

    async with old_server() as url:
        with pytest.raises(EngineError, match="too old") as refused:
            async with Connection(lambda: Address(url=url), patience_s=5):
                pass
    assert "2.12" in refused.value.because
    assert refused.value.cure


async def test_an_address_where_nobody_answers_is_unreachable_after_the_patience() -> None:
    with pytest.raises(UnreachableError, match="does not answer"):
        async with Connection(lambda: Address(url="nats://127.0.0.1:1"), patience_s=0.3):
            pass


async def test_a_wrong_password_is_unreachable_after_the_patience(server: EmbeddedServer) -> None:
    url = Address.read(server.connection_file).url
    with pytest.raises(UnreachableError, match="does not answer"):
        async with Connection(lambda: Address(url=url, user="labwright", password="wrong"), patience_s=0.5):
            pass


async def _deaf() -> str:
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    return "answered"


async def test_a_cancellation_that_the_client_swallows_is_heeded() -> None:
    waiting = asyncio.create_task(heeding(_deaf()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_a_cancelled_task_does_to_clean_up_is_not_cancelled_again() -> None:
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(await heeding(asyncio.sleep(0, "flushed")))

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert cleaned == ["flushed"]


async def test_nothing_published_while_disconnected_is_sent_later(server: EmbeddedServer, journal: Journal) -> None:
    pid = server.pid()
    assert pid is not None
    heard: list[bytes] = []

    async def hear(message: object) -> None:
        heard.append(b"")

    await journal.connection.listen("danger", hear)
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        while journal.connection.is_connected:
            await asyncio.sleep(0.01)
    with pytest.raises(UnreachableError):
        await journal.connection.publish("danger", b"move")
    keeping = asyncio.create_task(server.keep())
    async with asyncio.timeout(20):
        await journal.connection.wait_connected()
    await journal.connection.request("$JS.API.INFO")
    assert heard == []
    await journal.connection.publish("danger", b"move")
    async with asyncio.timeout(5):
        while not heard:
            await asyncio.sleep(0.01)
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


async def test_what_is_listened_to_no_more_is_not_heard_after_a_reconnection(
    server: EmbeddedServer, journal: Journal
) -> None:
    heard: list[str] = []

    async def hear(message: object) -> None:
        heard.append("old")

    async def hear_end(message: object) -> None:
        heard.append("end")

    end = await journal.connection.listen("words", hear)
    keeping = asyncio.create_task(server.keep())
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        while journal.connection.generation < 2:
            await asyncio.sleep(0.01)
    await end()
    await journal.connection.listen("words", hear_end)
    await journal.connection.publish("words")
    async with asyncio.timeout(5):
        while "end" not in heard:
            await asyncio.sleep(0.01)
    assert heard == ["end"]
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


async def test_the_oldest_records_of_a_subject_are_read_alone(journal: Journal) -> None:
    seq = 0
    for number in range(5):
        seq = await journal.append("pool.p1", PoolChanged(pool="p1", state="paused", by=str(number)), after=seq)
    assert [entry.record.by for entry in await journal.read("pool.p1", most=2)] == ["0", "1"]  # pyright: ignore[reportAttributeAccessIssue]
    assert len(await journal.read("pool.p1", most=9)) == 5
