"""Fixtures of the tests of agents: a real nats-server, a journal on it, and agents in this process and in others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from labwright.agents.agent import Agent
from labwright.agents.handle import AgentHandle
from labwright.agents.serving import AgentServer, serving
from labwright.journal.connection import Address, Connection
from labwright.journal.journal import Journal
from labwright.journal.logs import ensure_logs
from labwright.journal.nats_server import EmbeddedServer

LONG_S = 30.0
ROOT = Path(__file__).parents[2]


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
    await ensure_logs(journal, days=1, replicas=1)
    return journal


Serve = Callable[..., AbstractAsyncContextManager[AgentServer]]


@pytest.fixture
def serve(server: EmbeddedServer, tmp_path: Path) -> Serve:
    """Serve an agent in this process."""

    def serve(agent: type[Agent] | Agent, **options: Any) -> AbstractAsyncContextManager[AgentServer]:
        given: dict[str, Any] = {"name": "a1", "state_dir": tmp_path / "agents-state", **options}
        return serving(agent, locate=lambda: Address.read(server.connection_file), **given)

    return serve


@pytest.fixture
def handle(journal: Journal) -> Callable[..., AgentHandle]:
    """Give a handle on an agent."""

    def handle(name: str = "a1", **options: Any) -> AgentHandle:
        given: dict[str, Any] = {"sender": "tester@here", **options}
        return AgentHandle(journal, name, **given)

    return handle


@dataclass
class RealAgent:
    """An agent in a process of its own."""

    process: Process
    name: str
    log_file: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def ended(self, limit_s: float = LONG_S) -> int:
        async with asyncio.timeout(limit_s):
            return await self.process.wait()

    @property
    def said(self) -> str:
        return self.log_file.read_text()


Start = Callable[..., Any]


@pytest.fixture
async def start_agent(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Start]:
    """Start an agent as a process; at the end of the test it is killed, and nothing of it may be left."""
    started: list[RealAgent] = []

    async def start(place: str, *args: str, name: str = "a1", state: Path | None = None) -> RealAgent:
        log_file = tmp_path / f"{name}-{len(started)}.log"
        with log_file.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "labwright.agents.main",
                place,
                "--name",
                name,
                "--state",
                str(state or tmp_path / "agents-state"),
                "--connection",
                str(server.connection_file),
                *args,
                cwd=ROOT,
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
            )
        agent = RealAgent(process, name, log_file)
        started.append(agent)
        return agent

    yield start
    for agent in started:
        agent.kill()
        await agent.ended()
