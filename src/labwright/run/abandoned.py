"""Sessions that a call of a fleet has left behind: it was aborted while no worker was in it that could end them.

The worker that makes a call aborts what it has started. Where it was killed, whoever leads does that.
"""

from __future__ import annotations

import asyncio
import contextlib

from labwright.agents.fleet_target import UNREADABLE
from labwright.agents.handle import AgentHandle
from labwright.core.errors import LabwrightError
from labwright.core.model import Run, RunState
from labwright.journal.journal import Journal
from labwright.journal.state import Changes, Present, SessionEntry
from labwright.run.fleets import CALL

SENDER = "serve"
PATIENCE_S = 5.0
"""How long an agent is asked; one that is away is asked when it has come back and taken the session up again."""


class AbandonedSessions:
    """Has them end while `lead` runs; `note` is told what has changed."""

    def __init__(self, journal: Journal, present: Present) -> None:
        self._journal = journal
        self._present = present
        self._found: asyncio.Queue[SessionEntry] | None = None

    def note(self, changes: Changes) -> None:
        """Look at the sessions that have changed, and at those of runs that have ended."""
        if self._found is None:
            return
        over = {run_id for run_id, entry in changes.runs.items() if _is_aborted_call(entry.run)}
        beside = [entry for entry in self._present.sessions.values() if entry.session.run in over] if over else []
        for entry in (*changes.sessions.values(), *beside):
            self._look_at(entry)

    async def lead(self) -> None:
        """End what was left behind before, and what will be, for ever."""
        found = self._found = asyncio.Queue()
        try:
            for entry in list(self._present.sessions.values()):
                self._look_at(entry)
            async with asyncio.TaskGroup() as group:
                while True:
                    group.create_task(self._end(await found.get()))
        finally:
            self._found = None

    def _look_at(self, entry: SessionEntry) -> None:
        run_id = entry.session.run
        if self._found is None or run_id is None or entry.session.state.is_final or run_id in self._present.runs:
            return
        run = self._present.recall.run(run_id)
        if run is not None and _is_aborted_call(run.run):
            self._found.put_nowait(entry)

    async def _end(self, entry: SessionEntry) -> None:
        session = entry.session
        agent = AgentHandle(self._journal, session.agent, sender=SENDER, by=session.by, patience_s=PATIENCE_S)
        with contextlib.suppress(LabwrightError, TimeoutError, *UNREADABLE):
            await agent.session(session.id).abort(f"{session.run}, which called it, was aborted")


def _is_aborted_call(run: Run) -> bool:
    return run.task == CALL and run.state is RunState.ABORTED
