"""From the journal to the present and the view: one follower, one fold, and everybody who wants to know is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labwright.core.errors import EngineError, UnreachableError
from labwright.core.logs import get_logger
from labwright.journal.journal import Entry, Journal
from labwright.journal.state import Changes, EventEntry, FileSeen, Present, RunEntry, SessionEntry
from labwright.journal.view import View

SUBJECTS = ("event.>", "run.>", "dispatch.>", "pool.>", "session.>", "file.>", "agent.>", "schedule.>")
MOST_UNWRITTEN = 20_000
PATIENCE_S = 60.0
WRITE_PAUSE_S = 0.02
"""The view gathers what comes in this time, so that a run of many steps is not written once for each."""
AGAIN_S = 0.2

log = get_logger(__name__)

Listener = Callable[[list[Entry], Changes], None]


class Folding:
    """Follows the journal from where the view stands; `present` is ahead of the view by what is not written yet."""

    def __init__(self, journal: Journal, path: Path) -> None:
        self.view = View(path)
        self.present = Present(recall=_Written(self))
        self.listeners: list[Listener] = []
        self.caught_up = asyncio.Event()
        self._journal = journal
        self.unwritten = Changes()
        self.writing = Changes()
        self._came = asyncio.Event()
        self._folded = asyncio.Condition()
        self._load()

    def _load(self) -> None:
        present, view = self.present, self.view
        present.load(view.open_runs(), view.unreacted_events(), view.open_sessions())
        present.hand_outs.update(view.hand_outs())
        present.pools.update(view.pools())
        present.stays.update((entry.stay.agent, entry) for entry in view.newest_stays())
        present.schedules.update((entry.schedule.name, entry) for entry in view.schedules())
        present.seq = view.seq

    async def run(self) -> None:
        """Fold for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._write())

    async def folded(self, seq: int) -> None:
        """Wait until the present is folded up to a sequence."""
        async with self._folded:
            await self._folded.wait_for(lambda: self.present.seq >= seq)

    async def restored(self, value: Any) -> Any:
        """Bring back what was too large for a record."""
        return await self._journal.restore(value)

    async def _check_view(self) -> None:
        """Fold everything again where the journal is another one, and shorter, than the view was folded from."""
        while True:
            try:
                last = await self._journal.last_seq()
            except (UnreachableError, TimeoutError, EngineError):
                await asyncio.sleep(AGAIN_S)
            else:
                break
        if last < self.present.seq:
            log.warning("the view is ahead of the journal, so it is folded again", view=self.present.seq, journal=last)
            await self.view.clear()
            self.present.clear()

    async def _follow(self) -> None:
        await self._check_view()
        async for entries in self._journal.follow(SUBJECTS, after=self.present.seq):
            if not entries:
                self.caught_up.set()
                continue
            changes = self.present.take(entries)
            _merge(self.unwritten, changes)
            self._came.set()
            for listener in self.listeners:
                listener(entries, changes)
            async with self._folded:
                self._folded.notify_all()
            while self.unwritten.size > MOST_UNWRITTEN:  # noqa: ASYNC110 - seldom, and short
                await asyncio.sleep(0.01)

    async def _write(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            self.writing, self.unwritten = self.unwritten, Changes()
            if self.writing.seq:
                await self.view.write(self.writing)
            self.writing = Changes()
            await asyncio.sleep(WRITE_PAUSE_S)


class _Written:
    """What is known of what is not open: on its way into the view, or in it."""

    def __init__(self, folding: Folding) -> None:
        self._folding = folding

    def run(self, run_id: str) -> RunEntry | None:
        folding = self._folding
        return folding.unwritten.runs.get(run_id) or folding.writing.runs.get(run_id) or folding.view.run(run_id)

    def event(self, key: str) -> EventEntry | None:
        folding = self._folding
        return folding.unwritten.events.get(key) or folding.writing.events.get(key) or folding.view.event(key)

    def session_entry(self, key: str) -> SessionEntry | None:
        folding = self._folding
        known = folding.unwritten.sessions.get(key) or folding.writing.sessions.get(key)
        return known or folding.view.session_entry(key)

    def file(self, file_id: str) -> FileSeen | None:
        folding = self._folding
        known = folding.unwritten.files.get(file_id) or folding.writing.files.get(file_id)
        return known or folding.view.file(file_id)


def _merge(whole: Changes, more: Changes) -> None:
    whole.runs.update(more.runs)
    whole.events.update(more.events)
    for run_id in more.freed:
        whole.hand_outs.pop(run_id, None)
    whole.freed |= more.freed
    whole.hand_outs.update(more.hand_outs)
    whole.pools.update(more.pools)
    whole.sessions.update(more.sessions)
    whole.files.update(more.files)
    whole.stays.update(more.stays)
    whole.schedules.update(more.schedules)
    whole.seq = more.seq
