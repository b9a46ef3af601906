"""A connection never gives up, whatever becomes of its client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from labwright.journal.connection import Address, Connection
from labwright.journal.nats_server import EmbeddedServer


@pytest.mark.parametrize("how", ["unsent data", "silence"])
async def test_a_client_that_fails_at_its_end_is_replaced(server: EmbeddedServer, how: str) -> None:
    async with Connection(lambda: Address.read(server.connection_file), patience_s=30) as connection:
        client: Any = connection._client
        if how == "unsent data":
            client._pending, client._pending_data_size = [b"PING\r\n"], 6
            client._transport._io_writer.transport.abort()
        else:  # closed, and nobody was told
            client._reading_task.cancel()
            client._transport.close()
            client._status = client.CLOSED
        async with asyncio.timeout(30):
            while connection.generation < 2 or not connection.is_connected:
                await asyncio.sleep(0.02)
        assert b"jetstream" in (await connection.request("$JS.API.INFO")).data
