"""`labwright feeds`: what agents publish while they run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli.caller import Caller, command, group

if TYPE_CHECKING:
    from labwright.client import AsyncLab

feeds = group("What agents publish: samples of readings, live.")

Agent = Annotated[
    str | None, typer.Option("--agent", metavar="NAME", help="Only feeds of this agent.", show_default=False)
]
Feed = Annotated[str | None, typer.Argument(metavar="FEED", help="Only the feed of this name.", show_default=False)]


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    app.add_typer(feeds, name="feeds", rich_help_panel=panel)


@command(feeds, "list")
def list_feeds(caller: Caller, agent: Agent = None) -> None:
    """List the feeds of the agents that are here. Needs no `serve`.

    Example:
      labwright feeds list --agent monitor
    """
    items = caller.with_lab(lambda lab: lab.feeds(agent))
    rows = ([item["agent"], item["feed"]] for item in items)
    caller.output.items(items, lambda: caller.output.table(("agent", "feed"), rows, nothing="no feeds"))


@command(feeds, "watch")
def watch(caller: Caller, feed: Feed = None, agent: Agent = None) -> None:
    """Print the samples of feeds as they come, until Ctrl-C; JSON lines with --json. Needs no `serve`.

    Examples:
      labwright feeds watch --agent monitor
      labwright feeds watch pressure --agent pump-1 --json
    """
    caller.with_lab(lambda lab: _watch(caller, lab, agent, feed))


async def _watch(caller: Caller, lab: AsyncLab, agent: str | None, feed: str | None) -> None:
    from contextlib import aclosing

    caller.output.talk("listening; Ctrl-C ends it")
    async with aclosing(lab.watch_feed(agent, feed)) as samples:
        async for sample in samples:
            caller.output.line(sample, _line(sample))


def _line(sample: dict[str, Any]) -> str:
    from labwright.cli.pages import pairs

    at = datetime.fromtimestamp(sample["at"], UTC).isoformat(timespec="milliseconds")[11:23]
    return f"{at} {sample['agent']} {sample['feed']}  {pairs(sample['data'])}"
