"""Fixtures of the tests of the journal: a real nats-server in a folder of its own, which dies with the test."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from labwright.journal.connection import Address, Connection
from labwright.journal.journal import Journal
from labwright.journal.nats_server import EmbeddedServer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path / "state", tied=True)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def connection(server: EmbeddedServer) -> AsyncGenerator[Connection]:
    async with Connection(lambda: Address.read(server.connection_file), patience_s=10) as connection:
        yield connection


@pytest.fixture
async def journal(connection: Connection) -> Journal:
    journal = Journal(connection)
    await journal.prepare()
    return journal
