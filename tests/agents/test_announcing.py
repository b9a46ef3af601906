"""How an agent takes its name: from a dead holder at once, from a living one never."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Self

import pytest

from labwright.agents.announcing import KIND, PING_S, Announcing, NameTakenError
from labwright.agents.following import agents_here
from labwright.journal.connection import Address, Connection
from labwright.journal.journal import Journal
from labwright.journal.nats_server import EmbeddedServer
from labwright.journal.presence import Presence, ProcessIdentity, ensure_presence, start_of, this_host

LONG_S = 600


@contextlib.asynccontextmanager
async def announcing(journal: Journal, name: str) -> AsyncGenerator[Announcing]:
    made = Announcing(journal, name, lambda: {"name": name, "pid": 2})
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def held_by(journal: Journal, name: str, identity: ProcessIdentity, *, ttl_s: int) -> None:
    await ensure_presence(journal)
    body = {"name": name, "pid": identity.pid, "host": "h", "identity": str(identity)}
    await Presence(journal, KIND, name, lambda: body).announce(ttl_s=ttl_s)


async def test_the_name_of_one_that_was_killed_here_is_taken_over_at_once(journal: Journal) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = ProcessIdentity(this_host(), dead.pid, start_of(dead.pid) or "")
    dead.kill()
    dead.communicate()
    await held_by(journal, "a1", identity, ttl_s=LONG_S)

    async with announcing(journal, "a1") as mine:
        async with asyncio.timeout(30):
            await mine.may_act.wait()
        assert (await agents_here(journal.connection))["a1"]["pid"] == 2


async def test_a_holder_elsewhere_keeps_the_name_as_long_as_its_word_counts(journal: Journal) -> None:
    await held_by(journal, "a1", ProcessIdentity("elsewhere", 1, "1"), ttl_s=LONG_S)

    async with announcing(journal, "a1") as mine:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await mine.may_act.wait()
        assert (await agents_here(journal.connection))["a1"]["pid"] == 1


async def test_one_that_lives_longer_than_its_word_refuses_others_and_is_named(journal: Journal) -> None:
    await held_by(journal, "a1", ProcessIdentity("elsewhere", 1, "1"), ttl_s=LONG_S)
    refused = Announcing(journal, "a1", lambda: {"name": "a1", "pid": 2})
    refused._held_since = asyncio.get_running_loop().time() - LONG_S - 10

    with pytest.raises(NameTakenError) as taken:
        async with asyncio.timeout(30):
            await refused.run()

    assert "process 1 on h" in str(taken.value.because)


class Hole:
    """A way to a server that can swallow all that comes on the connections of now, and ends none of them."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.swallows: set[int] = set()
        self.connections = 0
        self._to = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers += [writer, far_writer]
        for one, other in ((reader, far_writer), (far_reader, writer)):
            self._tasks.add(asyncio.create_task(self._carry(number, one, other)))

    async def _carry(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if number not in self.swallows:
                    writer.write(data)
            writer.close()


async def test_a_connection_that_has_gone_deaf_is_made_anew(
    server: EmbeddedServer, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labwright.agents.announcing.DEAF_S", 1.0)
    await ensure_presence(journal)
    address = Address.read(server.connection_file)
    async with Hole(int(address.url.rpartition(":")[2])) as hole:
        locate = lambda: replace(address, url=f"nats://127.0.0.1:{hole.port}")  # noqa: E731 - as the others give it
        async with Connection(locate, ping_s=PING_S) as connection:
            announcing = Announcing(Journal(connection), "a1", lambda: {"name": "a1"})
            running = asyncio.create_task(announcing.run())
            await announcing.may_act.wait()
            first = connection.generation
            hole.swallows.add(hole.connections)
            async with asyncio.timeout(PING_S - 1):  # sooner than pings would find out
                while connection.generation == first:
                    await asyncio.sleep(0.02)
            running.cancel()
