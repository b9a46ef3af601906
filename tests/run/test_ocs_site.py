"""An OCS site configuration is read as OCS reads it, and what is not understood becomes a finding of its own."""

from __future__ import annotations

import socket
from pathlib import Path
from textwrap import dedent

import pytest

from labwright.agents.arguments import parameters_of
from labwright.agents.process import load_agent
from labwright.core.errors import UsageError
from labwright.run.ocs_site import CLASSES, MANAGE, OcsSite, read_ocs_site
from labwright.run.wanted import Manage, Sources

CONTROLLER = "labwright.instruments.pysmurf.controller:PysmurfController"


def read(folder: Path, instances: str, host: str = "crate-1") -> OcsSite:
    """Read a file with these instances on the host `crate-1`."""
    path = folder / "default.yaml"
    path.write_text(f"hosts:\n  crate-1:\n    agent-instances:\n{instances}")
    return read_ocs_site(path, host)


def test_the_entry_of_the_published_documentation_is_read(tmp_path: Path) -> None:
    site = read(
        tmp_path,
        """
      [{'agent-class': 'PysmurfController',
       'instance-id': 'pysmurf-controller',
       'arguments': []},
      ]
""",
    )

    assert not site.findings
    assert [(agent.name, agent.class_name, agent.manage) for agent in site.agents] == [
        ("pysmurf-controller", CONTROLLER, "up")
    ]


def test_the_entry_of_the_documentation_of_the_manager_is_read(tmp_path: Path) -> None:
    site = read(
        tmp_path,
        """
      - {'agent-class': 'MultiSmurfManager',
         'instance-id': 'multismurf',
         'arguments': []}
""",
    )

    assert not site.findings
    assert [(agent.name, agent.class_name, agent.arguments) for agent in site.agents] == [
        ("multismurf", "labwright.instruments.pysmurf.multismurf_manager:MultiSmurfManager", {})
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        "['--slot', 2, '--poll-interval', '5', '-m', 'monitor']",
        "[['--slot', 2], ['--poll-interval', '5'], ['-m', 'monitor']]",
        "['--slot=2', ['--poll-interval', '5'], '--monitor-id=monitor', '--site-hub', 'ws://hub']",
    ],
)
def test_arguments_are_a_flat_list_or_a_list_of_lists(tmp_path: Path, arguments: str) -> None:
    entry = f"      - {{agent-class: PysmurfController, instance-id: s2, arguments: {arguments}}}\n"
    (agent,) = read(tmp_path, entry).agents

    assert {name: str(value) for name, value in agent.arguments.items()} == {
        "slot": "2",
        "poll_interval": "5",
        "monitor_id": "monitor",
    }
    assert agent.labels == {"slot": "2"}


@pytest.mark.parametrize("name", CLASSES)
def test_every_known_class_takes_the_arguments_that_its_options_stand_for(name: str) -> None:
    known = CLASSES[name]
    agent = load_agent(known.class_name)

    assert agent.__name__ == name
    assert {argument for argument in known.options.values() if argument} <= set(parameters_of(agent).names)


@pytest.mark.parametrize("word", [word for word in MANAGE if isinstance(word, str)])
def test_every_word_for_manage_is_known(tmp_path: Path, word: str) -> None:
    entry = f"      - {{agent-class: PysmurfController, instance-id: s2, manage: {word}}}\n"

    (agent,) = read(tmp_path, entry).agents

    assert agent.manage == MANAGE[word]
    assert Manage(agent.manage)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{agent-class: PysmurfMonitr, instance-id: a}", "did you mean 'PysmurfMonitor'?"),
        ("{agent-class: PysmurfController, instance-id: a, arguments: [--slott, 2]}", "did you mean --slot?"),
        ("{agent-class: PysmurfController, instance-id: a, arguments: [--slot]}", "option --slot has no value"),
        ("{agent-class: PysmurfController, instance-id: a, arguments: 5}", "arguments 5 are no list"),
        ("{agent-class: PysmurfController, instance-id: a, manage: maybe}", "manage 'maybe' is not known"),
        ("{agent-class: PysmurfController}", "cannot name a site's agent"),
        ("just text", "is no mapping"),
        ("{agent-class: PysmurfController, instance-id: good}", "has that instance-id already"),
    ],
)
def test_what_is_not_understood_is_a_finding_and_the_others_go_on(tmp_path: Path, entry: str, said: str) -> None:
    good = "      - {agent-class: PysmurfController, instance-id: good}\n"

    site = read(tmp_path, f"{good}      - {entry}\n")

    assert [agent.name for agent in site.agents] == ["good"]
    assert len(site.findings) == 1
    assert said in site.findings[0]
    assert str(tmp_path / "default.yaml") in site.findings[0]


def test_a_host_that_is_not_named_is_this_machine_or_localhost(tmp_path: Path) -> None:
    entry = "{agent-instances: [{agent-class: PysmurfController, instance-id: NAME}]}"
    path = tmp_path / "default.yaml"

    path.write_text(f"hosts:\n  localhost: {entry.replace('NAME', 'any')}\n")
    assert [agent.name for agent in read_ocs_site(path).agents] == ["any"]
    path.write_text(f"{path.read_text()}  {socket.gethostname()}: {entry.replace('NAME', 'mine')}\n")
    assert [agent.name for agent in read_ocs_site(path).agents] == ["mine"]
    with pytest.raises(UsageError, match="has no host 'other'"):
        read_ocs_site(path, "other")


@pytest.mark.parametrize("text", ["", "[]", "hosts: 5", "hosts: {crate-1: {agent-instances: 5}}", "{", "hosts: {x: 1}"])
def test_a_file_that_is_no_site_configuration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "default.yaml"
    path.write_text(text)

    with pytest.raises(UsageError, match=r"default\.yaml"):
        read_ocs_site(path, "crate-1")


def test_the_settings_beat_an_ocs_entry_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "labwright.toml").write_text('[agents.s2]\nclass = "mylab:Own"\n[agents.odd]\nclass = "no class"\n')
    ocs = tmp_path / "default.yaml"
    ocs.write_text(
        dedent(
            """
            hosts:
              crate-1:
                agent-instances:
                  - {agent-class: PysmurfController, instance-id: s2}
                  - {agent-class: "mylab:Pump", instance-id: pump, arguments: [--serial-port, /dev/ttyUSB0]}
            """
        )
    )

    wanted = Sources(folder=tmp_path, ocs_file=ocs, ocs_host="crate-1").read({})

    assert {name: agent.class_name for name, agent in wanted.agents.items()} == {
        "s2": "mylab:Own",
        "pump": "mylab:Pump",
    }
    assert wanted.agents["pump"].arguments == {"serial_port": "/dev/ttyUSB0"}
    assert len(wanted.findings) == 2
