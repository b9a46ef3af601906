"""`labwright decisions`: what was decided, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from labwright.cli.caller import Caller, command, group
from labwright.cli.options import Cursor, Limit

decisions = group("What was decided, and why.")


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    app.add_typer(decisions, name="decisions", rich_help_panel=panel)


@command(decisions, "list")
def list_decisions(caller: Caller, limit: Limit = 50, cursor: Cursor = None) -> None:
    """List decisions, newest first: the event, and how many rules fired and failed.

    Example:
      labwright decisions list --limit 10
    """
    page = caller.ask("decisions", limit=limit, cursor=cursor)

    def show() -> None:
        columns = ("id", "event", "subject", "fired", "failed", "requests", "held", "at")
        caller.output.table(columns, map(_row, page["items"]), nothing="no decisions yet")

    caller.output.items(page["items"], show, cursor=page["next_cursor"])


def _row(decision: dict[str, Any]) -> list[Any]:
    outcomes = [rule["outcome"] for rule in decision["rules"]]
    event = decision["event"]
    numbers = [outcomes.count("fired"), outcomes.count("failed"), len(decision["requests"])]
    return [decision["id"], event["type"], event.get("subject"), *numbers, decision["held"], decision["at"]]


@command(decisions, "show")
def show(
    caller: Caller, decision: Annotated[str, typer.Argument(metavar="ID", help="Its id, or that of its event.")]
) -> None:
    """Show one decision: each rule's outcome with its reasons, and the requests that followed.

    Use it to learn why a rule fired, or why it did not: each condition is true, false or missing.

    Example:
      labwright decisions show collection-993677-end
    """
    from labwright.cli.pages import show_decision

    found = caller.ask("decision", decision_id=decision)
    caller.output.document(found, lambda: show_decision(caller.output, found))
