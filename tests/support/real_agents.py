"""Real agents for tests: each a process of its own on a real nats-server, spoken to by its commands on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from labwright.agents.wire import command_subject
from labwright.core.ids import new_id
from labwright.journal.connection import Address, Connection
from labwright.journal.follow import follow
from labwright.journal.journal import Journal
from labwright.journal.logs import ensure_logs
from labwright.journal.nats_server import EmbeddedServer
from tests.support.waiting import until

LIMIT_S = 30.0
SENDER = "tester@here"
FINAL = {"succeeded", "failed", "aborted", "lost"}


class RefusedError(Exception):
    """A command that was not followed: `kind` of the error and everything of the reply."""

    def __init__(self, reply: Mapping[str, Any]) -> None:
        self.error: dict[str, Any] = reply["error"]
        self.kind: str = self.error["kind"]
        self.findings: list[str] = reply.get("findings", [])
        self.session: Any = reply.get("session")
        super().__init__(f"{self.kind}: {self.error['message']}: {self.error.get('because')}: {self.findings}")


def processes_naming(text: str) -> list[psutil.Process]:
    """Give the processes, zombies excluded, whose command line or environment names a text."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            words = [*process.cmdline(), *process.environ().values()]
            if any(text in word for word in words):
                found.append(process)
    return found


async def nothing_left(text: str) -> None:
    """Wait until no process names a text any more, and tell which ones do."""
    try:
        await until(lambda: not processes_naming(text), "")
    except AssertionError:
        left = [
            (process.pid, process.ppid(), process.status(), process.cmdline()) for process in processes_naming(text)
        ]
        raise AssertionError(f"processes are left: {left}") from None


class RealAgent:
    """One agent's process, which may be killed and started again."""

    def __init__(
        self,
        house: House,
        agent_class: str,
        name: str,
        *,
        arguments: Mapping[str, object],
        env: Mapping[str, str],
        labels: Mapping[str, str],
    ) -> None:
        self.name = name
        self.folder = house.folder / "agents" / name
        self.log_file = house.folder / f"{name}.log"
        self._house = house
        self._words = [agent_class, "--name", name, "--state", str(house.folder)]
        self._words += ["--connection", str(house.server.connection_file)]
        for key, value in arguments.items():
            text = value if isinstance(value, str) else json.dumps(value)
            self._words += ["--arg", f"{key}={text}"]
        for key, value in labels.items():
            self._words += ["--label", f"{key}={value}"]
        self._env = {**os.environ, **env}
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> RealAgent:
        """Start its process and wait until it answers."""
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "labwright.agents.main", *self._words),
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        async with asyncio.timeout(LIMIT_S):
            while True:
                assert self._process.returncode is None, self.log_file.read_text()
                with contextlib.suppress(Exception):
                    await self.ask("ping", patience_s=0.5)
                    return self
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """End it with SIGKILL."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> None:
        """End it with SIGTERM, as docker does."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: int) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
            async with asyncio.timeout(LIMIT_S):
                await self._process.wait()

    async def close(self) -> None:
        """Leave nothing of it behind, its scripts included."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(15):
                    await self._process.wait()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        for process in processes_naming(str(self.folder)):
            with contextlib.suppress(psutil.Error):
                process.kill()

    # --- commands ----------------------------------------------------------------------------------------------------

    async def ask(
        self, do: str, operation: str | None = None, *, patience_s: float = LIMIT_S, **fields: Any
    ) -> dict[str, Any]:
        """Send a command and give its reply; RefusedError where it was not followed."""
        subject = command_subject(SENDER, self.name, operation)
        body = json.dumps({"do": do, **fields}).encode()
        answer = await self._house.connection.request(subject, body, timeout_s=patience_s)
        reply: dict[str, Any] = json.loads(answer.data)
        if "error" in reply:
            raise RefusedError(reply)
        return reply

    async def begin(self, operation: str, *, timeout: float | None = None, **params: Any) -> dict[str, Any]:
        """Start an operation; gives its session as it begins."""
        more = {} if timeout is None else {"timeout_s": timeout}
        reply = await self.ask("start", operation, session=new_id("ses"), params=params, **more)
        return reply["session"]

    async def ended(self, session: Mapping[str, Any]) -> dict[str, Any]:
        """Wait for a session's end and give it."""
        reply = await self.ask("wait", session=session["id"])
        assert reply["session"]["state"] in FINAL, reply
        return reply["session"]

    async def call(self, operation: str, *, timeout: float | None = None, **params: Any) -> dict[str, Any]:
        """Start an operation and wait for its end."""
        return await self.ended(await self.begin(operation, timeout=timeout, **params))

    async def status(self, session: Mapping[str, Any]) -> dict[str, Any]:
        """Give a session as it stands."""
        return (await self.ask("status", session=session["id"]))["session"]

    async def shown(
        self, session: Mapping[str, Any], condition: Callable[[dict[str, Any]], Any], what: str
    ) -> dict[str, Any]:
        """Wait until a session shows something."""
        known: dict[str, Any] = {}
        try:
            async with asyncio.timeout(LIMIT_S):
                while not condition(known := await self.status(session)):
                    assert known["state"] not in FINAL, known
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"the session did not show {what}: {known}") from None
        return known

    async def log(self, session: Mapping[str, Any], *, until_text: str = "") -> list[dict[str, Any]]:
        """Give the lines in a session's log, once one of them holds a text."""
        lines: list[dict[str, Any]] = []
        async with asyncio.timeout(LIMIT_S):
            async for batch in follow(self._house.connection, "LOGS", [f"log.session.{session['id']}"], after=0):
                lines += [json.loads(line) for message in batch for line in message.data.decode().splitlines()]
                if any(until_text in line["text"] for line in lines):
                    return lines
        raise AssertionError(f"{until_text!r} is not in the log: {lines}")


class House:
    """A nats-server in a folder, and the agents that a test starts on it."""

    def __init__(self, folder: Path, server: EmbeddedServer, connection: Connection) -> None:
        self.folder = folder
        self.server = server
        self.connection = connection
        self._agents: list[RealAgent] = []

    async def agent(
        self,
        agent_class: str,
        name: str = "smurf-1",
        *,
        arguments: Mapping[str, object] | None = None,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> RealAgent:
        """Start an agent, which is ended with the test."""
        agent = RealAgent(self, agent_class, name, arguments=arguments or {}, env=env or {}, labels=labels or {})
        self._agents.append(agent)
        return await agent.start()

    async def close(self) -> None:
        """End all agents."""
        for agent in self._agents:
            await agent.close()


@contextlib.asynccontextmanager
async def house(folder: Path) -> AsyncGenerator[House]:
    """Have a nats-server and a place for agents; leaves nothing behind."""
    server = EmbeddedServer(folder, tied=True)
    await server.start()
    try:
        async with Connection(lambda: Address.read(server.connection_file), patience_s=10) as connection:
            journal = Journal(connection)
            await journal.prepare()
            await ensure_logs(journal, days=1, replicas=1)
            made = House(folder, server, connection)
            try:
                yield made
            finally:
                await made.close()
    finally:
        await server.stop()
