"""`labwright emit` and `labwright events`: send an event, see what came in, decide again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli.caller import Caller, command, group
from labwright.cli.options import Cursor, EventFile, Limit, Timeout, Wait, read_input
from labwright.core.errors import UsageError

if TYPE_CHECKING:
    from labwright.cli.waiting import Waited
    from labwright.client import AsyncLab, Emitted

events = group("What came in, and what was decided about it.")

STATES = ("received", "decided", "set_aside", "released")
EventId = Annotated[str, typer.Argument(metavar="ID", help="The event's id, or its key.")]
EventState = Annotated[
    str | None,
    typer.Option(
        "--state",
        metavar="STATE",
        help=f"Only events in this state: {', '.join(STATES)}.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only show what the rules of now would decide.", show_default=False)
]


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    command(app, panel=panel)(emit)
    app.add_typer(events, name="events", rich_help_panel=panel)


def emit(caller: Caller, event: EventFile, wait: Wait = False, timeout: Timeout = None) -> None:
    """Send an event into the lab and print its id.

    Use it from scripts, data acquisition or by hand. Sending the same event again is safe: source and id together are
    its identity, and the same identity with other content is refused (exit 6). With --wait, follow everything that the
    event causes to its end.

    Examples:
      labwright emit events/end-of-rotation.json
      labwright emit events/end-of-rotation.json --wait --timeout 600
      echo '{"type": "sample.loaded"}' | labwright emit -
    """
    if timeout is not None and not wait:
        raise UsageError("--timeout needs --wait", because="without it nothing is waited for", cure="add --wait")
    content = read_input(event)
    if not wait:
        emitted = caller.with_lab(lambda lab: lab.emit(content))
        caller.output.document(_fields(emitted), lambda: _show_emitted(caller, emitted))
        return
    caller.with_lab(lambda lab: _emit_and_wait(caller, lab, content, timeout))


async def _emit_and_wait(caller: Caller, lab: AsyncLab, content: bytes, timeout_s: float | None) -> None:
    from labwright.cli.waiting import about, show_end, wait

    emitted = await lab.emit(content)
    if not caller.output.as_json:
        caller.output.text(emitted.id)
    caller.output.talk("sent; Ctrl-C stops waiting, the work goes on")
    with about(f"the event {emitted.id}", cure=f"labwright events decide {emitted.id}"):
        waited = await wait(caller.output, lab, lab.follow_event(emitted), timeout_s)
    caller.output.document({**_fields(emitted), **_fields_of_end(waited)}, lambda: None)
    show_end(caller.output, waited)
    if waited.timeout is not None:
        raise waited.timeout
    if waited.has_failed:
        raise typer.Exit(1)


def _fields(emitted: Emitted) -> dict[str, Any]:
    return {"id": emitted.id, "source": emitted.source, "key": emitted.key, "is_new": emitted.is_new}


def _fields_of_end(waited: Waited) -> dict[str, Any]:
    from labwright.cli.waiting import run_fields

    return {"decision": waited.decision, "runs": [run_fields(run) for run in waited.runs.values()]}


def _show_emitted(caller: Caller, emitted: Emitted) -> None:
    caller.output.text(emitted.id)
    if not emitted.is_new:
        caller.output.talk("the lab has this event already; nothing was done again")


@command(events, "list")
def list_events(caller: Caller, state: EventState = None, limit: Limit = 50, cursor: Cursor = None) -> None:
    """List events, newest first.

    Use it to see what came in; `--state set_aside` shows those whose rules crashed or hung.

    Example:
      labwright events list --limit 10
    """
    if state is not None and state not in STATES:
        raise UsageError(
            f"--state {state} is no state of an event",
            because=f"the states are: {', '.join(STATES)}",
            cure="labwright events list --state set_aside",
        )
    page = caller.ask("events", limit=limit, cursor=cursor, state=state)
    columns = ("id", "type", "subject", "state", "runs", "received")

    def show() -> None:
        names = ("id", "type", "subject", "state", "runs", "received_at")
        caller.output.table(
            columns, ([item[name] for name in names] for item in page["items"]), nothing="no events yet"
        )

    caller.output.items(page["items"], show, cursor=page["next_cursor"])


@command(events, "show")
def show_event(caller: Caller, event: EventId) -> None:
    """Show one event: what it says, how far it has come, and what holds it up.

    Example:
      labwright events show collection-993677-end
    """
    found = caller.ask("event", event_id=event)

    def show() -> None:
        output = caller.output
        output.text(f"{found['id']}  {found['type']}")
        for name in ("key", "source", "subject", "state", "received_at", "decision"):
            output.text(f"  {name.removesuffix('_at'):<10}{found[name] or '-'}")
        for run in found["runs"]:
            output.text(f"  run       {run}")
        _show_content(caller, found)

    caller.output.document(found, show)


def _show_content(caller: Caller, found: dict[str, Any]) -> None:
    import json

    from labwright.cli.pages import show_error

    caller.output.text(json.dumps(found["event"], indent=2, ensure_ascii=False))
    if found["error"]:
        show_error(caller.output, found["error"])
    if found["decision"]:
        caller.output.talk(f"next: labwright decisions show {found['decision']}")


@command(events, "decide")
def decide(caller: Caller, event: EventId, dry_run: DryRun = False) -> None:
    """Decide an event again: one that was set aside for good, or any with --dry-run.

    Use --dry-run after a change of rules (`labwright reload`) to see what they would now make of a past event; nothing
    runs. Without it, an event that was set aside because a rule crashed or hung is decided once more.

    Examples:
      labwright events decide collection-993677-end --dry-run
      labwright events decide evt_3f2a...
    """
    if dry_run:
        from labwright.cli.pages import show_decision

        decision = caller.with_lab(lambda lab: lab.decide_again(event))
        caller.output.document(decision, lambda: show_decision(caller.output, decision))
        return
    seq = caller.with_lab(lambda lab: lab.release(event))
    caller.output.document(
        {"id": event, "state": "released", "seq": seq}, lambda: caller.output.text(f"{event} will be decided once more")
    )
