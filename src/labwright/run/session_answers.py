"""What a running lab answers about agents, their sessions and the files of their instruments."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from labwright.agents.handle import AgentHandle
from labwright.agents.shown import session_fields
from labwright.core.errors import LabwrightError, NotFoundError, UsageError
from labwright.core.model import SessionSnapshot
from labwright.journal.journal import Journal
from labwright.journal.state import SessionEntry
from labwright.journal.stay_fold import StayEntry
from labwright.run.agents_here import AgentsHere
from labwright.run.folding import Folding

KNOWN_S = 5.0
"""So long an answer waits until it is known who is here, after the lab's start."""
MOST_NAMED = 20
SENDER = "serve"
PATIENCE_S = 1.0
"""So long an agent is asked for a session of its predecessor."""


class SessionAnswers:
    """Answers questions about agents, sessions and files; each is a method, named as in `ask.<name>`."""

    def __init__(self, journal: Journal, folding: Folding, here: AgentsHere) -> None:
        self._journal = journal
        self._folding = folding
        self._here = here

    async def ask_agents(self) -> list[dict[str, Any]]:
        """List the agents that are here, with the ids of their open sessions."""
        await self._know()
        return [self._agent(name) for name in sorted(self._here.agents)]

    async def ask_agent(self, name: str) -> dict[str, Any]:
        """Give one agent that is here, with its newest sessions."""
        await self._know()
        if name not in self._here.agents:
            raise self._no_agent(name)
        entries, _ = self._folding.view.sessions({"agent": name})
        return {**self._agent(name), "newest": [self._shown(entry) for entry in entries]}

    async def ask_agent_history(
        self, filters: Mapping[str, Any] | None = None, limit: int = 50, cursor: str | None = None
    ) -> dict[str, Any]:
        """Give a page of who was here when, newest first."""
        entries, after = self._folding.view.stays(filters or {}, limit=limit, cursor=cursor)
        return {"items": [stay_fields(entry) for entry in entries], "next_cursor": after}

    async def ask_agents_away(self) -> list[dict[str, Any]]:
        """List the agents that were here and are not, each with its newest stay."""
        await self._know()
        stays = self._folding.present.stays
        return [stay_fields(stays[name]) for name in sorted(stays) if name not in self._here.agents]

    def _agent(self, name: str) -> dict[str, Any]:
        running = [entry.session.id for entry in self._folding.present.sessions.values() if entry.session.agent == name]
        return {**self._here.agents[name], "sessions": running}

    def _no_agent(self, name: str) -> NotFoundError:
        names = sorted(self._here.agents)
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        return NotFoundError(
            f"there is no agent {name!r} here",
            because=f"here are: {', '.join(names[:MOST_NAMED])}" if names else "no agent is here",
            cure=f"did you mean {nearest[0]!r}?"
            if nearest
            else "start it: labwright agent start MODULE:CLASS --name N",
        )

    async def ask_sessions(
        self, filters: Mapping[str, Any] | None = None, limit: int = 50, cursor: str | None = None
    ) -> dict[str, Any]:
        """Give a page of sessions; an open one whose agent is absent is lost."""
        await self._know()
        view = self._folding.view
        entries, after = view.sessions(filters or {}, present=self._here.agents, limit=limit, cursor=cursor)
        shown = await asyncio.gather(*(self._shown_now(entry) for entry in entries))
        return {"items": shown, "next_cursor": after}

    async def ask_session(self, session_id: str, agent: str | None = None) -> dict[str, Any]:
        """Give one session, by its id or the beginning of it."""
        await self._know()
        return await self._shown_now(self._session(session_id, agent))

    def _session(self, session_id: str, agent: str | None) -> SessionEntry:
        view, present = self._folding.view, self._folding.present
        unwritten = [entry for entry in present.sessions.values() if entry.session.id == session_id]
        known = view.sessions_with_id(session_id) or unwritten
        found = [entry for entry in known if agent in {None, entry.session.agent}]
        if len(found) == 1:
            key = found[0].key
            return present.sessions.get(key) or present.recall.session_entry(key) or found[0]
        if found:
            message = f"several agents have a session {session_id!r}"
            raise UsageError(message, because=", ".join(entry.session.agent for entry in found), cure="name the agent")
        ids = view.session_ids(session_id) if len(session_id) > len("ses_") else []
        if len(ids) == 1 and ids[0] != session_id:
            return self._session(ids[0], agent)
        message = f"{session_id!r} is the beginning of several ids" if ids else f"there is no session {session_id!r}"
        raise NotFoundError(message, because=", ".join(ids), cure="see labwright sessions list")

    def of_run(self, run_id: str, most: int) -> list[dict[str, Any]]:
        """Give the sessions that steps of a run have asked for, in their order."""
        entries, _ = self._folding.view.sessions({"run": run_id}, limit=most)
        return [self._shown(entry) for entry in reversed(entries)]

    async def ask_files(
        self, filters: Mapping[str, Any] | None = None, limit: int = 50, cursor: str | None = None
    ) -> dict[str, Any]:
        """Give a page of the files that instruments have announced."""
        files, after = self._folding.view.files(filters or {}, limit=limit, cursor=cursor)
        return {"items": [file.model_dump(mode="json") for file in files], "next_cursor": after}

    def _shown(self, entry: SessionEntry) -> dict[str, Any]:
        return session_fields(entry.session, is_here=entry.session.agent in self._here.agents)

    async def _shown_now(self, entry: SessionEntry) -> dict[str, Any]:
        """Show a session; of one that is open and older than its agent's process, the agent is asked."""
        session = entry.session
        said = self._here.agents.get(session.agent)
        if said is None or session.state.is_final or not _is_older(session, said):
            return self._shown(entry)
        agent = AgentHandle(self._journal, session.agent, sender=SENDER, patience_s=PATIENCE_S)
        try:
            return session_fields(await agent.session(session.id).status())
        except NotFoundError:  # it came back without its ledger
            return session_fields(session, is_here=False)
        except (LabwrightError, TimeoutError):
            return self._shown(entry)

    async def _know(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KNOWN_S):
                await self._here.known.wait()


def _is_older(session: SessionSnapshot, said: Mapping[str, Any]) -> bool:
    try:
        return session.started_at < datetime.fromisoformat(str(said.get("since")))
    except (ValueError, TypeError):
        return False


def stay_fields(entry: StayEntry) -> dict[str, Any]:
    """Give a stay as people see it."""
    return entry.stay.model_dump(mode="json", by_alias=True)


def session_line(shown: Mapping[str, Any]) -> str:
    """Say in one line what a session is and how far it has come."""
    error = f": {shown['error']['message']}" if shown["error"] else ""
    return f"{shown['operation']} on {shown['agent']} {shown['state']}{error}"
