"""What is asked of agents and of the journal about them, straight over NATS, so that no `serve` is needed."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from typing import Any

from nats.aio.msg import Msg

from labwright.agents.handle import agents_here, describe
from labwright.agents.members import members
from labwright.agents.shown import session_fields
from labwright.core.errors import LabwrightError, NotFoundError
from labwright.core.selectors import select
from labwright.journal.connection import Connection
from labwright.journal.journal import Journal
from labwright.journal.presence import OWNER
from labwright.journal.session_fold import encoded, fold_session

MOST_NAMED = 20


async def described(connection: Connection, name: str) -> dict[str, Any]:
    """Describe an agent that is here.

    Raises:
        NotFoundError: no agent of that name is here.
        AgentGoneError: it is here and does not answer.
    """
    here = await present(connection)
    if name not in here:
        raise no_agent(name, here)
    return {**here[name], **await describe(connection, name)}


async def present(connection: Connection) -> dict[str, dict[str, Any]]:
    """Give the agents that are here, by name, each as it announces itself."""
    here = await agents_here(connection)
    return {name: {key: value for key, value in said.items() if key != OWNER} for name, said in here.items()}


def chosen_by(selector: str, agents: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give the agents that a selector chooses by name, label or class, sorted by name.

    Raises:
        SelectorError: it cannot be read.
    """
    known = {str(each["name"]): dict(each) for each in agents}
    return [known[target.name] for target in select(selector, members({}, known).values())]


def no_agent(name: str, here: Collection[str]) -> NotFoundError:
    """Make the error for an agent that is not here; it names the nearest."""
    nearest = difflib.get_close_matches(name, here, n=1, cutoff=0.5)
    names = ", ".join(sorted(here)[:MOST_NAMED])
    return NotFoundError(
        f"there is no agent {name!r} here",
        because=f"here are: {names}" if here else "no agent is here",
        cure=f"did you mean {nearest[0]!r}?"
        if nearest
        else f"start it: labwright agent start MODULE:CLASS --name {name}",
    )


async def feeds_of(connection: Connection, agent: str | None) -> list[dict[str, Any]]:
    """List the feeds of one agent, or of all that are here; one that does not answer now has none."""
    if agent is not None:
        return _feeds(await described(connection, agent))
    names = sorted(await agents_here(connection))
    found = await asyncio.gather(*(describe(connection, name) for name in names), return_exceptions=True)
    for failure in found:
        if isinstance(failure, BaseException) and not isinstance(failure, LabwrightError | TimeoutError):
            raise failure
    return [feed for each in found if not isinstance(each, BaseException) for feed in _feeds(each)]


def _feeds(description: dict[str, Any]) -> list[dict[str, Any]]:
    feeds: list[Any] = description.get("feeds", [])
    return [
        {"agent": description["name"], **({"feed": feed} if isinstance(feed, str) else _named(feed))} for feed in feeds
    ]


def _named(feed: dict[str, Any]) -> dict[str, Any]:
    return {"feed": feed["name"], **{name: value for name, value in feed.items() if name != "name"}}


async def samples(
    connection: Connection, agent: str | None = None, feed: str | None = None
) -> AsyncGenerator[dict[str, Any]]:
    """Give, for ever, the samples of feeds, one by one: `{"agent", "feed", "at", "data"}`."""
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def hear(message: Msg) -> None:
        heard.put_nowait(json.loads(message.data))

    end = await connection.listen(f"feed.{encoded(agent) if agent else '*'}.{feed or '*'}", hear)
    try:
        while True:
            block = await heard.get()
            for sample in block.get("samples") or [{"at": block.get("at"), "data": block.get("data")}]:
                yield {"agent": block["agent"], "feed": block["feed"], **sample}
    finally:
        await end()


async def recorded_session(journal: Journal, session_id: str) -> dict[str, Any]:
    """Give a session by its whole id, as far as the journal tells; an open one whose agent is absent is lost.

    Raises:
        NotFoundError: the journal has no such session.
    """
    entries = await journal.read(f"session.*.{session_id}")
    subject = entries[0].subject if entries else ""
    session = fold_session((entry.record for entry in entries if entry.subject == subject), session_id)
    if session is None:
        message = f"there is no session {session_id!r}"
        raise NotFoundError(
            message,
            because="the journal has none of that whole id, and no lab is served that knows ids by their beginning",
            cure="labwright serve, then labwright sessions list",
        )
    return session_fields(session, is_here=session.agent in await agents_here(journal.connection))
