"""An OCS site configuration: which of its agents this machine is to run, and what their options are called here.

The format is a YAML file, `hosts: {NAME: {agent-instances: [{agent-class, instance-id, arguments, manage}]}}`, as OCS
documents it (ocs.readthedocs.io, "OCS Site Configuration"). Options that concern OCS's own hub mean nothing here.
"""

from __future__ import annotations

import difflib
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import yaml

from labwright.core.errors import UsageError
from labwright.core.ids import checked_name

ANY_HOST = "localhost"
"""The entry that counts on every machine which has none of its own."""

MANAGE: Mapping[object, str] = MappingProxyType(
    {
        None: "up",
        True: "up",
        False: "ignore",
        "yes": "up",
        "no": "ignore",
        "up": "up",
        "down": "down",
        "host": "up",
        "host/up": "up",
        "host/down": "down",
        "ignore": "ignore",
        "docker": "ignore",
        "docker/up": "ignore",
        "docker/down": "ignore",
    }
)
"""What the words for `manage` mean; YAML reads yes and no as booleans, and what docker keeps is not ours to keep."""

HUB_OPTIONS = (
    *("--site", "--site-file", "--site-host", "--site-hub", "--site-http", "--site-realm", "--instance-id"),
    *("--address-root", "--log-dir", "--working-dir", "--crossbar-timeout", "--access-policy", "--registry-address"),
)
"""Options that every OCS agent takes, all with a value, and that have no meaning without OCS's hub."""


@dataclass(frozen=True, kw_only=True)
class KnownClass:
    """Our class for one of OCS's: `options` gives the argument for each option (None: it has no meaning here)."""

    class_name: str
    options: Mapping[str, str | None]
    flags: frozenset[str] = frozenset()
    labels: tuple[str, ...] = ()


CLASSES: Mapping[str, KnownClass] = MappingProxyType(
    {
        "PysmurfController": KnownClass(
            class_name="labwright.instruments.pysmurf.controller:PysmurfController",
            options={
                "--monitor-id": "monitor_id",
                "-m": "monitor_id",
                "--slot": "slot",
                "--poll-interval": "poll_interval",
                "--good-threshold-relock": "good_threshold_relock",
            },
            labels=("slot",),
        ),
        "PysmurfMonitor": KnownClass(
            class_name="labwright.instruments.pysmurf.monitor:PysmurfMonitor",
            options={"--udp-port": "port", "--db-path": None, "--create-table": None},
            flags=frozenset({"--test-mode", "--echo-sql"}),
        ),
        "MultiSmurfManager": KnownClass(
            class_name="labwright.instruments.pysmurf.multismurf_manager:MultiSmurfManager",
            options={"--controllers": "controllers"},
        ),
    }
)


@dataclass(frozen=True, kw_only=True)
class OcsAgent:
    """One entry of `agent-instances` in our words."""

    name: str
    class_name: str
    arguments: Mapping[str, Any]
    labels: Mapping[str, str]
    manage: str
    source: str


@dataclass(frozen=True, kw_only=True)
class OcsSite:
    """What an OCS site configuration says about one host."""

    agents: tuple[OcsAgent, ...] = ()
    findings: tuple[str, ...] = field(default=())


def read_ocs_site(path: Path, host: str = "") -> OcsSite:
    """Read what a site configuration wants on a host; without a name, on this machine.

    Raises:
        UsageError: the file cannot be read or has no such host.
    """
    entries = _instances(path, _hosts(path), host)
    agents: dict[str, OcsAgent] = {}
    findings: list[str] = []
    for number, entry in enumerate(entries):
        place = f"{path}: agent-instances[{number}]"
        try:
            agent = _agent(place, entry)
        except UsageError as error:
            findings.append(f"{error.message}: {error.because}" if error.because else error.message)
            continue
        if agent.name in agents:
            findings.append(f"{agent.source}: {agents[agent.name].source} has that instance-id already")
        else:
            agents[agent.name] = agent
    return OcsSite(agents=tuple(agents.values()), findings=tuple(findings))


