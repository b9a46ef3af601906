"""`labwright feeds`: what agents publish while they run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli.caller import Caller, command, ended_by_interruption, group
from labwright.cli.described import nearest_of
from labwright.core.clock import to_text
from labwright.core.errors import NotFoundError

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
    items = caller.with_lab(lambda lab: _feeds(caller, lab, agent))
    rows = ([item["agent"], item["feed"]] for item in items)
    caller.output.items(items, lambda: caller.output.table(("agent", "feed"), rows, nothing="no feeds"))


async def _feeds(caller: Caller, lab: AsyncLab, agent: str | None) -> list[dict[str, Any]]:
    try:
        return await lab.feeds(agent)
    except NotFoundError as error:
        caller.output.talk(f"note: {error.message}")
        return []


@command(feeds, "watch")
def watch(caller: Caller, feed: Feed = None, agent: Agent = None) -> None:
    """Print the samples of feeds as they come, until Ctrl-C; JSON lines with --json. Needs no `serve`.

    Examples:
      labwright feeds watch --agent monitor
      labwright feeds watch pressure --agent pump-1 --json
    """
    with ended_by_interruption():
        caller.with_lab(lambda lab: _watch(caller, lab, agent, feed))


async def _watch(caller: Caller, lab: AsyncLab, agent: str | None, feed: str | None) -> None:
    from contextlib import aclosing

    await _check(lab, agent, feed)
    caller.output.talk("listening; Ctrl-C ends it")
    async with aclosing(lab.watch_feed(agent, feed)) as samples:
        async for sample in samples:
            shown = {**sample, "at": to_text(datetime.fromtimestamp(sample["at"], UTC))}
            caller.output.line(shown, _line(shown))


async def _check(lab: AsyncLab, agent: str | None, feed: str | None) -> None:
    """See that there is what is to be watched.

    Raises:
        NotFoundError: no such agent or feed is here; it names what is.
    """
    if agent is None and feed is None:
        return
    here = await lab.feeds(agent)
    names = sorted({each["feed"] for each in here})
    if feed is None or feed in names:
        return
    near = nearest_of(feed, names)
    where = f"{agent} has no feed" if agent else "there is no feed"
    raise NotFoundError(
        f"{where} {feed!r} now",
        because=f"there are: {', '.join(names)}" if names else "there is none: one begins with its first sample",
        cure=f"did you mean {near!r}?" if near else "start what publishes it, and see labwright feeds list",
    )


def _line(sample: dict[str, Any]) -> str:
    from labwright.cli.pages import pairs

    return f"{sample['at'][11:23]} {sample['agent']} {sample['feed']}  {pairs(sample['data'])}"
