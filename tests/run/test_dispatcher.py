"""The dispatcher as it hears of runs that others have made: an abort is passed on, and only while it holds."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path

import pytest

from labwright.access.claims import claims_of
from labwright.core.clock import SystemClock
from labwright.core.model import Cause, RunState, WaitingFor, utc_now
from labwright.journal.connection import Address, Connection
from labwright.journal.journal import Entry, Journal
from labwright.journal.nats_server import EmbeddedServer
from labwright.journal.records import (
    Aborting,
    ClaimEntry,
    ClaimsChanged,
    Finished,
    Record,
    Reopened,
    Requested,
    Started,
    Waiting,
)
from labwright.journal.state import Present
from labwright.journal.view import View
from labwright.run.dispatcher import Dispatcher
from labwright.run.settings import load_settings

PARENT = Requested(task="whole", cause=Cause(kind="operator", id="ada"))
CHILD = Requested(task="part", cause=Cause(kind="run", id="run_parent"), parent="run_parent")


class Hearing:
    """A journal, and a dispatcher that is told what is written there when the test says so."""

    def __init__(self, journal: Journal, folder: Path) -> None:
        self.journal = journal
        self._seqs: dict[str, int] = {}
        self.present = Present(recall=View(folder / "view.sqlite"))
        self.dispatcher = Dispatcher(journal, self.present, load_settings(folder, {}), dict, SystemClock())

    async def write(self, *records: tuple[str, Record]) -> None:
        """Write records of runs, and tell the dispatcher of all of them at once."""
        entries: list[Entry] = []
        for run, record in records:
            seq = self._seqs[run] = await self.journal.append(f"run.{run}", record, after=self._seqs.get(run, 0))
            entries.append(Entry(seq=seq, subject=f"run.{run}", record=record))
        self.dispatcher.note(self.present.take(entries))

    async def aborts(self, run: str) -> list[Aborting]:
        """Give the words that a run is to end early."""
        records = [entry.record for entry in await self.journal.read(f"run.{run}")]
        return [record for record in records if isinstance(record, Aborting)]

    @contextlib.asynccontextmanager
    async def leading(self) -> AsyncGenerator[None]:
        """Have it lead, once it has done what it had put off until then."""
        leading = asyncio.create_task(self.dispatcher.lead("here", self._folded))
        try:
            async with asyncio.timeout(30):
                await self.dispatcher.wait_for_workers(0)
                await asyncio.gather(*self.dispatcher._jobs)
            yield
        finally:
            leading.cancel()
            await asyncio.wait({leading})

    async def _folded(self, seq: int) -> None:
        """Nothing else is to be folded."""


@pytest.fixture
async def hearing(tmp_path: Path) -> AsyncGenerator[Hearing]:
    server = EmbeddedServer(tmp_path / "state", tied=True)
    await server.start()
    async with Connection(lambda: Address.read(server.connection_file), patience_s=10) as connection:
        journal = Journal(connection)
        await journal.prepare()
        hearing = Hearing(journal, tmp_path)
        yield hearing
        await hearing.dispatcher.close()
    await server.stop()


async def test_what_an_aborted_run_has_made_is_aborted_once_somebody_leads(hearing: Hearing) -> None:
    await hearing.write(("run_parent", PARENT), ("run_child", CHILD), ("run_parent", Aborting(by="ada")))
    async with hearing.leading():
        assert len(await hearing.aborts("run_child")) == 1


async def test_an_abort_of_the_past_is_not_passed_on_to_what_was_opened_again(hearing: Hearing) -> None:
    """As after a restart, which hears the past again piece by piece and leads only at its end."""
    await hearing.write(("run_parent", PARENT), ("run_child", CHILD), ("run_parent", Aborting(by="ada")))
    await hearing.write(("run_child", Finished(state="aborted")), ("run_parent", Finished(state="aborted")))
    await hearing.write(("run_parent", Reopened()), ("run_child", Reopened()))
    async with hearing.leading():
        assert await hearing.aborts("run_child") == []


async def test_a_later_abort_is_passed_on_to_what_was_opened_alone_before(hearing: Hearing) -> None:
    await hearing.write(
        ("run_parent", PARENT),
        ("run_child", CHILD),
        ("run_child", Finished(state="failed")),
        ("run_parent", Finished(state="failed")),
        ("run_child", Reopened(alone=True)),
        ("run_parent", Reopened()),
        ("run_parent", Aborting(by="ada")),
    )
    assert hearing.present.runs["run_child"].run.alone
    async with hearing.leading():
        assert len(await hearing.aborts("run_child")) == 1


async def test_a_claim_concerns_the_runs_on_its_targets_alone(hearing: Hearing) -> None:
    """A run that waits for others has no news by it, and is not woken to look in vain."""
    until = utc_now() + timedelta(hours=1)
    waiting = WaitingFor(kind="runs", seen=100)
    await hearing.write(
        ("run_parent", PARENT),
        ("run_parent", Started(token=1, attempt=1, worker="w")),
        ("run_parent", Waiting(token=1, until=until, waiting_for=waiting, position=0, number=0)),
        ("run_held", Requested(task="part", target="t1", cause=Cause(kind="operator", id="bob"), by="bob")),
        ("run_free", Requested(task="part", target="t2", cause=Cause(kind="operator", id="bob"), by="bob")),
    )
    noted: list[str] = []
    note = hearing.dispatcher._note_run
    hearing.dispatcher._note_run = lambda entry: (noted.append(entry.run.id), note(entry))[1]
    parent = hearing.present.runs["run_parent"].run
    entry = ClaimEntry(id="clm_1", selector="kind=pump", by="ada", since=until, seconds=60, left_s=60)
    record = ClaimsChanged(did="claimed", claim="clm_1", claims=(entry,))

    claims = claims_of(record, age_s=0, now=time.monotonic())
    hearing.dispatcher.note_claims(claims, {"t1": {"kind": "pump"}})
    assert "the claim of ada" in hearing.dispatcher.explain(hearing.present.runs["run_held"].run)
    hearing.dispatcher.note_claims((), {})

    assert noted == ["run_held", "run_held"]
    assert parent.state is RunState.WAITING
    assert not hearing.dispatcher._kin.has_news(parent)
