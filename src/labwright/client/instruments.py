"""The part of the asynchronous handle that reaches agents, their sessions, feeds and files, and asks the lab."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from labwright.agents.handle import AgentHandle, SessionHandle
from labwright.agents.shown import session_fields
from labwright.agents.wire import ENDED
from labwright.client.agents import chosen_by, described, feeds_of, present, recorded_session, samples
from labwright.client.asking import ask
from labwright.client.ids import checked_id
from labwright.client.logs import closing, logged
from labwright.core.errors import LabwrightError, NotFoundError, UnreachableError
from labwright.core.ids import LENGTH
from labwright.core.model import SessionSnapshot, SessionState
from labwright.core.remote import error_of
from labwright.journal.connection import Connection
from labwright.journal.journal import Journal

WHOLE_ID = len("ses_") + LENGTH
RECORDED_S = 2.0
"""By so much the journal may know of a session later than whoever has started it."""
AGAIN_S = 0.1


def is_last_line(line: Mapping[str, Any]) -> bool:
    """Tell whether this is the last line of a session's log, with which its agent says that it has ended."""
    return line["level"] == "debug" and ENDED in line.get("fields", {})


class Instruments:
    """The agents of a lab: reached directly, so that they answer while nobody serves; history is asked of the lab."""

    def __init__(self, connection: Connection, by: str) -> None:
        self.journal = Journal(connection)
        self.by = by
        self._connection = connection

    async def ask(self, question: str, **arguments: Any) -> Any:
        """Ask the lab that runs.

        Raises:
            UnreachableError: no lab answers.
            LabwrightError: what the lab says is wrong with the question.
        """
        fresh = max(self.journal.seen, int(arguments.pop("seq", 0)))
        answer = await ask(self._connection, question, {**arguments, "seq": fresh})
        if "error" in answer:
            raise error_of(answer)
        return answer["result"]

    # --- agents ------------------------------------------------------------------------------------------------------

    def agent(self, name: str) -> AgentHandle:
        """Give the handle on an agent: its operations are attributes, `lab.agent("s2").take_noise`.

        Nothing is asked yet: an agent that is not here says so when something is wanted of it.
        """
        return AgentHandle(self.journal, name, sender=self.by, by=self.by)

    async def agents(self, on: str | None = None) -> list[dict[str, Any]]:
        """List the agents that are here, or those that a selector chooses, as each announces itself.

        Needs no `serve`.

        Raises:
            SelectorError: the selector cannot be read.
        """
        here = await present(self._connection)
        return chosen_by(on or "all", here.values())

    async def agents_away(self, on: str | None = None) -> list[dict[str, Any]]:
        """List the agents that were here and are not: as each announced itself, `gone_at` and `why`."""
        stays = await self.ask("agents_away")
        return chosen_by(on or "all", ({"name": stay.pop("agent"), **stay} for stay in stays))

    async def agent_history(
        self, agent: str | None = None, *, since: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> dict[str, Any]:
        """List who was here when, newest first, those that lasted at `since` or began later.

        `{"items": [stay], "next_cursor": ...}`
        """
        filters = {"agent": agent, "since": since}
        return await self.ask("agent_history", filters=filters, limit=limit, cursor=cursor)

    async def agent_shown(self, name: str) -> dict[str, Any]:
        """Describe an agent, with its operations, the JSON schemas of their parameters, and its sessions.

        Raises:
            NotFoundError: no agent of that name is here.
        """
        return await described(self._connection, name)

    async def feeds(self, agent: str | None = None) -> list[dict[str, Any]]:
        """List the feeds of the agents that are here, or of one: `{"agent", "feed", ...}`."""
        return await feeds_of(self._connection, agent)

    async def watch_feed(self, agent: str | None = None, feed: str | None = None) -> AsyncGenerator[dict[str, Any]]:
        """Give, for ever, the samples of a feed, of an agent's feeds, or of all: `{"agent", "feed", "at", "data"}`."""
        async with closing(samples(self._connection, agent, feed)) as all_samples:
            async for sample in all_samples:
                yield sample

    async def sessions(self, *, limit: int = 50, cursor: str | None = None, **filters: Any) -> dict[str, Any]:
        """List sessions, newest first: `{"items": [session], "next_cursor": ...}`.

        Filters: `state` (several by comma), `agent`, `operation`, `run`, `since`.
        """
        chosen = {name: value for name, value in filters.items() if value is not None}
        return await self.ask("sessions", filters=chosen, limit=limit, cursor=cursor)

    async def session_shown(self, session_id: str) -> dict[str, Any]:
        """Give one session as it is now: of its agent, or else as far as the journal tells.

        Raises:
            NotFoundError: there is no such session.
        """
        shown = await self._session_known(session_id)
        if SessionState(shown["state"]).is_final:
            return shown
        with contextlib.suppress(LabwrightError, TimeoutError):
            try:
                return session_fields(await (await self.session(shown["id"], agent=shown["agent"])).status())
            except NotFoundError:  # the agent came back without its ledger
                return session_fields(SessionSnapshot.model_validate(shown), is_here=False)
        return shown

    async def _session_known(self, session_id: str) -> dict[str, Any]:
        until = time.monotonic() + RECORDED_S
        while True:
            try:
                return await self._session_asked(session_id)
            except NotFoundError:
                if len(session_id) < WHOLE_ID or time.monotonic() > until:
                    raise
                await asyncio.sleep(AGAIN_S)

    async def _session_asked(self, session_id: str) -> dict[str, Any]:
        try:
            return await self.ask("session", session_id=session_id)
        except UnreachableError:
            return await recorded_session(self.journal, checked_id(session_id, "session"))

    async def session(self, session_id: str, *, agent: str | None = None) -> SessionHandle:
        """Give the handle on a session: to wait for it, to stop or to abort it.

        Raises:
            NotFoundError: there is no such session.
        """
        if agent is not None:
            return self.agent(agent).session(session_id)
        shown = await self._session_known(session_id)
        return self.agent(shown["agent"]).session(shown["id"])

    async def session_log(
        self, session_id: str, *, agent: str | None = None, follow: bool = False
    ) -> AsyncGenerator[dict[str, Any]]:
        """Give the lines of a session's log, as `log` does; with `follow`, also those to its end.

        Raises:
            AgentGoneError: with `follow`, after the lines: the agent is not here, so nothing more comes.
        """
        if agent is None:
            shown = await self._session_known(session_id)
            agent, session_id = str(shown["agent"]), str(shown["id"])
            follow = follow and not shown["ended_at"]
        ended = self.agent(agent).session(session_id).wait() if follow else None
        log = logged(self._connection, f"log.session.{session_id}", ended, is_last=is_last_line)
        async with closing(log) as lines:
            async for line in lines:
                yield line

    async def files(self, *, limit: int = 50, cursor: str | None = None, **filters: Any) -> dict[str, Any]:
        """List the files that instruments have announced, newest first.

        Filters: `agent`, `session`, `action`, `kind`, `path`, `since`.
        """
        chosen = {name: value for name, value in filters.items() if value is not None}
        return await self.ask("files", filters=chosen, limit=limit, cursor=cursor)
