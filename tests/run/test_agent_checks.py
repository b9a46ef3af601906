"""What is wrong with a site's agents is found before a host tries to start them, whatever their modules do."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from labwright.run.agent_checks import agent_findings
from labwright.run.settings import load_settings

PUMPS = """
    from labwright import Agent

    print("a module that talks")
    NOT_A_CLASS = 7

    class NoAgent: ...

    class Pump(Agent):
        def __init__(self, port: str, speed: int = 1, modes: list[str] | None = None) -> None:
            raise RuntimeError("nobody makes a pump here")
"""


async def findings(folder: Path, toml: str, *, import_s: float = 60) -> tuple[str, ...]:
    (folder / "pumps.py").write_text(dedent(PUMPS))
    (folder / "labwright.toml").write_text(dedent(toml))
    return await agent_findings(load_settings(folder, {}), import_s=import_s)


async def test_agents_that_can_be_started_have_no_findings_and_none_are_made(tmp_path: Path) -> None:
    toml = """
        [agents.pump]
        class = "pumps:Pump"
        arguments = {port = "/dev/ttyUSB0", speed = 7, modes = ["a", "b"]}
        [agents.smurf]
        class = "labwright.instruments.pysmurf:PysmurfController"
        arguments = {slot = 2, simulate = true}
        [agents.elsewhere]
        class = "not.here:Pump"
        manage = "ignore"
    """
    assert await findings(tmp_path, toml) == ()
    assert await findings(tmp_path, "") == ()
    assert "pumps" not in sys.modules


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('class = "nowhere:Pump"', "No module named 'nowhere'"),
        ('class = "pumps:Pomp"', "has no attribute 'Pomp'"),
        ('class = "pumps"', "names no class; write module:Class"),
        ('class = "pumps:NoAgent"', "no class derived from Agent"),
        ('class = "pumps:NOT_A_CLASS"', "no class derived from Agent"),
        ('class = "pumps:Pump"', "arguments.port: it is required"),
        ('class = "pumps:Pump"\narguments = {port = "p", sped = 1}', "did you mean 'speed'?"),
        ('class = "pumps:Pump"\narguments = {port = "p", speed = "fast"}', "arguments.speed: Input should be a valid"),
    ],
)
async def test_a_wrong_table_is_a_finding_that_names_it(tmp_path: Path, table: str, said: str) -> None:
    (found,) = await findings(tmp_path, f"[agents.pump-1]\n{table}\n")

    assert found.startswith("[agents.pump-1]: ")
    assert said in found


async def test_a_module_that_raises_exits_or_ends_the_process_is_a_finding_and_the_others_are_checked(
    tmp_path: Path,
) -> None:
    (tmp_path / "raises.py").write_text("raise RuntimeError('no serial line')")
    (tmp_path / "exits.py").write_text("raise SystemExit(3)")
    (tmp_path / "dies.py").write_text("import os; os._exit(9)")
    names = ("dies", "raises", "exits")
    tables = "".join(f'[agents.{name}]\nclass = "{name}:Pump"\n' for name in names)

    dies, raises, exits, wrong = await findings(tmp_path, tables + '[agents.last]\nclass = "pumps:Pomp"\n')

    assert "[agents.dies]: " in dies
    assert "exit code 9" in dies
    assert "no serial line" in raises
    assert "raises.py:1" in raises
    assert "SystemExit: 3" in exits
    assert "Pomp" in wrong


async def test_a_module_that_hangs_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import time; time.sleep(600)")

    (found,) = await findings(tmp_path, '[agents.pump-1]\nclass = "hangs:Pump"\n', import_s=5)

    assert "takes longer than 5 s" in found
