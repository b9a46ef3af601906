"""The demo's instruments: four agents that control simulated readout cards, and a script that tunes one of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labwright.cli.caller import Caller
from labwright.core.errors import UnreachableError

if TYPE_CHECKING:
    from labwright.client import AsyncLab
    from labwright.core.fleet import FleetResult

AGENT = "smurf-s2"
OPERATION = "run"
FLEET = "class=PysmurfController"
FLEET_OPERATION = "zero_biases"
SCRIPT = Path("scripts") / "tune.py"
LONGEST_START_S = 60.0
SPEED = "1000"
"""How much faster than life the simulated cards are, unless LABWRIGHT_SMURF_SPEED says otherwise."""


@contextlib.asynccontextmanager
async def agents_up(caller: Caller, lab: AsyncLab) -> AsyncGenerator[None]:
    """Keep the agents of the site up while this lasts, as `labwright host` does."""
    from labwright.run.host_agent import hosting
    from labwright.run.wanted import Sources

    os.environ.setdefault("LABWRIGHT_SMURF_SPEED", SPEED)
    settings = lab.settings
    caller.output.talk("")
    async with hosting(settings, Sources(folder=settings.folder)):
        here = await _until_here(lab, set(settings.agents))
        caller.output.talk(f"agents are here: {', '.join(sorted(here))}")
        yield


async def _until_here(lab: AsyncLab, wanted: set[str]) -> set[str]:
    """Wait until agents have announced themselves."""
    from labwright.journal.presence import watch
    from labwright.journal.session_fold import decoded

    here: set[str] = set()
    try:
        async with asyncio.timeout(LONGEST_START_S):
            async for seen in watch(lab.journal.connection, "agent"):
                if seen is not None and seen.body is not None:
                    here.add(decoded(seen.name))
                if wanted <= here:
                    break
    except TimeoutError as error:
        missing = ", ".join(sorted(wanted - here))
        raise UnreachableError(
            f"agents are not here: {missing}",
            because=f"they had {LONGEST_START_S:g} s to start",
            cure="see agent.log in their folders under the state folder",
        ) from error
    return wanted


async def tune(caller: Caller, lab: AsyncLab, folder: Path) -> dict[str, Any]:
    """Have one agent run the tuning script, and show its log and its data as they come; gives the session's row."""
    from labwright.cli.call import watched

    caller.output.talk(f"{AGENT} runs {SCRIPT}:")
    session = await lab.agent(AGENT).operation(OPERATION).start(script=str(folder / SCRIPT))
    return await watched(caller, lab, session)


async def call_all(caller: Caller, lab: AsyncLab) -> FleetResult:
    """Have all agents do the same at once, and give the row of each."""
    caller.output.talk(f"\nall of {FLEET} do {FLEET_OPERATION}:")
    fleet = lab.fleet(FLEET).operation(FLEET_OPERATION)
    result = await fleet()
    for name, row in result.rows.items():
        caller.output.talk(f"{name} {row.outcome}")
    return result
