"""`labwright audit`: what was refused to whom, and who has claimed what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from labwright.cli.caller import Caller, command
from labwright.cli.options import Limit, since

Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="WHEN",
        help="Only what happened since then: 2h, 3d, or 2026-01-02T03:04:05Z.",
        show_default=False,
    ),
]
COLUMNS = ("at", "what happened", "by", "from", "what", "because")


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the command."""
    command(app, panel=panel)(audit)


def audit(caller: Caller, since_text: Since = None, limit: Limit = 50) -> None:
    """List what was refused to whom, and claims as they were made and given back, newest first. Needs no `serve`.

    What was followed stands where it happened, with who has asked: see `runs show` and `sessions show`. What
    nats-server itself refuses is recorded where the lab has started it. `from` is as whoever asked says, and proves
    nothing.

    Examples:
      labwright audit
      labwright audit --since 1d --json
    """
    earliest = datetime.fromisoformat(text) if (text := since(since_text)) else None
    items: list[dict[str, Any]] = caller.with_lab(lambda lab: lab.audit(since=earliest, limit=limit))
    caller.output.items(items, lambda: caller.output.table(COLUMNS, (_row(item) for item in items)))


def _row(item: dict[str, Any]) -> list[str]:
    who = f"{item['by']} ({item['role']})" if item["role"] else item["by"]
    what = f"{item['what']} on {item['agent']}" if item["agent"] else item["what"]
    because = item["error"]["because"] if item["error"] else ""
    return [item["at"], item["kind"], who, item["origin"], what, because]
