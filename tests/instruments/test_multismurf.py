"""The MultiSmurf manager as a user meets it: real controllers on simulated cards, commanded as one, killed and slow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.real_agents import House, RealAgent, RefusedError, house, nothing_left

pytestmark = pytest.mark.timeout(150)

CONTROLLER = "labwright.instruments.pysmurf:PysmurfController"
MANAGER = "labwright.instruments.pysmurf:MultiSmurfManager"
OCS_KEYS = {
    *("session_id", "op_name", "op_code", "cred_level", "status", "degraded", "success"),
    *("start_time", "end_time", "messages", "data"),
}
OWN_KEYS = {"agent", "state", "result", "error"}


class Crate:
    """A crate of simulated cards, with a controller for each, and a manager."""

    def __init__(self, home: House, folder: Path) -> None:
        self.home = home
        self.folder = folder
        folder.mkdir()

    async def slot(self, slot: int, *, faults: str = "", speed: int = 10_000, **labels: str) -> RealAgent:
        """Start the controller of a slot, `smurf-sN`, whose stream_id is `crate1slotN`."""
        variables = {
            "OCS_CONFIG_DIR": str(self.folder),
            "LABWRIGHT_SMURF_RESONATORS": "2",
            "LABWRIGHT_SMURF_SPEED": str(speed),
            "LABWRIGHT_SMURF_FAULTS": faults,
        }
        return await self.home.agent(
            CONTROLLER,
            f"smurf-s{slot}",
            arguments={"slot": slot, "simulate": True, "poll_interval": 600},
            env=variables,
            labels={"crate": "1", **labels},
        )

    async def manager(self) -> RealAgent:
        """Start the manager."""
        return await self.home.agent(MANAGER, "multismurf")


@pytest.fixture
async def crate(tmp_path: Path) -> AsyncGenerator[Crate]:
    async with house(tmp_path / "state") as home:
        yield Crate(home, tmp_path / "config")
    await nothing_left(str(tmp_path))


async def monitor(manager: RealAgent, condition: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
    """Give the controllers as the manager shows them, once they fit."""
    session = (await manager.ask("status", "monitor"))["session"]

    def fits(known: Mapping[str, Any]) -> Any:
        return condition(known["data"].get("smurfs", {}))

    return (await manager.shown(session, fits, what))["data"]["smurfs"]


def outcomes(session: Mapping[str, Any]) -> dict[str, str]:
    return {name: row["outcome"] for name, row in session["data"].items()}


async def test_an_operation_runs_on_all_and_shows_their_sessions_by_stream_id(crate: Crate) -> None:
    for slot in (2, 3):
        await crate.slot(slot)
    manager = await crate.manager()

    ended = await manager.call("set_biases", bias=1.5, bgs=[0, 1])

    assert ended["state"] == "succeeded", ended
    assert outcomes(ended) == {"crate1slot2": "succeeded", "crate1slot3": "succeeded"}
    for slot in (2, 3):
        row = ended["data"][f"crate1slot{slot}"]
        assert row.keys() == OCS_KEYS | OWN_KEYS | {"outcome"}
        assert (row["agent"], row["status"], row["success"]) == (f"smurf-s{slot}", "done", True)
    assert ended["result"]["targets"].keys() == ended["data"].keys()
