"""An agent that was cut off is gone at once, and only that one: nothing that somebody calls himself is believed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.agents.agent import Agent
from labwright.agents.announcing import Announcing
from labwright.agents.pace import TOLD, UNTOLD
from labwright.agents.serving import connection_name, serving
from labwright.client import AsyncLab
from labwright.journal.connection import Address, Connection
from labwright.journal.journal import Journal
from labwright.journal.presence import are_departures_told, ensure_presence, watch
from labwright.run.departures import COMES_BACK_S, agent_of
from labwright.testing.lab import lab as lab_of
from tests.run.lab_site import write_lab

pytestmark = pytest.mark.timeout(120)
SLOWLY_S = 60
"""How long a word counts in these tests: nobody is gone because of his silence."""
SERVED = """
import asyncio, sys
from pathlib import Path
from labwright.agents.agent import Agent
from labwright.agents.pace import Pace
from labwright.agents.serving import serving
from labwright.journal.connection import Address
Pace.ttl_s = {ttl}
async def main():
    async with serving(Agent, name="victim", locate=lambda: Address.read(Path({file!r})), state_dir=Path({state!r})):
        print("here", flush=True)
        await asyncio.sleep(1000)
asyncio.run(main())
"""


@asynccontextmanager
async def victim(lab: AsyncLab, folder: Path) -> AsyncGenerator[Process]:
    """Serve an agent in a process of its own whose words count for long."""
    file = lab.settings.state_dir / "connection.json"
    code = SERVED.format(ttl=SLOWLY_S, file=str(file), state=str(folder))
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=PIPE)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"here\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def here(lab: AsyncLab, name: str, *, is_here: bool) -> None:
    """Wait until an agent is here, or gone, as it is pushed to anybody who watches."""
    async with asyncio.timeout(30):
        async for seen in watch(lab.journal.connection, "agent"):
            if seen is not None and seen.name == name and (seen.body is not None) is is_here:
                return


async def test_a_killed_one_is_gone_at_once_however_long_its_last_word_counts(tmp_path: Path) -> None:
    write_lab(tmp_path)
    async with lab_of(tmp_path, workers=0) as lab, victim(lab, tmp_path / "agent") as process:
        await here(lab, "victim", is_here=True)
        killed = time.monotonic()
        process.kill()
        await here(lab, "victim", is_here=False)
        assert time.monotonic() - killed < SLOWLY_S / 4
        async with asyncio.timeout(30):
            while not (stays := (await lab.agent_history())["items"]) or stays[0]["why"] is None:
                await asyncio.sleep(0.05)
    assert stays[0]["why"] == "silent"


async def test_who_calls_a_connection_as_an_agent_and_ends_it_does_not_make_that_agent_gone(tmp_path: Path) -> None:
    write_lab(tmp_path)
    seen_gone: set[str] = set()

    async def look(lab: AsyncLab) -> None:
        async for seen in watch(lab.journal.connection, "agent"):
            if seen is not None and seen.body is None:
                seen_gone.add(seen.name)

    async with lab_of(tmp_path, workers=0) as lab, victim(lab, tmp_path / "agent"):
        await here(lab, "victim", is_here=True)
        looking = asyncio.create_task(look(lab))
        locate = lambda: Address.read(lab.settings.state_dir / "connection.json")  # noqa: E731 - as the others give it
        for _ in range(3):
            async with Connection(locate, name=connection_name("victim")):
                pass
        async with serving(Agent, name="other", locate=locate, state_dir=tmp_path / "other"):
            await here(lab, "other", is_here=True)
        await here(lab, "other", is_here=False)
        await asyncio.sleep(2 * COMES_BACK_S)  # by then the one that still answers would have been declared gone
        looking.cancel()
    assert "victim" not in seen_gone


async def test_agents_learn_that_departures_are_told_and_that_they_no_longer_are(tmp_path: Path) -> None:
    write_lab(tmp_path)
    async with lab_of(tmp_path, workers=0) as lab:
        async with asyncio.timeout(10):
            while not await are_departures_told(lab.journal):
                await asyncio.sleep(0.02)
        await ensure_presence(lab.journal)  # as an agent does that finds no stream
        assert await are_departures_told(lab.journal)
        announcing = Announcing(lab.journal, "one", lambda: {"pid": os.getpid()})
        await _spoken(announcing)
        assert announcing._pace.limits is TOLD

        await ensure_presence(lab.journal, tells_departures=False)
        other = Announcing(lab.journal, "two", lambda: {"pid": os.getpid()})
        await _spoken(other)
        assert other._pace.limits is UNTOLD


async def _spoken(announcing: Announcing) -> None:
    running = asyncio.create_task(announcing.run())
    await announcing.may_act.wait()
    async with asyncio.timeout(10):
        while not announcing._pace._seq:  # noted once it has asked
            await asyncio.sleep(0.01)
    await announcing.leave()
    running.cancel()


async def test_a_server_that_was_killed_is_told_again(tmp_path: Path) -> None:
    write_lab(tmp_path)
    async with lab_of(tmp_path, workers=0) as lab:
        status = await lab.ask("status")
        os.kill(status["nats_pid"], 9)
        journal: Journal = lab.journal
        async with asyncio.timeout(60):
            while True:
                with suppress(Exception):
                    if (
                        await are_departures_told(journal)
                        and (await lab.ask("status"))["nats_pid"] != status["nats_pid"]
                    ):
                        break
                await asyncio.sleep(0.05)
        async with victim(lab, tmp_path / "agent") as process:
            await here(lab, "victim", is_here=True)
            process.kill()
            await here(lab, "victim", is_here=False)


@given(st.binary() | st.text().map(str.encode))
def test_what_the_server_tells_may_be_anything(data: bytes) -> None:
    assert agent_of(data) is None


@given(st.text(min_size=1))
def test_the_agent_is_the_one_whose_connection_ended(name: str) -> None:
    assert agent_of(json.dumps({"client": {"name": connection_name(name)}}).encode()) == name
