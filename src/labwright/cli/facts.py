"""`labwright facts`: what a rule would see."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from labwright.cli.caller import Caller, command, group
from labwright.core.errors import NotFoundError, UnreachableError

facts = group("What is known about a subject, as rules see it.")


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    app.add_typer(facts, name="facts", rich_help_panel=panel)


@command(facts, "show")
def show(
    caller: Caller,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="What an event is about, such as 993677.")],
) -> None:
    """Show the facts about a subject, from every source of the site.

    Use it when a condition is `missing` in a decision, to see what the sources say. Needs no running lab.

    Example:
      labwright facts show 993677
    """
    found = _facts(caller, subject)
    if not found:
        raise NotFoundError(
            f"nothing is known about {subject!r}",
            because="no source of facts tells anything about it",
            cure="see [facts] in labwright.toml, and the site's @fact_source functions",
        )

    def show_all() -> None:
        caller.output.table(("fact", "value"), found.items())

    caller.output.document({"subject": subject, "facts": found}, show_all)


def _facts(caller: Caller, subject: str) -> dict[str, Any]:
    try:
        return caller.ask("facts", subject=subject)
    except UnreachableError:
        caller.output.talk("no lab is running here: this is what the site's files say")
    caller.output.shield()
    return caller.run(_looked_up(caller, subject))


async def _looked_up(caller: Caller, subject: str) -> dict[str, Any]:
    from labwright.run.engine import DIALECTS
    from labwright.run.site_host import SiteHost

    async with SiteHost(caller.settings(), dialects=DIALECTS) as site:
        return await site.facts(subject)
