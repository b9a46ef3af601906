"""`labwright abort`: end early what runs, runs and sessions alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli.caller import Caller, command
from labwright.cli.options import OPEN
from labwright.cli.runs import abort_chosen, found_runs
from labwright.cli.sessions import end_session, ended_each, raise_last
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

    Sessions of agents are ended without `serve`, too. Processes that begin with their agent, such as one that checks
    its state, are left running by --on, unless --operation names them.

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
        found = await _sessions_on(lab, on, operation)
        sessions = found.sessions
        if not runs and not sessions:
            raise await _nothing(lab, on, operation, found)
    agents: dict[str, str | None] = {**sessions}
    items, failures = await ended_each(
        list(sessions), lambda session_id: end_session(lab, session_id, "abort", agent=agents[session_id])
    )
    ended = await abort_chosen(caller, lab, runs) if runs else []
    if items or ended:
        _show(caller, [*items, *ended])
    raise_last(caller, failures)


async def _runs_on(caller: Caller, lab: AsyncLab, on: str) -> list[str]:
    """Find the open runs on targets; without a lab there is nobody who runs them."""
    try:
        return await found_runs(lab, (), {"state": OPEN, "on": on})
    except UnreachableError as error:
        caller.output.talk(f"note: {error.message}, so only sessions of agents are looked at")
        return []


@dataclass(kw_only=True)
class Found:
    """What a selector has found among the agents that are here."""

    here: tuple[str, ...]
    agents: tuple[str, ...]
    """Those that it chooses."""
    operations: set[str] = field(default_factory=set[str])
    """Those of the agents that it chooses."""
    sessions: dict[str, str | None] = field(default_factory=dict[str, str | None])
    """The open sessions that are meant, each with its agent."""
    kept: list[str] = field(default_factory=list[str])
    """The operations of sessions that are left running, since they began with their agents."""


async def _sessions_on(lab: AsyncLab, on: str, operation: str | None) -> Found:
    """Find the open sessions of the agents that a selector chooses.

    Processes that begin with their agent are meant only if they are named.
    """
    from labwright.core.model import SessionState

    here = tuple(each["name"] for each in await lab.agents())
    found = Found(here=here, agents=tuple(each["name"] for each in await lab.agents(on)))
    for name in found.agents:
        shown = await lab.agent_shown(name)
        operations = {each["name"]: each for each in shown.get("operations", ())}
        found.operations |= operations.keys()
        for session in shown.get("sessions", ()):
            wanted = session["operation"]
            if SessionState(session["state"]).is_final or operation not in {None, wanted}:
                continue
            is_standing = session["kind"] == "process" and operations.get(wanted, {}).get("startup", False) is not False
            if is_standing and operation is None:
                found.kept.append(wanted)
            else:
                found.sessions[session["id"]] = name
    return found


async def _nothing(lab: AsyncLab, on: str, operation: str | None, found: Found) -> NotFoundError:
    """Say what it is that is not there: the operation, something that is chosen, or anything that runs."""
    if not found.agents and (operation is not None or not await _targets_on(lab, on)):
        from labwright.client.agents import no_agent

        if on.isidentifier() or not set(on) & set("=!,|*?() "):
            return no_agent(on, found.here)
        return NotFoundError(
            f"nothing is chosen by {on}",
            because=f"agents here are: {', '.join(found.here)}" if found.here else "no agent is here",
            cure="see their names and labels: labwright agents list, and labwright targets list",
        )
    if operation is not None and operation not in found.operations:
        from labwright.cli.described import nearest_of

        near = nearest_of(operation, found.operations)
        return NotFoundError(
            f"no agent of {on} has an operation {operation!r}",
            because=f"there are: {', '.join(sorted(found.operations)) or 'none'}",
            cure=f"did you mean {near!r}?" if near else f"labwright agents show {found.agents[0]}",
        )
    what = f"{operation} does not run on {on}" if operation else f"nothing runs on {on}"
    if found.kept:
        names = ", ".join(sorted(set(found.kept)))
        return NotFoundError(
            what,
            because=f"processes that begin with their agent are left running: {names}",
            cure=f"name one to end it: labwright abort --on '{on}' --operation {found.kept[0]}",
        )
    return NotFoundError(what, cure="see labwright runs list, and labwright sessions list")


async def _targets_on(lab: AsyncLab, on: str) -> bool:
    """Tell whether the site has targets that a selector chooses; without a lab nobody knows any."""
    try:
        return bool(await lab.ask("targets", on=on))
    except UnreachableError:
        return False


def _show(caller: Caller, items: list[dict[str, Any]]) -> None:
    open_states = {*OPEN.split(","), "starting", "stopping"}

    def show_all() -> None:
        for item in items:
            what = item.get("task") or f"{item['operation']} on {item['agent']}"
            state = "asked to end" if item["state"] in open_states else item["state"]
            caller.output.text(f"{item['id']} {what}: {state}")

    caller.output.items(items, show_all)
