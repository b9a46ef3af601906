"""A lab with three agents under attack: each process is started again when it ends, as a service manager would do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from labwright.journal.nats_server import EmbeddedServer
from labwright.run.settings import load_settings
from labwright.server import stop
from tests.kill.chaos import SERVE
from tests.kill.hold import SESSION

ROOT = Path(__file__).parents[2]
CONTROLLER, FIRST, SECOND = "smurf-1", "machine.1", "machine-2"
CLASSES = {
    CONTROLLER: "labwright.instruments.pysmurf.controller:PysmurfController",
    FIRST: "tests.kill.machine:Machine",
    SECOND: "tests.kill.machine:Machine",
}
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}
KINDS = (
    *(f"{verb} {victim}" for victim in ("agent", "script", "keeper", "nats", "serve") for verb in SIGNALS),
    *(f"kill {victims}" for victims in ("keeper+guard", "agent+nats", "agent+keeper", "agent+keeper+guard")),
)
AGAIN_S = 0.2
TERM_S = 40.0
PLACE = "LABWRIGHT_TEST_PLACE"
"""The variable by which everything that the test has started is found."""


class Service:
    """One process that is kept up."""

    def __init__(self, name: str, command: Sequence[object], log: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.codes: Counter[int] = Counter()
        """How it has ended, and how often."""
        self._command = [str(word) for word in command]
        self._log = log
        self._env = dict(env)
        self._process: Process | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Its process, if it runs."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    def start(self) -> None:
        """Begin to keep it up."""
        self._keeping = asyncio.create_task(self._keep())

    def send(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def end(self, number: int = signal.SIGTERM) -> None:
        """Keep it up no longer, and end it."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        for each in (number, signal.SIGKILL):
            self.send(signal.SIGCONT)
            self.send(each)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TERM_S):
                    if self._process is not None:
                        await self._process.wait()
                    return

    async def _keep(self) -> None:
        while True:
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    cwd=ROOT,
                    env=self._env,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self.codes[await self._process.wait()] += 1
            await asyncio.sleep(AGAIN_S)


class AgentChaos:
    """`serve` with its server, three agents, and what kills them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.place = folder / "place"
        self.agents_state = folder / "agents-state"
        self.settings = load_settings(folder, {})
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.place.mkdir()
        self.env = {**os.environ, PLACE: str(self.place), "OCS_CONFIG_DIR": str(folder)}
        self.serve = Service("serve", [sys.executable, "-c", SERVE, folder], folder / "serve.log", self.env)
        self.agents = {name: self._agent(name) for name in CLASSES}
        self._resuming: set[asyncio.Task[None]] = set()

    def _agent(self, name: str) -> Service:
        connection = EmbeddedServer(self.settings.state_dir).connection_file
        words = ["-m", "labwright.agents.main", CLASSES[name], "--name", name]
        words += ["--state", str(self.agents_state), "--connection", str(connection)]
        if name != CONTROLLER:
            words += ["--arg", f"place={self.place}"]
        return Service(name, [sys.executable, *words], self.folder / f"{name}.log", self.env)

    def start(self) -> None:
        """Start everything."""
        for service in (self.serve, *self.agents.values()):
            service.start()

    async def attack(self, kills: int, pause_s: float) -> None:
        """Attack that many times, a pause apart on average."""
        plan = [kind for _ in range(kills // len(KINDS) + 1) for kind in self.random.sample(KINDS, len(KINDS))]
        for kind in plan[:kills]:
            await asyncio.sleep(self.random.uniform(0.1, 1.9) * pause_s)
            verb, _, victims = kind.partition(" ")
            for pid in self._pids(victims):
                self._send(pid, SIGNALS[verb])
            self.done[kind] += 1
        if self._resuming:
            await asyncio.wait(self._resuming)

    def _send(self, pid: int, number: int) -> None:
        """Send a signal; what is stopped goes on after a while."""
        _send(pid, number)
        if number == signal.SIGSTOP:
            task = asyncio.create_task(_resume(pid, self.random.uniform(0.5, 4)))
            self._resuming.add(task)
            task.add_done_callback(self._resuming.discard)

    def _pids(self, victims: str) -> list[int]:
        """Choose processes; none where there is none of that kind now."""
        found: list[int | None] = []
        for victim in victims.split("+"):
            match victim:
                case "agent":
                    found.append(self.random.choice(list(self.agents.values())).pid)
                case "script":
                    found.append(self._chosen(self.scripts()))
                case "keeper":
                    found.append(self._chosen(self.keepers()))
                case "guard":
                    found += _other_half(found[-1])
                case "nats":
                    found.append(EmbeddedServer(self.settings.state_dir).pid())
                case _:
                    found.append(self.serve.pid)
        return [pid for pid in found if pid is not None]

    def _chosen(self, processes: Sequence[psutil.Process]) -> int | None:
        return self.random.choice(processes).pid if processes else None

    # --- what runs ---------------------------------------------------------------------------------------------------

    def scripts(self) -> list[psutil.Process]:
        """List what runs for sessions, the descendants of scripts included."""
        return [process for process in self._mine() if _session_of(process)]

    def keepers(self) -> list[psutil.Process]:
        """List keepers, their guards, and those that stand ready."""
        return [process for process in self._mine() if _is_keeper(process)]

    def sessions_seen(self) -> set[str]:
        """List the sessions for which a process runs."""
        return {session for process in self.scripts() if (session := _session_of(process))}

    def _mine(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(PLACE) == str(self.place):
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)

    # --- the end -----------------------------------------------------------------------------------------------------

    async def end_agents(self) -> None:
        """End all agents."""
        await asyncio.gather(*(agent.end() for agent in self.agents.values()))

    async def close(self) -> None:
        """End everything, also what a `serve` that was killed has left."""
        for task in self._resuming:
            task.cancel()
        for process in self._mine():
            _send(process.pid, signal.SIGCONT)
        await self.end_agents()
        await self.serve.end()
        await stop(self.settings)

    def left(self) -> list[tuple[int, list[str]]]:
        """List everything that runs."""
        return [(process.pid, _command_of(process)) for process in self._mine()]

    def kill_all(self) -> None:
        """Kill whatever is left."""
        for process in self._mine():
            _send(process.pid, signal.SIGKILL)


def _session_of(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.Error):
        return process.environ().get(SESSION)
    return None


def _command_of(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _is_keeper(process: psutil.Process) -> bool:
    return any(word.endswith("keeper.py") for word in _command_of(process))


def _other_half(pid: int | None) -> list[int]:
    """Give the guard of a keeper, or the keeper of a guard."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return [each.pid for each in (process.parent(), *process.children()) if each is not None and _is_keeper(each)]
    return []


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


async def _resume(pid: int, after_s: float) -> None:
    try:
        await asyncio.sleep(after_s)
    finally:
        _send(pid, signal.SIGCONT)
