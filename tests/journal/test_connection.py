"""A connection never gives up, whatever becomes of its client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nats.aio.msg import Msg

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


ODD = {
    "no text": b"PUB ears.\xff 1\r\nx\r\n",
    "other spaces": b"PUB ears.a\x0bb 1\r\nx\r\n",
    "numbers between other spaces": b"PUB ears.a\x0c7\x0c9 1\r\nx\r\n",
    "a status that is no text": b"HPUB ears.h 16 17\r\nNATS/1.0 \xff\xfe\xfd\r\n\r\nx\r\n",
    "headers and other spaces": b"HPUB ears.\x0bh 18 19\r\nNATS/1.0\r\na: b\r\n\r\nx\r\n",
}


@pytest.mark.parametrize("line", ODD.values(), ids=ODD)
async def test_what_others_say_leaves_nobody_deaf(server: EmbeddedServer, connection: Connection, line: bytes) -> None:
    """nats-server takes subjects and headers that the client cannot read; the next message is heard all the same."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(message: Msg) -> None:
        await heard.put(message.data)

    await connection.listen("ears.>", hear)
    async with Connection(lambda: Address.read(server.connection_file), patience_s=30) as other:
        client: Any = other._client
        client._transport.write(line)
        await other.publish("ears.last", b"last")
        async with asyncio.timeout(30):
            while await heard.get() != b"last":
                pass
    assert connection.generation == 1
