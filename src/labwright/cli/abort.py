"""`labwright abort`: end early what runs, runs and sessions alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli.caller import Caller, command
from labwright.cli.options import OPEN
from labwright.cli.runs import abort_chosen, found_runs
from labwright.cli.sessions import end_session, ended_each
from labwright.core.errors import NotFoundError, UnreachableError, UsageError

if TYPE_CHECKING:
    from labwright.client import AsyncLab

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of runs and sessions.", show_default=False)]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="SELECTOR",
        help="All that runs on these targets and agents: a name, or crate=1,slot!=3.",
        show_default=False,
    ),
]
OperationOption = Annotated[
    str | None,
    typer.Option("--operation", metavar="OPERATION", help="Only sessions of this operation.", show_default=False),
]


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the command."""
    command(app, panel=panel)(abort)


def abort(caller: Caller, ids: Ids = None, on: On = None, operation: OperationOption = None) -> None:
    """End early what runs: runs and sessions by id, or everything on the targets and agents that --on chooses.

    Sessions of agents are ended without `serve`, too.

    Examples:
      labwright abort run_01JC ses_01JD
      labwright abort --on 'crate=1'
      labwright abort --on s2 --operation take_noise
    """
    if bool(ids) == bool(on) or (operation and not on):
        raise UsageError(
            "abort needs ids, or --on",
            because="--operation needs --on" if operation else "both were given" if ids else "neither was given",
            cure="labwright abort run_01JC, or labwright abort --on s2",
        )
    caller.with_lab(lambda lab: _abort(caller, lab, ids or (), on, operation))


async def _abort(caller: Caller, lab: AsyncLab, ids: Sequence[str], on: str | None, operation: str | None) -> None:
    if on is None:
        named = [each for each in ids if not each.startswith("ses_")]
        runs = await found_runs(lab, named, {}) if named else []
        sessions = {each: None for each in ids if each.startswith("ses_")}
    else:
        runs = await _runs_on(caller, lab, on) if operation is None else []
        sessions = await _sessions_on(lab, on, operation)
        if not runs and not sessions:
            message = f"nothing runs on {on}"
            raise NotFoundError(message, cure="see labwright runs list, and labwright sessions list")
    agents: dict[str, str | None] = {**sessions}
    items = await ended_each(
        caller, list(sessions), lambda session_id: end_session(lab, session_id, "abort", agent=agents[session_id])
    )
    ended = await abort_chosen(caller, lab, runs) if runs else []
    _show(caller, [*items, *ended])


async def _runs_on(caller: Caller, lab: AsyncLab, on: str) -> list[str]:
    """Find the open runs on targets; without a lab there is nobody who runs them."""
    try:
        return await found_runs(lab, (), {"state": OPEN, "on": on})
    except UnreachableError as error:
        caller.output.talk(f"note: {error.message}, so only sessions of agents are looked at")
        return []


async def _sessions_on(lab: AsyncLab, on: str, operation: str | None) -> dict[str, str | None]:
    """Find the open sessions of the agents that a selector chooses; gives the agent of each."""
    from labwright.core.model import SessionState, Target
    from labwright.core.selectors import select

    agents = {
        each["name"]: Target(name=each["name"], labels={**each.get("labels", {}), "class": str(each.get("class"))})
        for each in await lab.agents()
    }
    chosen: dict[str, str | None] = {}
    for target in select(on, agents.values()):
        for session in (await lab.agent_shown(target.name)).get("sessions", ()):
            if not SessionState(session["state"]).is_final and operation in {None, session["operation"]}:
                chosen[session["id"]] = target.name
    return chosen


def _show(caller: Caller, items: list[dict[str, Any]]) -> None:
    open_states = {*OPEN.split(","), "starting", "stopping"}

    def show_all() -> None:
        for item in items:
            what = item.get("task") or f"{item['operation']} on {item['agent']}"
            state = "asked to end" if item["state"] in open_states else item["state"]
            caller.output.text(f"{item['id']} {what}: {state}")

    caller.output.items(items, show_all)
