"""`labwright rules`: what decides, and on which conditions."""

from __future__ import annotations

from typing import Annotated

import typer

from labwright.cli.caller import Caller, command, group
from labwright.cli.described import described, first_line, named

rules = group("The rules of the site, and their conditions.")


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    app.add_typer(rules, name="rules", rich_help_panel=panel)


@command(rules, "list")
def list_rules(caller: Caller) -> None:
    """List the rules: name, condition and what they are for.

    Example:
      labwright rules list
    """
    items = described(caller)["rules"]

    def show_all() -> None:
        rows = ([item["name"], item["condition"], first_line(item["doc"])] for item in items)
        caller.output.table(("name", "condition", "about"), rows, nothing="the site has no rules")

    caller.output.items(items, show_all)


@command(rules, "show")
def show(caller: Caller, rule: Annotated[str, typer.Argument(metavar="RULE", help="The rule's name.")]) -> None:
    """Show one rule: its condition and its documentation.

    Example:
      labwright rules show mylab.rules:reduce
    """
    found = named(described(caller)["rules"], rule, "rule")

    def show_one() -> None:
        caller.output.text(found["name"], f"  condition   {found['condition']}")
        if found["doc"]:
            caller.output.text(f"  {found['doc']}")

    caller.output.document(found, show_one)
