"""The embedded server: one per folder, found again, never doubled, never left behind."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import stat
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from labwright.core.errors import EngineError
from labwright.journal.connection import Address, Connection
from labwright.journal.journal import Journal
from labwright.journal.nats_server import EmbeddedServer, find_binary, server_name
from tests.journal.history import requested

STARTER = """
import asyncio, sys
from pathlib import Path
from labwright.journal.nats_server import EmbeddedServer

async def main():
    server = EmbeddedServer(Path(sys.argv[1]), tied=sys.argv[2] == "tied")
    await server.start()
    print(server.pid(), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def start_elsewhere(folder: Path, *, tied: bool = False) -> tuple[asyncio.subprocess.Process, int]:
    """Start a server from a process of its own; give that process, and the server's pid."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTER, str(folder), "tied" if tied else "free", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    return process, int(await asyncio.wait_for(process.stdout.readline(), 20))


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)


async def test_a_second_one_adopts_the_server_of_the_first(server: EmbeddedServer) -> None:
    second = EmbeddedServer(server.state_dir)
    address = await second.start()
    assert second.adopted
    assert second.pid() == server.pid()
    assert await server_name(address) == address.server_name


async def test_a_survivor_of_a_killed_starter_is_adopted(tmp_path: Path) -> None:
    starter, pid = await start_elsewhere(tmp_path)
    starter.kill()
    await starter.wait()
    server = EmbeddedServer(tmp_path)
    await server.start()
    assert (server.adopted, server.pid()) == (True, pid)
    await server.stop()
    await gone(pid)
    assert not server.is_locked()


async def test_an_adopted_server_that_dies_is_started_again(tmp_path: Path) -> None:
    starter, pid = await start_elsewhere(tmp_path)
    starter.kill()
    await starter.wait()
    server = EmbeddedServer(tmp_path, tied=True)
    await server.start()
    keeping = asyncio.create_task(server.keep())
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        while server.pid() in {pid, None}:
            await asyncio.sleep(0.02)
    async with Connection(lambda: Address.read(server.connection_file), patience_s=10) as connection:
        await Journal(connection).prepare()
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
    await server.stop()


async def test_a_tied_server_is_gone_when_its_starter_was_killed(tmp_path: Path) -> None:
    starter, pid = await start_elsewhere(tmp_path, tied=True)
    starter.kill()
    await starter.wait()
    await gone(pid)
    async with asyncio.timeout(10):  # the files of a process that ends are closed a moment after it is shown as ended
        while EmbeddedServer(tmp_path).is_locked():
            await asyncio.sleep(0.01)


async def test_a_stranger_that_holds_the_lock_is_named_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labwright.journal.nats_server.ADOPTION_S", 0.5)
    descriptor = os.open(tmp_path / "nats.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(EngineError, match=r"another process holds .*nats\.lock") as refused:
            await EmbeddedServer(tmp_path).start()
    finally:
        os.close(descriptor)
    assert f"pid {os.getpid()}" in refused.value.because
    assert "nothing was killed" in refused.value.cure


async def test_a_lock_that_becomes_free_while_waiting_is_taken(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "nats.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    server = EmbeddedServer(tmp_path, tied=True)
    starting = asyncio.create_task(server.start())
    await asyncio.sleep(0.2)
    os.close(descriptor)
    await asyncio.wait_for(starting, 10)
    assert not server.adopted
    await server.stop()


async def test_a_server_that_answers_with_another_name_is_not_adopted(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labwright.journal.nats_server.ADOPTION_S", 0.3)
    said = json.loads(server.connection_file.read_text())
    server.connection_file.write_text(json.dumps(said | {"server_name": "somebody else"}))
    with pytest.raises(EngineError, match="another process holds") as refused:
        await EmbeddedServer(server.state_dir).start()
    assert "calls itself" in refused.value.because
    assert server.pid() is not None


async def test_a_port_that_is_taken_is_replaced_and_clients_find_the_new_one(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, tied=True)
    before = await server.start()
    port = int(before.url.rpartition(":")[2])
    async with Connection(lambda: Address.read(server.connection_file)) as connection:
        journal = Journal(connection)
        await journal.prepare()
        await journal.append("run.r", requested(), after=0)
        await server.stop()
        with socket.socket() as squatter:
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            squatter.bind(("127.0.0.1", port))
            squatter.listen()
            again = EmbeddedServer(tmp_path, tied=True)
            after = await again.start()
            assert after.url != before.url
            async with asyncio.timeout(20):
                while connection.generation < 2:
                    await asyncio.sleep(0.01)
            assert len(await journal.read("run.r")) == 1
            await again.stop()


async def test_port_and_password_are_kept(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, tied=True)
    before = await server.start()
    await server.stop()
    after = await server.start()
    await server.stop()
    assert (after.url, after.password) == (before.url, before.password)
    assert after.server_name != before.server_name


async def test_an_older_server_than_the_last_is_refused(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, tied=True)
    (tmp_path / "nats.version").write_text("99.1.0")
    with pytest.raises(EngineError, match=r"older than the 99\.1"):
        await server.start()
    assert not server.is_locked()


async def test_before_a_newer_server_writes_the_journal_is_copied(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, tied=True)
    await server.start()
    async with Connection(lambda: Address.read(server.connection_file)) as connection:
        await Journal(connection).prepare()
    await server.stop()
    version = (tmp_path / "nats.version").read_text()
    (tmp_path / "nats.version").write_text("2.1.0")
    await server.start()
    await server.stop()
    assert [path.name for path in tmp_path.glob("journal-before-*")] == [
        f"journal-before-{'.'.join(version.split('.')[:2])}"
    ]


async def test_a_killed_server_is_started_again_with_all_its_records(server: EmbeddedServer, journal: Journal) -> None:
    keeping = asyncio.create_task(server.keep())
    await journal.append("run.r", requested(), after=0)
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        while journal.connection.generation < 2:
            await asyncio.sleep(0.01)
    assert len(await journal.read("run.r")) == 1
    assert server.pid() != pid
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


async def test_credentials_are_readable_by_their_owner_only(server: EmbeddedServer) -> None:
    for name in ("connection.json", "nats.conf", "nats.lock"):
        assert stat.S_IMODE((server.state_dir / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(server.state_dir.stat().st_mode) == 0o700
    assert not list(server.state_dir.glob("*.part"))


async def test_without_the_password_nobody_gets_in(server: EmbeddedServer) -> None:
    import nats.errors

    url = Address.read(server.connection_file).url
    with pytest.raises(nats.errors.Error):
        await server_name(Address(url=url))


async def test_a_folder_with_letters_of_any_script_works(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / 'meßplatz "zwei" 実験', tied=True)
    address = await server.start()
    assert await server_name(address) == address.server_name
    await server.stop()


async def test_stopping_leaves_nothing_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    pid = server.pid()
    assert pid is not None
    await server.stop()
    await gone(pid)
    assert not server.is_locked()
    assert "Unknown child process" not in caplog.text
    await server.stop()


async def test_a_server_that_ends_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("this is no folder")
    server = EmbeddedServer(tmp_path, tied=True)
    with pytest.raises(EngineError, match="nats-server does not start") as failed:
        await server.start()
    assert "nats.log" in failed.value.cure
    assert failed.value.because != "it wrote no log"
    assert not server.is_locked()


def fake_binary(folder: Path, text: str) -> Path:
    path = folder / "nats-server"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path


def test_the_named_binary_is_used(tmp_path: Path) -> None:
    path = fake_binary(tmp_path, "echo 'nats-server: v2.14.3-beta'")
    assert find_binary({"LABWRIGHT_NATS_SERVER": str(path)}) == (path, (2, 14, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo 'nats-server: v2.9.15'", "2.9.15, which is too old"),
        ("echo 'hello'", "does not tell its version"),
        ("exit 3", "does not run"),
    ],
)
def test_a_named_binary_that_will_not_do_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = fake_binary(tmp_path, text)
    with pytest.raises(EngineError, match=message) as refused:
        find_binary({"LABWRIGHT_NATS_SERVER": str(path)})
    assert refused.value.cure


def test_a_named_binary_that_is_not_there_is_refused() -> None:
    with pytest.raises(EngineError, match="LABWRIGHT_NATS_SERVER names"):
        find_binary({"LABWRIGHT_NATS_SERVER": "/nowhere/nats-server"})
