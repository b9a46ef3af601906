"""An HTTPS server in a process of its own, which reads its certificate again on SIGHUP, as web servers do."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from pathlib import Path


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if await reader.readline():  # else whoever came only looked at the certificate
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    writer.close()


async def main(folder: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)

    def take_up() -> None:
        context.load_cert_chain(folder / "current" / "cert.pem", folder / "current" / "key.pem")

    take_up()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, take_up)
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as listening:
        (folder / "pid").write_text(str(os.getpid()))
        sys.stdout.write(f"{listening.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
