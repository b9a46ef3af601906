"""`labwright targets`: what runs act on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from labwright.cli.caller import Caller, command, group
from labwright.cli.described import loaded, named
from labwright.core.errors import NotFoundError, UnreachableError

targets = group("What runs act on: names, labels, facts.")

On = Annotated[
    str | None,
    typer.Option("--on", metavar="SELECTOR", help="Only these: a name, or crate=1,slot!=3.", show_default=False),
]


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    app.add_typer(targets, name="targets", rich_help_panel=panel)


@command(targets, "list")
def list_targets(caller: Caller, on: On = None) -> None:
    """List the targets with their labels, and what runs on each; also the way to try out a selector.

    Examples:
      labwright targets list
      labwright targets list --on 'crate=1,slot!=3'
    """
    items = _targets(caller, on)
    if on is not None and not items:
        raise NotFoundError(
            f"{on!r} chooses no target",
            because="no target has that name or those labels",
            cure="see labwright targets list",
        )

    def show_all() -> None:
        rows = ([item["name"], _labels(item), item["run"]] for item in items)
        caller.output.table(("name", "labels", "run"), rows, nothing="the site has no targets")

    caller.output.items(items, show_all)


@command(targets, "show")
def show(caller: Caller, target: Annotated[str, typer.Argument(metavar="TARGET", help="The target's name.")]) -> None:
    """Show one target: labels, facts, and the run that is on it.

    Example:
      labwright targets show cluster-7
    """
    found = named(_targets(caller, None), target, "target")

    def show_one() -> None:
        caller.output.text(
            found["name"], f"  labels      {_labels(found) or '-'}", f"  run         {found['run'] or '-'}"
        )
        caller.output.table(("fact", "value"), found["facts"].items(), nothing="no facts are known about it")

    caller.output.document(found, show_one)


def _targets(caller: Caller, on: str | None) -> list[dict[str, Any]]:
    from labwright.core.selectors import select

    if on is not None:
        select(on, ())  # refuse what cannot be read before anybody is asked
    try:
        found = caller.ask("targets", on=on)
    except UnreachableError:
        caller.output.talk("no lab is running here: this is what the site's files say")
    else:
        _warn(caller, caller.ask("site")["findings"])
        return found
    site = loaded(caller)
    _warn(caller, site.findings)
    known = site.targets
    return [{**each.model_dump(mode="json"), "run": None} for each in (select(on, known) if on else known)]


def _warn(caller: Caller, findings: Iterable[str]) -> None:
    for finding in findings:
        caller.output.talk(f"warning: {finding}")


def _labels(target: dict[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in target["labels"].items())
