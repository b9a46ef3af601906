"""A server that says it is nats-server 2.9, as Debian's does: enough of it for a client to see the version."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

INFO = {
    "server_id": "OLD",
    "server_name": "old",
    "version": "2.9.15",
    "proto": 1,
    "headers": True,
    "max_payload": 1048576,
    "jetstream": True,
}


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(f"INFO {json.dumps(INFO)}\r\n".encode())
    while line := await reader.readline():
        if line.startswith(b"PING"):
            writer.write(b"PONG\r\n")
    writer.close()


@asynccontextmanager
async def old_server() -> AsyncGenerator[str]:
    """Give the url of such a server."""
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
