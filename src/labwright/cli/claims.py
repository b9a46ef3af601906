"""`labwright claim` and `labwright claims`: having targets for oneself for a time."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from labwright.cli.caller import Caller, command, group
from labwright.cli.options import seconds

claims = group("Who has claimed what, and until when.")

On = Annotated[str, typer.Option("--on", metavar="SELECTOR", help="A name, or a selector such as crate=1,slot!=3.")]
For = Annotated[str, typer.Option("--for", metavar="TIME", help="How long: 90s, 30m, 2h, 3d; 31 days at most.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="What for; others are told.", show_default=False)]
ClaimId = Annotated[str, typer.Argument(metavar="ID", help="The claim's id, or the beginning of it.")]
COLUMNS = ("id", "selector", "by", "until", "reason")


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    command(app, panel=panel)(claim)
    app.add_typer(claims, name="claims", rich_help_panel=panel)


def claim(caller: Caller, *, on: On, lasts: For, reason: Reason = "") -> None:
    """Have targets for yourself for a time; claimed again, your claim is renewed.

    While it lasts, agents refuse what others want to start there, and runs of others on these targets wait. It ends by
    itself, or with `claims release`. A target that somebody else has claimed cannot be claimed: exit 6.

    Examples:
      labwright claim --on pump-1 --for 2h
      labwright claim --on crate=1,slot!=3 --for 1d --reason "night run"
    """
    lasts_s = seconds(lasts, "--for")
    made = caller.with_lab(lambda lab: lab.claim(on, lasts_s, reason=reason))

    def show() -> None:
        caller.output.text(f"{made['selector']} is yours until {made['until']}")
        caller.output.talk(f"give it back: labwright claims release {made['id']}")

    caller.output.document(made, show)


@command(claims, "list")
def list_claims(caller: Caller) -> None:
    """List the claims in force: on what, by whom, until when. Needs no `serve`.

    Example:
      labwright claims list
    """
    items: list[dict[str, Any]] = caller.with_lab(lambda lab: lab.claims())
    caller.output.items(
        items, lambda: caller.output.table(COLUMNS, ([item[name] for name in COLUMNS] for item in items))
    )


@command(claims, "release")
def release(caller: Caller, claim_id: ClaimId, reason: Reason = "") -> None:
    """Give a claim back before its time; an admin may give back that of another.

    Example:
      labwright claims release clm_01JC
    """
    released = caller.with_lab(lambda lab: lab.release_claim(claim_id, reason=reason))
    caller.output.document(released, lambda: caller.output.text(f"{released['selector']} is free again"))