def _hosts(path: Path) -> Mapping[str, Any]:
    try:
        document: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read", because=str(error), cure="mend the file") from error
    hosts = cast("Mapping[str, Any]", document).get("hosts") if isinstance(document, Mapping) else None
    if not isinstance(hosts, Mapping):
        raise UsageError(
            f"{path} is no OCS site configuration",
            because="it has no mapping `hosts`",
            cure="name the file that OCS's agents are given with --site-file",
        )
    return cast("Mapping[str, Any]", hosts)


def _instances(path: Path, hosts: Mapping[str, Any], host: str) -> Sequence[object]:
    for name in (host,) if host else (socket.gethostname(), ANY_HOST):
        if name in hosts:
            table = hosts[name]
            found: object = (
                cast("Mapping[str, Any]", table).get("agent-instances", []) if isinstance(table, Mapping) else None
            )
            if not isinstance(found, list):
                raise UsageError(f"{path}: host {name!r} has no list `agent-instances`", cure="mend the file")
            return cast("list[object]", found)
    raise UsageError(
        f"{path} has no host {host or socket.gethostname()!r}",
        because=f"it has: {', '.join(map(str, hosts)) or 'none'}",
        cure="choose one with --host NAME",
    )


def _agent(place: str, entry: object) -> OcsAgent:
    if not isinstance(entry, Mapping):
        raise UsageError(f"{place} is no mapping", because=repr(entry)[:80])
    fields = cast("Mapping[str, Any]", entry)
    name = checked_name(str(fields.get("instance-id", "")), f"site's agent ({place})")
    source = f"{place} ({name})"
    known = _known_class(source, str(fields.get("agent-class", "")))
    arguments = _arguments(source, known, fields.get("arguments"))
    return OcsAgent(
        name=name,
        class_name=known.class_name,
        arguments=arguments,
        labels={label: str(arguments[label]) for label in known.labels if label in arguments},
        manage=_manage(source, fields.get("manage")),
        source=source,
    )


def _known_class(source: str, name: str) -> KnownClass:
    if name in CLASSES:
        return CLASSES[name]
    if ":" in name:  # not OCS's own notation: any class of ours, whose options are its arguments
        return KnownClass(class_name=name, options={})
    near = difflib.get_close_matches(name, CLASSES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(CLASSES)}; or write module:Class"
    raise UsageError(f"{source}: agent-class {name!r} is not known", because=hint)


def _manage(source: str, value: object) -> str:
    key = value.lower() if isinstance(value, str) else value
    if not isinstance(key, str | bool | None) or key not in MANAGE:
        words = ", ".join(word for word in MANAGE if isinstance(word, str))
        raise UsageError(f"{source}: manage {value!r} is not known", because=f"known are: {words}")
    return MANAGE[key]


def _arguments(source: str, known: KnownClass, given: object) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    words = _flat(source, given)
    for word in words:
        option, has_value, text = str(word).partition("=")
        if option in known.flags:
            continue
        if not option.startswith("-"):
            raise UsageError(f"{source}: {option!r} is no option", because="arguments are ['--option', value, ...]")
        argument = _argument(source, known, option)
        value: object = text if has_value else next(words, None)
        if value is None:
            raise UsageError(f"{source}: option {option} has no value")
        if argument is not None:
            arguments[argument] = value
    return arguments


def _argument(source: str, known: KnownClass, option: str) -> str | None:
    if option in known.options:
        return known.options[option]
    if option in HUB_OPTIONS:
        return None
    if not known.options:
        return option.lstrip("-").replace("-", "_")
    near = difflib.get_close_matches(option, known.options, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known.options)}"
    raise UsageError(f"{source}: option {option} is not known", because=hint)


def _flat(source: str, given: object) -> Iterator[Any]:
    """Give the words of a flat list or of a list of lists."""
    if given is None:
        return
    if not isinstance(given, list):
        raise UsageError(f"{source}: arguments {given!r} are no list")
    for word in cast("list[Any]", given):
        if isinstance(word, list):
            yield from cast("list[Any]", word)
        else:
            yield word
