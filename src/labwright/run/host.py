"""The host of a machine: keeps its agents as the configuration says, and follows when the configuration changes.

It starts real processes and ends all of them when it is told to end. When it is killed they go on, and the next host
finds them by their locks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from labwright.core.errors import ParameterError, UsageError
from labwright.core.logs import get_logger
from labwright.run.kept_agent import KeptAgent, Launch
from labwright.run.wanted import Manage, Sources, Wanted, WantedAgent, described

LOOK_EVERY_S = 1.0
EVERY_AGENT = "all"

log = get_logger(__name__)


class Host:
    """Keeps the agents of one machine; `on_change` is called whenever the state of one is another."""

    def __init__(self, sources: Sources, launch: Launch, on_change: Callable[[], None]) -> None:
        self.findings: tuple[str, ...] = ()
        self._sources = sources
        self._launch = launch
        self._on_change = on_change
        self._agents: dict[str, KeptAgent] = {}
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._fingerprint: tuple[object, ...] = ()

    @property
    def agents(self) -> Mapping[str, KeptAgent]:
        """The agents that the configuration names."""
        return self._agents

    def states(self) -> dict[str, Any]:
        """Describe all agents for people, in the order of their names."""
        return {name: self._agents[name].status() for name in sorted(self._agents)}

    def trouble(self) -> dict[str, str]:
        """Tell, of each agent that does not stay up, why."""
        return {name: agent.trouble for name, agent in sorted(self._agents.items()) if agent.trouble}

    def open(self) -> None:
        """Read the configuration for the first time, and begin.

        Raises:
            UsageError: it cannot be read.
        """
        self._fingerprint = self._sources.fingerprint()
        self._follow(self._sources.read())
        if not self._agents:
            log.warning(
                "this host has no agents", cure=f"write [agents.NAME] with a class into {self._sources.files[0]}"
            )

    def reload(self) -> None:
        """Read the configuration again; one that cannot be read becomes a finding and changes nothing else."""
        self._fingerprint = self._sources.fingerprint()
        try:
            wanted = self._sources.read()
        except UsageError as error:
            self._find((f"the configuration of before counts: {described(error)}",))
            return
        self._follow(wanted)

    async def watch(self) -> None:
        """Read the configuration again whenever a file of it changes, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for agent in self._agents.values():
                agent.trim_log()
            if self._sources.fingerprint() != self._fingerprint:
                log.info("the configuration has changed")
                self.reload()

    def update(self, requests: Sequence[tuple[str, Manage]]) -> None:
        """Have agents up or down from now on, until their configuration changes; all of the requests or none.

        Raises:
            ParameterError: there is no such agent.
        """
        known = {EVERY_AGENT, *self._agents}
        unknown = [name for name, _ in requests if name not in known]
        if unknown:
            raise ParameterError(
                f"there is no agent {', '.join(unknown)}",
                because=f"this host has: {', '.join(sorted(self._agents)) or 'none'}",
                cure=f"name one of them, or {EVERY_AGENT!r}",
            )
        for name, target in requests:
            for agent in self._chosen(name):
                agent.aim(target)

    async def stop(self) -> None:
        """End every agent that it cares for; bounded."""
        for task in self._keeping.values():
            task.cancel()
        await asyncio.gather(*self._keeping.values(), return_exceptions=True)
        cared_for = [agent.end() for agent in self._agents.values() if agent.target is Manage.UP]
        await asyncio.gather(*cared_for, *self._ending.values())
        self._keeping.clear()

    def _chosen(self, name: str) -> list[KeptAgent]:
        """Give the agents of a request; those that are to be left alone are not among all."""
        if name != EVERY_AGENT:
            return [self._agents[name]]
        return [agent for agent in self._agents.values() if agent.target is not Manage.IGNORE]

    def _find(self, findings: tuple[str, ...]) -> None:
        for finding in findings:
            if finding not in self.findings:
                log.warning("finding", finding=finding)
        self.findings = findings
        self._on_change()

    def _follow(self, wanted: Wanted) -> None:
        """Do as the configuration says now."""
        for name in [name for name in self._agents if name not in wanted.agents]:
            self._drop(name)
        for name, agent in wanted.agents.items():
            if name not in self._agents:
                self._add(agent)
            elif self._agents[name].wanted != agent:
                self._agents[name].aim(agent.manage, agent)
        self._find(wanted.findings)

    def _add(self, wanted: WantedAgent) -> None:
        agent = self._agents[wanted.name] = KeptAgent(wanted, self._launch, self._on_change)
        previous = self._ending.get(wanted.name)
        self._keeping[wanted.name] = asyncio.create_task(_kept(agent, previous), name=f"agent {wanted.name}")

    def _drop(self, name: str) -> None:
        """End an agent that the configuration names no longer."""
        agent, keeping = self._agents.pop(name), self._keeping.pop(name)
        ending = self._ending[name] = asyncio.create_task(_ended(agent, keeping), name=f"end of agent {name}")

        def forget(_: object) -> None:
            if self._ending.get(name) is ending:
                del self._ending[name]

        ending.add_done_callback(forget)


async def _kept(agent: KeptAgent, previous: asyncio.Task[None] | None) -> None:
    """Keep an agent, once one of its name that was dropped before has ended."""
    if previous is not None:
        await asyncio.gather(previous, return_exceptions=True)
    await agent.keep()


async def _ended(agent: KeptAgent, keeping: asyncio.Task[None]) -> None:
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping
    if agent.target is Manage.UP:
        await agent.end()
