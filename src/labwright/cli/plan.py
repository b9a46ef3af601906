"""`labwright plan`: what would happen, and why, before anything happens; needs no server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli.caller import Caller, command
from labwright.cli.options import read_input
from labwright.core.errors import UsageError

if TYPE_CHECKING:
    from labwright.core.model import Event

EventFile = Annotated[
    str | None,
    typer.Argument(
        metavar="EVENT.json|-", help="A CloudEvents 1.0 JSON file; - is standard input.", show_default=False
    ),
]
Collections = Annotated[
    list[int] | None,
    typer.Option("--dcid", metavar="N", help="A data collection to look up; may be repeated.", show_default=False),
]
Commands = Annotated[
    bool, typer.Option("--commands", help="Print the command lines that do the same.", show_default=False)
]


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the command."""
    command(app, panel=panel)(plan)


def plan(caller: Caller, event: EventFile = None, dcid: Collections = None, commands: Commands = False) -> None:
    """Show what an event would cause, and why: every rule with its reasons. Nothing runs.

    Use it before an event is sent, while you write rules, and to see why a rule does not fire. It reads the site's
    files and looks up facts, but needs no running lab.

    Examples:
      labwright plan events/end-of-rotation.json
      labwright plan --dcid 993677 --dcid 1052494
      labwright plan --dcid 993677 --commands
    """
    from labwright.cli.pages import show_decision

    if (event is None) == (not dcid):
        raise UsageError(
            "plan needs an event, or data collections",
            because="one of EVENT.json and --dcid says what is to be decided",
            cure="labwright plan event.json, or labwright plan --dcid 993677",
        )
    events = _collections(dcid) if dcid else [_event(event or "-")]
    output = caller.output
    output.shield()
    decided = caller.run(_decided(caller, events))
    if commands:
        _show_commands(caller, decided)
        return

    def show() -> None:
        for number, decision in enumerate(decided):
            if number:
                output.text("")
            show_decision(output, decision)

    if dcid:
        output.items(decided, show)
    else:
        output.document(decided[0], show)


def _event(name: str) -> Event:
    from labwright.core.clock import SystemClock
    from labwright.core.event import parse_event

    return parse_event(read_input(name), clock=SystemClock())


def _collections(dcids: Iterable[int]) -> list[Event]:
    from labwright.compat.mimas import events_of_collection

    return [event for dcid in dcids for event in events_of_collection(dcid)]


async def _decided(caller: Caller, events: Sequence[Event]) -> list[dict[str, Any]]:
    """Decide in a process of its own, as a lab does, so that a rule that crashes or hangs is told as such."""
    from labwright.core.model import utc_now
    from labwright.run.engine import DIALECTS
    from labwright.run.site_host import SiteHost

    decided: list[dict[str, Any]] = []
    async with SiteHost(caller.settings(), dialects=DIALECTS) as site:
        for event in events:
            found = await site.decide(event, utc_now())
            requests = found.decision["requests"]
            runs = [
                {
                    "id": run.id,
                    "request": requests[run.request]["id"],
                    "target": run.target,
                    "error": run.error.model_dump(mode="json", by_alias=True) if run.error else None,
                }
                for run in found.runs
            ]
            decided.append({**found.decision, "runs": runs})
    return decided


def _show_commands(caller: Caller, decided: Sequence[Mapping[str, Any]]) -> None:
    from labwright.compat.mimas import command_line
    from labwright.core.model import RequestRecord

    lines = [
        {
            "event": decision["event"]["type"],
            "subject": decision["event"]["subject"],
            "request": request["id"],
            "command": command_line(RequestRecord.model_validate(request)),
        }
        for decision in decided
        for request in decision["requests"]
    ]

    def show() -> None:
        for line in lines:
            caller.output.text(line["command"])

    caller.output.items(lines, show)
