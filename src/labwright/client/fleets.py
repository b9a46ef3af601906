"""What a client asks of a fleet: a call as a durable run where a lab is served, and by itself where none is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from labwright.agents.fleet import Asked, FleetCall, Reach, Tell
from labwright.agents.fleet_check import check_call
from labwright.agents.fleet_handle import FleetAsked
from labwright.agents.fleet_verbs import ask_each
from labwright.agents.following import agents_here
from labwright.agents.members import chosen, members
from labwright.core.errors import UnreachableError
from labwright.core.fleet import FleetResult, FleetRow, Outcome
from labwright.core.ids import hashed_id, new_id
from labwright.core.model import Run, Target
from labwright.facts.targets import load_targets
from labwright.plan.fan_out import FanOut
from labwright.run.fleets import call_request, result_of

if TYPE_CHECKING:
    from labwright.client.lab import AsyncLab


def fan_out_of(options: Mapping[str, Any]) -> FanOut:
    """Read the options of a fleet; `timeout` means `timeout_s`.

    Raises:
        UsageError: one is not known, or not valid.
    """
    given = dict(options)
    if "timeout" in given:
        given["timeout_s"] = given.pop("timeout")
    return FanOut.given(**given)


class FleetClient:
    """Asks fleets for one client."""

    def __init__(self, lab: AsyncLab) -> None:
        self._lab = lab

    async def ask(
        self, asked: FleetAsked, *, began: Callable[[str], None] | None = None, tell: Tell | None = None
    ) -> FleetResult:
        """Ask, as `AsyncLab.ask_fleet` says."""
        targets, is_served = await self._chosen(asked.selector)
        asked.how.needed(len(targets))
        if asked.verb in {"call", "start"}:
            await check_call(self._reach(), targets, asked.operation, asked.params)
        if asked.verb != "call":
            return await ask_each(self._reach(), targets, asked)
        if is_served:
            return await self._run(asked, began or _nothing, tell or _nobody)
        what = Asked(operation=asked.operation, params=asked.params, how=asked.how)
        return await FleetCall(self._reach(), targets, what, selector=asked.selector, tell=tell or _nobody).run()

    async def targets(self) -> dict[str, Target]:
        """Give the site's targets, as `AsyncLab.targets` says."""
        try:
            return {each["name"]: Target.model_validate(each) for each in await self._lab.ask("targets")}
        except UnreachableError:
            return self._of_file()

    def _of_file(self) -> dict[str, Target]:
        path = self._lab.settings.targets_file
        return load_targets(path) if path is not None else {}

    async def _chosen(self, selector: str) -> tuple[tuple[str, ...], bool]:
        """Name whom a selector chooses, and tell whether a lab is served."""
        try:
            return tuple(await self._lab.ask("chosen", on=selector)), True
        except UnreachableError:
            here = await agents_here(self._lab.journal.connection)
            return chosen(selector, members(self._of_file(), here), here), False

    def _reach(self) -> Reach:
        call = new_id("call")
        return Reach(
            journal=self._lab.journal,
            sender=self._lab.by,
            by=self._lab.by,
            session_id=lambda name, number: hashed_id("ses", call, name, number),
        )

    async def _run(self, asked: FleetAsked, began: Callable[[str], None], tell: Tell) -> FleetResult:
        """Have a run make the call, and wait for its end."""
        runs = await self._lab.request(call_request(asked))
        began(runs.runs[0])

        def show(said: dict[str, Any]) -> None:
            name, _, outcome = str(said.get("text", "")).rpartition(" ")
            if said.get("run") == runs.runs[0] and outcome in set(Outcome):
                tell(name, FleetRow(outcome=Outcome(outcome)))

        async with self._lab.progress(show):
            ended = await self._lab.wait(self._lab.follow_runs(runs))
        return result_of(await self._whole(ended[runs.runs[0]]))

    async def _whole(self, run: Run) -> Run:
        return run.model_copy(update={"result": await self._lab.journal.restore(run.result)})


def _nothing(_run: str) -> None:
    """Nobody wants to know which run it is."""


def _nobody(_name: str, _row: FleetRow) -> None:
    """Nobody is told of rows."""
