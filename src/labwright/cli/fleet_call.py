"""`labwright call` on a fleet: how far it is while it runs, a table with a row for each target, and a calm Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from labwright.cli.caller import Caller
from labwright.cli.failures import INTERRUPTED

if TYPE_CHECKING:
    from labwright.agents.fleet_handle import FleetAsked
    from labwright.client import AsyncLab
    from labwright.core.fleet import FleetResult, FleetRow

SIGNS = frozenset("=,|()!*? ")
"""What stands in a selector and in no name."""
REMIND_S = 20.0
"""So long nothing is told before it is told that it goes on."""


def is_fleet(on: str) -> bool:
    """Tell whether this chooses several targets, or names one."""
    return on == "all" or bool(SIGNS & set(on))


def call_fleet(
    caller: Caller,
    operation: str,
    on: str,
    params: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    is_waiting: bool,
) -> None:
    """Call an operation on all that a selector chooses, show the rows, and leave with 1 if too few have succeeded."""
    from labwright.agents.fleet_handle import FleetAsked
    from labwright.plan.fan_out import FanOut

    how = FanOut.given(**options)
    asked = FleetAsked(verb="call" if is_waiting else "start", selector=on, operation=operation, params=params, how=how)
    telling = _Telling(caller)
    try:
        result = caller.with_lab(lambda lab: _ask(lab, asked, telling))
    except KeyboardInterrupt:
        _interrupted(caller, telling.run)
        raise typer.Exit(INTERRUPTED) from None
    if is_waiting:
        show_result(caller, result, telling.run)
    else:
        _show_started(caller, result)
    if not result.succeeded:
        raise typer.Exit(1)


async def _ask(lab: AsyncLab, asked: FleetAsked, telling: _Telling) -> FleetResult:
    import asyncio

    reminding = asyncio.create_task(telling.remind())
    try:
        return await lab.ask_fleet(asked, began=telling.began, tell=telling.row)
    finally:
        reminding.cancel()


def _show_started(caller: Caller, result: FleetResult) -> None:
    """Print what was started, and goes on: the ids of the sessions, and who did not start."""
    fields: dict[str, Any] = result.model_dump(mode="json", by_alias=True)
    started = [name for name, row in result.rows.items() if row.session is not None]
    for name in started:
        fields["targets"][name] |= {"outcome": "started", "result": None}

    def show() -> None:
        rows = [
            [name, fields["targets"][name]["outcome"], row.session, row.error and row.error.message]
            for name, row in result.rows.items()
        ]
        caller.output.table(("target", "outcome", "session", "because"), rows)
        caller.output.talk(
            f"{result.operation} was started on {len(started)} of {len(rows)} targets, and goes on there"
        )
        caller.output.talk(f"next: labwright sessions list --operation {result.operation}")

    caller.output.document(fields, show)


class _Telling:
    """Tells people how a call goes on."""

    def __init__(self, caller: Caller) -> None:
        self.run: str | None = None
        self._told = 0
        self._caller = caller

    async def remind(self) -> None:
        """Tell now and then that it goes on, where there is nothing else to tell."""
        import asyncio

        while True:
            told = self._told
            await asyncio.sleep(REMIND_S)
            if told == self._told:
                where = f": labwright sessions list --run {self.run}" if self.run else ""
                self._caller.output.talk(f"{self._told} targets have ended, others go on{where}")

    def began(self, run: str) -> None:
        """Tell which run it is."""
        self.run = run
        self._caller.output.talk(f"{run} calls it; it goes on whatever happens to this command")

    def row(self, name: str, row: FleetRow) -> None:
        """Tell what became of a target."""
        self._told += 1
        because = f": {row.error.message}" if row.error is not None else ""
        self._caller.output.talk(f"{name} {row.outcome}{because}")


def show_result(caller: Caller, result: FleetResult, run: str | None = None) -> None:
    """Print the rows of a call, or of a task on a fleet."""
    fields: dict[str, Any] = {**result.model_dump(mode="json", by_alias=True), **({"run": run} if run else {})}
    for row in fields["targets"].values():
        if row["error"]:
            row["error"]["try"] = row["error"]["try"].replace("timeout_s", "--timeout")

    def show() -> None:
        show_rows(caller, result)
        counts = ", ".join(f"{count} {outcome}" for outcome, count in result.counts.items())
        verdict = "succeeded" if result.succeeded else "did not succeed"
        caller.output.talk(f"{result.operation} {verdict}: {counts}; {result.quorum} had to succeed")
        if run:
            caller.output.talk(f"next: labwright runs show {run}, labwright sessions list --run {run}")

    caller.output.document(fields, show)


def show_rows(caller: Caller, result: FleetResult) -> None:
    """Print a line for each target."""
    from labwright.cli.pages import fleet_columns, fleet_rows

    fields = result.model_dump(mode="json", by_alias=True)
    caller.output.table(fleet_columns(fields), fleet_rows(fields) or [])


def _interrupted(caller: Caller, run: str | None) -> None:
    """Tell that what was started goes on, and offer to abort it where somebody sits at a terminal."""
    from labwright.cli.call import InterruptedCallError

    if run is None:
        caller.output.talk("interrupted; what was started goes on: labwright sessions list --state running")
        return
    if caller.output.as_json:
        caller.output.error(InterruptedCallError(run, cure=f"labwright abort {run}"))
        return
    if sys.stdin.isatty() and sys.stderr.isatty() and typer.confirm(f"\nabort what {run} has started?", err=True):
        caller.with_lab(lambda lab: lab.abort(run, reason="interrupted by its caller"))
        caller.output.talk(f"{run} is aborted")
        return
    caller.output.talk(f"interrupted; {run} goes on: labwright runs watch {run}; or end it: labwright abort {run}")
