"""Real servers for the tests of maintenance: one that speaks HTTP as it is told, and one that shows certificates."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from labwright.maintenance import Authority
from labwright.testing import FakeContext, ManualClock
from tests.support.certificates import certificate

HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@dataclass
class HttpServer:
    """Answers every request with what `reply` holds; empty bytes hang up, None says nothing for ever."""

    port: int = 0
    reply: bytes | None = b""
    healthy_from: int | None = None
    """The number of the request from which on it is healthy."""
    asked: list[str] = field(default_factory=list[str])

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def answers(self, status: int, body: str = "", **headers: str) -> None:
        """Answer with a status from now on."""
        lines = [f"HTTP/1.1 {status} -", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.reply = "\r\n".join([*lines, "", body]).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split(" ")[1])
        if len(self.asked) == self.healthy_from:
            self.answers(200)
        if self.reply is None:
            await reader.read()  # until whoever asks has enough
        else:
            writer.write(self.reply)
        writer.close()


@pytest.fixture
async def web() -> AsyncGenerator[HttpServer]:
    server = HttpServer()
    async with await asyncio.start_server(server.serve, HOST, 0) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server
        await quiet(listening)


async def quiet(server: asyncio.Server) -> None:
    """Wait until no connection is open: Python 3.11 leaves them behind when a server is closed."""
    inside: Any = server
    async with asyncio.timeout(30):
        while inside._active_count:
            await asyncio.sleep(0.005)


@dataclass
class TlsServer:
    """A server that shows the certificate of a folder as it was when it took it up last."""

    folder: Path
    context: ssl.SSLContext = field(default_factory=lambda: ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
    port: int = 0
    taken_up: int = 0

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def take_up(self) -> None:
        """Read the files again."""
        current = self.folder / "current"
        self.context.load_cert_chain(current / "cert.pem", current / "key.pem")
        self.taken_up += 1

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncGenerator[TlsServer]:
        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with await asyncio.start_server(hang_up, HOST, 0, ssl=self.context) as listening:
            self.port = listening.sockets[0].getsockname()[1]
            yield self
            await quiet(listening)


@contextlib.contextmanager
def https_server(folder: Path) -> Generator[int]:
    """Run `https_server.py` on a managed folder, and give its port."""
    words = [sys.executable, str(Path(__file__).with_name("https_server.py")), str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Give an authority of the site, which lasts a year."""
    return Authority.read(*certificate(tmp_path / "authority", "our authority", days=365))


@pytest.fixture
def ctx(now: datetime) -> FakeContext:
    """Give a context whose clock stands at the time of now."""
    return FakeContext(clock=ManualClock(now))


def lay_out(folder: Path, cert: str, key: str, name: str = "first") -> None:
    """Put a certificate into a managed folder, in use."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "cert.pem").write_text(cert)
    (folder / name / "key.pem").write_text(key)
    (folder / name / "key.pem").chmod(0o600)
    (folder / "current").unlink(missing_ok=True)
    (folder / "current").symlink_to(name)
