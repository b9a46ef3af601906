"""Which agents a machine is to have: read from the site's settings and, where one is named, an OCS site configuration.

What cannot be understood becomes a finding that names its file and entry; the other agents are not held up by it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from labwright.core.errors import LabwrightError
from labwright.run.ocs_site import OcsAgent, read_ocs_site
from labwright.run.settings import FILE, AgentTable, Settings, load_settings

CLASS_PATTERN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Manage(StrEnum):
    """What a host does with an agent."""

    UP = "up"
    DOWN = "down"
    IGNORE = "ignore"


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class WantedAgent:
    """One agent as its configuration describes it; `source` names the file and entry."""

    name: str
    class_name: str
    labels: Mapping[str, str] = field(default_factory=_nothing)
    arguments: Mapping[str, Any] = field(default_factory=_nothing)
    manage: Manage = Manage.UP
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """All agents that a machine is to have, by name, and what is wrong with the files that say so."""

    agents: Mapping[str, WantedAgent] = field(default_factory=_nothing)
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the configuration stands: the site's folder and, optionally, an OCS site configuration for one host."""

    folder: Path
    ocs_file: Path | None = None
    ocs_host: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files whose change means another configuration."""
        return (self.folder / FILE, *((self.ocs_file,) if self.ocs_file else ()))

    def fingerprint(self) -> tuple[object, ...]:
        """Tell the files' state, so that another value means that one has changed."""
        return tuple(_state_of(path) for path in self.files)

    def read(self, environ: Mapping[str, str] | None = None) -> Wanted:
        """Read them all.

        Raises:
            UsageError: a file cannot be read, or the settings are not valid.
        """
        settings = load_settings(self.folder, os.environ if environ is None else environ)
        agents = dict(_from_settings(settings))
        findings = list(_wrong_classes(agents))
        if self.ocs_file is not None:
            site = read_ocs_site(self.ocs_file, self.ocs_host)
            findings += site.findings
            for agent in site.agents:
                wanted = _from_ocs(agent)
                if wanted.name in agents:
                    findings.append(f"{wanted.source}: {agents[wanted.name].source} names that agent too, and counts")
                else:
                    agents[wanted.name] = wanted
        return Wanted(agents=MappingProxyType(agents), findings=tuple(findings))


def _state_of(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _from_settings(settings: Settings) -> Mapping[str, WantedAgent]:
    return {name: _from_table(name, table, settings.folder / FILE) for name, table in settings.agents.items()}


def _from_table(name: str, table: AgentTable, file: Path) -> WantedAgent:
    return WantedAgent(
        name=name,
        class_name=table.class_name,
        labels=table.labels,
        arguments=table.arguments,
        manage=Manage(table.manage),
        source=f"{file}: [agents.{name}]",
    )


def _from_ocs(agent: OcsAgent) -> WantedAgent:
    return WantedAgent(
        name=agent.name,
        class_name=agent.class_name,
        labels=agent.labels,
        arguments=agent.arguments,
        manage=Manage(agent.manage),
        source=agent.source,
    )


def _wrong_classes(agents: dict[str, WantedAgent]) -> list[str]:
    """Take out the agents whose class cannot be one, and tell them."""
    wrong = [name for name, agent in agents.items() if not CLASS_PATTERN.fullmatch(agent.class_name)]
    return [
        f"{agents[name].source}: {agents.pop(name).class_name!r} names no class; write module:Class" for name in wrong
    ]


def described(error: LabwrightError) -> str:
    """Write an error as one finding."""
    return f"{error.message}: {error.because}" if error.because else error.message
