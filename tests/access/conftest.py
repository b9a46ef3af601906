"""Fixtures of the tests of access: a real nats-server with identities, an agent, and clients that are no Labwright's.

A `Raw` client is nats-py itself with somebody's key: what is tested is what the wire lets through.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from labwright import Agent, Session, operation, process
from labwright.access.identity import Identities
from labwright.access.reads import pass_on
from labwright.agents.handle import AgentHandle
from labwright.agents.serving import AgentServer, serving
from labwright.core.ids import new_id
from labwright.core.roles import Role
from labwright.journal.connection import Address, Connection
from labwright.journal.journal import Journal
from labwright.journal.logs import ensure_logs
from labwright.journal.nats_server import EmbeddedServer
from labwright.journal.presence import ensure_presence
from labwright.journal.records import Refused

LIMIT_S = 30.0


class Pump(Agent):
    """A pump whose calibration is for experts."""

    @operation
    async def dispense(self, session: Session, volume_ml: float = 1.0) -> float:
        return volume_ml

    @operation(role="expert")
    async def calibrate(self, session: Session) -> str:
        return "calibrated"

    @operation(lock="line")
    async def flush(self, session: Session) -> str:
        return "flushed"

    @operation(role="viewer")
    async def blink(self, session: Session) -> str:
        return "blinked"

    @process
    async def stir(self, session: Session) -> None:
        async for _ in session.every(0.05):
            pass


@dataclass
class Raw:
    """A client of nats-py with somebody's key; `violations` is what the server has refused it."""

    client: Client
    sender: str
    violations: list[str] = field(default_factory=list[str])

    async def command(self, agent: str, name: str | None, sender: str | None = None, **body: Any) -> dict[str, Any]:
        """Send a command and give its reply."""
        subject = f"command.{sender or self.sender}.{agent}.{name or '_'}"
        return json.loads((await self.client.request(subject, json.dumps(body).encode(), timeout=LIMIT_S)).data)

    async def start(self, agent: str, name: str, **body: Any) -> dict[str, Any]:
        """Send the command to start an operation."""
        return await self.command(agent, name, do="start", **{"session": new_id("ses"), **body})

    async def refused(self, sending: Callable[[], Any]) -> str:
        """Send something that the server must refuse, and give what it says."""
        before = len(self.violations)
        await sending()
        await self.client.flush()
        async with asyncio.timeout(LIMIT_S):
            while len(self.violations) == before:
                await asyncio.sleep(0.01)
        return self.violations[-1]


@dataclass
class House:
    """A nats-server with identities."""

    server: EmbeddedServer
    journal: Journal
    identities: Identities
    seeds: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def address(self) -> Address:
        return Address.read(self.server.connection_file)

    def add(self, name: str, role: Role) -> None:
        """Add an identity while the server runs."""
        _, self.seeds[name] = self.identities.add(name, role)
        self.server.reload()

    def located(self, name: str) -> Address:
        """Give the address with which somebody connects."""
        known = next(each for each in self.identities.all() if each.name == name)
        return Address(url=self.address.url, identity=known.sender, seed=self.seeds[name])

    @contextlib.asynccontextmanager
    async def raw(self, name: str, role: Role) -> AsyncGenerator[Raw]:
        """Connect a client of nats-py as somebody, who is added."""
        if name not in self.seeds:
            self.add(name, role)
        sender = f"{role}={name}"
        violations: list[str] = []

        async def noted(error: Exception) -> None:
            violations.append(str(error))

        client = await connected(
            self.address.url, nkeys_seed_str=self.seeds[name], inbox_prefix=f"_INBOX.{sender}".encode(), error_cb=noted
        )
        try:
            yield Raw(client, sender, violations)
        finally:
            await client.close()

    async def refusals(self, count: int = 1) -> list[Refused]:
        """Wait until so many refusals are recorded, and give them."""
        until = time.monotonic() + LIMIT_S
        while True:
            entries = await self.journal.read("audit.>")
            found = [entry.record for entry in entries if isinstance(entry.record, Refused)]
            if len(found) >= count:
                return found
            assert time.monotonic() < until, f"only {len(found)} refusals were recorded"
            await asyncio.sleep(0.02)


async def connected(url: str, **options: Any) -> Client:
    """Connect, or leave nothing behind."""

    async def quiet(_: Exception) -> None:
        pass

    client = Client()
    given: dict[str, Any] = {"allow_reconnect": False, "error_cb": quiet, **options}
    try:
        await client.connect(url, **given)
    except BaseException:
        await client.close()
        raise
    return client


@pytest.fixture
async def house(tmp_path: Path) -> AsyncGenerator[House]:
    server = EmbeddedServer(tmp_path / "state", tied=True)
    await server.start()
    async with Connection(lambda: Address.read(server.connection_file), patience_s=10) as connection:
        journal = Journal(connection)
        await journal.prepare()
        await ensure_logs(journal, days=1, replicas=1)
        await ensure_presence(journal)
        await connection.listen("read.>", functools.partial(pass_on, connection))  # as `serve` does
        yield House(server, journal, Identities(server.state_dir))
    await server.stop()


@pytest.fixture
async def pump(house: House, tmp_path: Path) -> AsyncGenerator[AgentServer]:
    """Serve a pump under the name of pump-1, with the lab's own credential."""
    async with serving(
        Pump, name="pump-1", locate=lambda: house.address, state_dir=tmp_path / "agents", labels={"bench": "2"}
    ) as served:
        yield served


@pytest.fixture
async def heard(house: House) -> AsyncGenerator[list[Msg]]:
    """Hear every command that any agent would."""
    messages: list[Msg] = []

    async def hear(message: Msg) -> None:
        messages.append(message)

    end = await house.journal.connection.listen("command.>", hear)
    yield messages
    await end()


@pytest.fixture
def handle(house: House) -> Callable[[str], AgentHandle]:
    """Give a handle on pump-1 for somebody with the lab's own credential."""

    def handle(sender: str) -> AgentHandle:
        return AgentHandle(house.journal, "pump-1", sender=sender)

    return handle
