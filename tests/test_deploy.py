"""What stands in `deploy` fits the code: commands, options, classes, arguments and variables exist, files parse."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from labwright.agents.arguments import parameters_of
from labwright.agents.process import load_agent
from labwright.cli.main import app
from labwright.instruments.pysmurf.setting import Setting
from labwright.run.settings import load_settings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSE = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
VARIABLE = re.compile(r"\b(?:LABWRIGHT|SMURFPUB)_[A-Z_]+\b|\bSLOT\b|\bOCS_CONFIG_DIR\b")
OWN_VARIABLES = {"LABWRIGHT_PASSWORD"}
"""Variables of the compose file itself."""


def lines_of(unit: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)


def command_named(words: list[str]) -> tuple[Any, list[str]]:
    """Give the command that words name, and the words behind it."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while getattr(command, "commands", None):
        command = command.commands[rest.pop(0)]
    return command, rest


def check_command(words: list[str]) -> None:
    """Fail unless words are a command of ours with options that it has."""
    command, rest = command_named(words)
    known = {name for parameter in command.params for name in parameter.opts}
    for word in rest:
        if word.startswith("-"):
            assert word.partition("=")[0] in known, f"{' '.join(words)}: no option {word}"


def check_agent(words: list[str]) -> None:
    """Fail unless the words of `agent start` name a class and arguments that it has."""
    agent = load_agent(next(word for word in words[2:] if ":" in word))
    given = dict(re.findall(r"--arg[= ](\w+)=(\S+)", " ".join(words)))
    assert set(given) <= set(parameters_of(agent).names), given
    assert inspect.getdoc(agent)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_runs_a_command_that_exists(unit: Path) -> None:
    (start,) = lines_of(unit, "ExecStart")
    program, *words = shlex.split(start)

    assert program == "/opt/labwright/bin/labwright"
    check_command([word for word in words if not word.startswith("$")])
    for reload in lines_of(unit, "ExecReload"):
        if reload.startswith(program):
            check_command(shlex.split(reload)[1:])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_leaves_what_a_killed_process_started_to_its_successor(unit: Path) -> None:
    assert lines_of(unit, "KillMode") == ["process"]
    assert lines_of(unit, "Restart") == ["always"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong_with_a_unit(unit: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("labwright")
    made = tmp_path / unit.name.replace("@.", "@pump.")
    made.write_text(unit.read_text().replace("/opt/labwright/bin/labwright", str(program)))

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(made)], capture_output=True, text=True, timeout=60, check=False
    )

    assert not [line for line in (done.stdout + done.stderr).splitlines() if unit.stem.rstrip("@") in line]


def test_the_example_of_an_agent_fits_its_class() -> None:
    text = (DEPLOY / "systemd" / "agent.example").read_text()
    values = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    words = ["agent", "start", values["AGENT_CLASS"], "--name", "x", *shlex.split(values["AGENT_OPTIONS"])]

    check_command(words)
    check_agent(words)
    assert Setting.of_environment(environ=values).onward == ("localhost", 8200)


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_runs_a_command_that_exists_as_the_published_user(name: str) -> None:
    service = SERVICES[name]
    program, *words = service["command"]

    assert service["image"] == "labwright"
    assert service["user"] == "9000"
    assert program in {"labwright", "nats-server"}
    if program == "labwright":
        check_command(words)
    if words[:2] == ["agent", "start"]:
        check_agent(words)


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_the_published_volumes(name: str) -> None:
    assert [volume.rpartition(":")[2] for volume in SERVICES[name]["volumes"]] == ["/config", "/data"]


def test_the_controller_publishes_as_documented() -> None:
    environment: dict[str, str] = SERVICES["ocs-pysmurf"]["environment"]
    setting = Setting.of_environment(environ=environment)

    assert environment["SMURFPUB_ID"] == "pysmurf-s2"
    assert setting.slot == 2
    assert setting.onward == (SERVICES["ocs-pysmurf-monitor"]["container_name"], 8200)
    assert setting.tuning_script == "/config/scripts/pysmurf/tune_squids.py"


def test_every_variable_that_deployment_names_is_one_that_the_code_reads() -> None:
    code = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    files = [path for path in DEPLOY.rglob("*") if path.is_file()]
    named = {name for path in files for name in VARIABLE.findall(path.read_text())} - OWN_VARIABLES

    assert {name for name in named if f'"{name}' not in code} == set()


def test_the_settings_of_the_containers_are_valid() -> None:
    settings = load_settings(DEPLOY / "docker" / "config", {})

    assert settings.state_dir == Path("/data/labwright")


def test_the_image_is_built_from_what_is_here() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for word in line.split()[:-1]]

    assert not [name for name in copied if not (ROOT / name).exists()]
    assert "USER 9000" in text
    assert not re.search(r"\b(curl|wget|git clone)\b", text)


def test_the_page_names_every_file() -> None:
    text = (DEPLOY / "README.md").read_text()
    files = [path for path in DEPLOY.rglob("*") if path.is_file() and path.name != "README.md"]

    assert not [path.name for path in files if str(path.relative_to(DEPLOY)) not in text]
