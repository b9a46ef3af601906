"""The host as an agent: what it keeps can be seen and changed like anything that an agent does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

from labwright.agents.agent import Agent
from labwright.agents.operation import operation, process
from labwright.agents.serving import AgentServer, serving
from labwright.agents.session import Session
from labwright.core.errors import ConflictError, UsageError
from labwright.core.logs import get_logger
from labwright.run.engine import locator
from labwright.run.host import LOOK_EVERY_S, Host
from labwright.run.kept_agent import KeptState, Launch
from labwright.run.processes import hold_lock, lock_holder
from labwright.run.settings import Settings
from labwright.run.wanted import Manage, Sources

HOST_LOCK = "host.lock"
SHOW_EVERY_S = 10.0
SETTLED = {Manage.UP: {KeptState.UP, KeptState.WAITING}, Manage.DOWN: {KeptState.DOWN}}

log = get_logger(__name__)


class HostAgent(Agent):
    """Keep the agents of one machine up or down, as its configuration says.

    The process `manager` shows each agent's target, state, pid, restarts and last words, and in `trouble` why one does
    not stay up; the operation `update` has agents up or down until their configuration changes.
    """

    def __init__(self, sources: Sources, launch: Launch) -> None:
        self._changed = asyncio.Event()
        self.host = Host(sources, launch, self._note)

    @process(startup=True)
    async def manager(self, session: Session) -> None:
        """Show what becomes of each agent; to stop this ends no agent."""
        while not session.is_stopping:
            changed = self._changed
            findings, trouble = list(self.host.findings), self.host.trouble()
            session.replace({"agents": self.host.states(), "findings": findings, "trouble": trouble})
            await _first(changed.wait(), session.sleep(SHOW_EVERY_S))

    @operation(timeout=120)
    async def update(
        self,
        session: Session,
        *,
        requests: list[tuple[str, Literal["up", "down"]]] | None = None,
        reload_config: bool = False,
    ) -> dict[str, Any]:
        """Have agents up or down: `requests` are pairs of a name, or `all`, and `up` or `down`.

        That holds until their configuration changes. `reload_config` reads the configuration before. Gives the state of
        all agents, once those that were named are as they should be.
        """
        if reload_config:
            self.host.reload()
        wanted = [(name, Manage(target)) for name, target in requests or ()]
        self.host.update(wanted)
        while not self._is_settled({name for name, _ in wanted}):
            changed = self._changed
            if not await _first(changed.wait(), session.sleep(SHOW_EVERY_S)):
                break
        return self.host.states()

    def _is_settled(self, names: set[str]) -> bool:
        agents = [agent for name, agent in self.host.agents.items() if names & {name, "all"}]
        return all(agent.state in SETTLED.get(agent.target, {agent.state}) for agent in agents)

    def _note(self) -> None:
        """Wake whoever waits for a change; the next change is another event."""
        self._changed.set()
        self._changed = asyncio.Event()


async def serve_host(
    settings: Settings,
    sources: Sources,
    *,
    name: str = "",
    launch: Launch | None = None,
    on_ready: Callable[[Host], None] | None = None,
) -> None:
    """Keep the agents of this machine until told to end by SIGTERM or Ctrl-C; SIGHUP reads the configuration again.

    Raises:
        UsageError: the configuration cannot be read.
        ConflictError: a host of that name, or of that site on this machine, is there already.
    """
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    sources.read()
    async with hosting(settings, sources, name=name, launch=launch) as (host, server):
        loop.add_signal_handler(signal.SIGHUP, host.reload)
        if on_ready is not None:
            on_ready(host)
        await _first(told.wait(), server.failed(), host.watch(), _tell_journal(server))
        log.info("ending", agents=sorted(host.agents))


@asynccontextmanager
async def hosting(
    settings: Settings, sources: Sources, *, name: str = "", launch: Launch | None = None
) -> AsyncGenerator[tuple[Host, AgentServer]]:
    """Keep the agents of this machine, and end them on leaving.

    Raises:
        UsageError: the configuration cannot be read.
        ConflictError: a host of that name, or of that site on this machine, is there already.
    """
    with _only_host(settings.state_dir):
        async with _hosting(settings, sources, name=name, launch=launch) as entered:
            yield entered


@asynccontextmanager
async def _hosting(
    settings: Settings, sources: Sources, *, name: str, launch: Launch | None
) -> AsyncGenerator[tuple[Host, AgentServer]]:
    agent = HostAgent(sources, launch or launch_of(settings))
    async with serving(
        agent,
        name=name or default_name(),
        labels={"host": socket.gethostname()},
        locate=locator(settings),
        state_dir=settings.state_dir,
        site=settings.folder,
    ) as server:
        try:
            agent.host.open()
            yield agent.host, server
        finally:
            await agent.host.stop()


@contextmanager
def _only_host(state_dir: Path) -> Generator[None]:
    """Be the only host of this state folder: two would end and start each other's agents.

    Raises:
        ConflictError: another host is there.
    """
    path = state_dir / HOST_LOCK
    lock = hold_lock(path)
    if lock is None:
        raise ConflictError(
            f"another host keeps the agents of this site here: process {lock_holder(path) or 'unknown'}",
            because=f"it holds {path}",
            cure="end it first, or have it follow the changed labwright.toml, which it does by itself",
        )
    try:
        yield
    finally:
        os.close(lock)


def launch_of(settings: Settings) -> Launch:
    """Tell how the agents of a site are started."""
    if settings.nats.url:
        connection = ["--url", settings.nats.url]
        connection += ["--creds", str(settings.creds_file)] if settings.creds_file else []
    else:
        connection = ["--connection", str(settings.state_dir / "connection.json")]
    return Launch(state_dir=settings.state_dir, folder=settings.folder, connection=tuple(connection))


def default_name() -> str:
    """Name the host after its machine."""
    name = "".join(letter if letter.isalnum() or letter in "_.-" else "-" for letter in socket.gethostname())
    if not name:
        raise UsageError("this machine has no name", cure="choose one with --name")
    return f"host-{name}"


async def _tell_journal(server: AgentServer) -> None:
    """Say in the log when the journal is away, and when it is back, for ever."""
    was_there = True
    while True:
        if server.is_connected != was_there:
            was_there = not was_there
            if was_there:
                log.info("the journal is there again")
            else:
                log.warning(
                    "waiting for the journal; the agents are kept meanwhile, and can be neither seen nor asked",
                    because="no nats-server answers",
                    cure="start it: labwright serve",
                )
        await asyncio.sleep(LOOK_EVERY_S)


async def _first(*awaited: Any) -> Any:
    """Wait until the first of several has come, and give what it gives; the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in awaited]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
