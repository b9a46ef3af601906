"""Twelve simulated readout slots answer as one: dead, slow, refusing, vanishing and restarting ones have their rows."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Terminal, command, environment, here, wait_until

SLOTS = [f"slot-{number}" for number in range(1, 13)]
DEAD, SLOW, REFUSING, VANISHING, RESTARTING = SLOTS[:5]
GOOD = SLOTS[5:]
CONTROLLER = "labwright.instruments.pysmurf:PysmurfController"
TARGETS = "\n".join(
    f"- {{name: {name}, labels: {{kind: smurf, crate: 1, slot: {number}}}}}" for number, name in enumerate(SLOTS, 1)
)
FOR_EVER = {"LABWRIGHT_SMURF_FAULTS": "slow=100000000@setup_amps"}
A_WHILE = {"LABWRIGHT_SMURF_FAULTS": "slow=20000@setup_amps"}
"""Twenty seconds of ours, in which the agent is killed and comes back."""
FAULTS = {SLOW: FOR_EVER, VANISHING: FOR_EVER, RESTARTING: A_WHILE}
TIMEOUT_S = 60


class Site:
    """A served site, and the agents of its slots."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.agents: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, **more: str) -> None:
        """Start an agent without waiting for it."""
        words = command("agent", "start", CONTROLLER, "--name", name, "--arg", "simulate=true", "--arg", "slot=2")
        env = {**environment(), "LABWRIGHT_SMURF_SPEED": "1000", **more}
        with (self.terminal.folder / f"{name}.log").open("ab") as log:
            self.agents[name] = subprocess.Popen(
                words, cwd=self.terminal.folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        self.agents[name].send_signal(signal.SIGKILL)
        self.agents[name].wait(30)

    def are_here(self, *names: str) -> None:
        wait_until(lambda: set(names) <= here(self.terminal).keys(), limit_s=90)

    def sessions(self, agent: str, operation: str) -> list[dict[str, Any]]:
        found = self.terminal("sessions", "list", "--agent", agent, "--operation", operation, "--json").json
        return found["items"]

    def until_running(self, agent: str) -> None:
        wait_until(lambda: [each for each in self.sessions(agent, "uxm_setup") if each["state"] == "running"], 60)

    def calling(self, *words: str) -> AbstractContextManager[subprocess.Popen[str]]:
        """Call all slots, and do not wait."""
        limits = ("--timeout", str(TIMEOUT_S), "--return-within", "20", "--json")
        return self.terminal.started("call", "uxm_setup", "--on", "kind=smurf", *words, *limits)

    def close(self) -> None:
        for agent in self.agents.values():
            agent.send_signal(signal.SIGTERM)
        for agent in self.agents.values():
            with ExitStack() as stack:
                stack.callback(agent.kill)
                agent.wait(30)


@contextmanager
def served(folder: Path) -> Generator[Site]:
    folder.mkdir()
    (folder / "labwright.toml").touch()
    (folder / "targets.yaml").write_text(TARGETS)
    terminal = Terminal(folder)
    with terminal.started("serve", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"] is True
        site = Site(terminal)
        try:
            yield site
        finally:
            site.close()
            terminal("serve", "--stop", "--json")
            process.communicate(timeout=30)


@pytest.mark.timeout(420)
def test_every_slot_has_the_right_row_within_the_deadline(tmp_path: Path) -> None:
    with served(tmp_path / "site") as site:
        for name in SLOTS:
            if name != DEAD:
                site.start(name, **FAULTS.get(name, {}))
        site.are_here(*SLOTS[1:])
        site.terminal("call", "stream", "--on", REFUSING, "--no-wait")
        begun = time.monotonic()
        with site.calling() as calling:
            site.until_running(VANISHING)
            site.kill(VANISHING)
            site.until_running(RESTARTING)
            site.kill(RESTARTING)
            site.start(RESTARTING, **A_WHILE)
            result, code = ended(calling)
        rows = result["targets"]
        assert {name: row["outcome"] for name, row in rows.items()} == {
            DEAD: "unreachable",
            SLOW: "timeout",
            REFUSING: "refused",
            VANISHING: "unreachable",
            RESTARTING: "succeeded",
            **dict.fromkeys(GOOD, "succeeded"),
        }, "\n".join(f"{name}: {row['outcome']} {row['duration_s']} {row['error']}" for name, row in rows.items())
        assert (code, result["succeeded"], result["quorum"], result["operation"]) == (1, False, 12, "uxm_setup")
        assert time.monotonic() - begun < TIMEOUT_S + 60
        with site.calling("--quorum", "7") as calling:
            result, code = ended(calling)
        assert (code, result["succeeded"], result["quorum"]) == (0, True, 7)


def ended(calling: subprocess.Popen[str]) -> tuple[dict[str, Any], int]:
    """Wait for a call's end, and give its document and its exit code."""
    out, err = calling.communicate(timeout=300)
    assert out, err
    return json.loads(out), calling.returncode
