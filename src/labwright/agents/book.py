"""The book of an agent's sessions: what stands where, and how it reaches the ledger, the journal and who watches now.

What a session shows goes out at most ten times a second, and into the journal ever more seldom the older it gets; its
start and its end are written at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labwright.agents.commands import Command
from labwright.agents.delivery import Delivery
from labwright.agents.ledger import Ledger, LedgerError
from labwright.agents.session import NOW, Said, Session
from labwright.agents.wire import ENDED, shortened
from labwright.core.errors import UnreachableError
from labwright.core.logs import get_logger
from labwright.core.model import ErrorRecord, SessionSnapshot, SessionState
from labwright.journal.connection import Connection
from labwright.journal.logs import Logs, last_places
from labwright.journal.records import SessionAdopted, SessionChanged, SessionEnded, SessionStarted
from labwright.journal.session_fold import encoded, session_subject

PUSH_S = 0.1
"""Who watches gets at most one state in so many seconds."""
COALESCE_S = 0.05
"""What changes within so many seconds goes out as one; replies go first."""
RECORD_S = 1.0
RECORD_SHARE = 0.01
RECORD_MOST_S = 60.0
"""A session's records are so many seconds apart: 1, or 1 % of its age, and 60 at most."""

LOGGED_S = 2.0
"""How long an agent that comes back asks how far a log has come; unanswered, lines may stand there twice."""

log = get_logger(__name__)


def log_subject(session_id: str) -> str:
    """Give the subject of a session's log."""
    return f"log.session.{session_id}"


@dataclass(eq=False)
class _Page:
    """What is known of one running session beside itself."""

    session: Session
    begun: float = field(default_factory=time.monotonic)
    recorded_at: float = field(default_factory=time.monotonic)
    recorded: SessionSnapshot | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def record_due(self) -> float:
        """When the next record may be written, on the monotonic clock."""
        share = RECORD_SHARE * (time.monotonic() - self.begun)
        return self.recorded_at + min(max(RECORD_S, share), RECORD_MOST_S)


class Book:
    """All sessions of one agent."""

    def __init__(self, agent: str, ledger: Ledger, delivery: Delivery, connection: Connection, logs: Logs) -> None:
        self._agent = agent
        self._ledger = ledger
        self._delivery = delivery
        self._connection = connection
        self._logs = logs
        self._pages: dict[str, _Page] = {}
        self._unseen: dict[str, _Page] = {}
        """Sessions whose newest state has not been pushed."""
        self._unrecorded: dict[str, _Page] = {}
        self._unwritten: dict[str, tuple[_Page, SessionEnded]] = {}
        """Sessions that ended while the ledger could not be written."""
        self._came = asyncio.Event()

    # --- ask ---------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> dict[str, Session]:
        """The sessions that have not ended, by id, the oldest first."""
        return {name: page.session for name, page in self._pages.items() if not page.session.state.is_final}

    def running_of(self, operation: str) -> list[Session]:
        """The sessions of an operation that have not ended, the oldest first."""
        return [session for session in self.running.values() if session.operation == operation]

    def find(self, session_id: str) -> SessionSnapshot | None:
        """Find a session, running or ended, as it stands."""
        page = self._pages.get(session_id)
        return page.session.snapshot if page is not None else self._ledger.session(session_id)

    def is_written(self, session_id: str) -> bool:
        """Tell whether the ledger has the end of a session that has ended; a successor believes the ledger."""
        return session_id not in self._unwritten

    def newest(self, operation: str) -> SessionSnapshot | None:
        """Find the session of an operation that was started last."""
        running = self.running_of(operation)
        return running[-1].snapshot if running else self._ledger.newest(operation)

    async def ended(self, session_id: str) -> SessionSnapshot | None:
        """Wait for a session's end and give it as it then stands; None for one that is not known."""
        page = self._pages.get(session_id)
        if page is None:
            return self._ledger.session(session_id)
        await page.ended.wait()
        return page.session.snapshot

    # --- write -------------------------------------------------------------------------------------------------------

    def open(self, session: Session, command: Command, *, locks: Iterable[str]) -> None:
        """Write down that a session begins, as a command asks.

        Raises:
            LedgerError: it cannot be written, so it must not begin.
        """
        known = session.snapshot
        record = SessionStarted(
            at=known.started_at,
            agent=known.agent,
            operation=known.operation,
            kind=known.kind,
            params=known.params,
            key=known.key,
            run=known.run,
            step=command.step,
            token=command.token,
            by=known.by,
            origin=command.origin,
            content=known.content,
        )
        tokens = [(lock, command.fence) for lock in locks] if command.fence else []
        self._ledger.write(
            known, [(session_subject(self._agent, session.id), record)], tokens=tokens, progress=session.standing
        )
        self._pages[session.id] = _Page(session)
        self._delivery.wake()

    def begin(self, session: Session) -> None:
        """Note that the operation is about to be called; a successor must know where it waited for its turn before.

        Raises:
            LedgerError: it cannot be written, so it must not begin.
        """
        session.move(SessionState.RUNNING)
        if not session.has_begun:
            session.has_begun = True
            self._ledger.write(session.snapshot, progress=session.standing)

    def keep(self, session: Session) -> None:
        """Write down what a successor of the agent needs to go on with a session, as it is now.

        Raises:
            LedgerError: it cannot be written.
        """
        self._ledger.write(session.snapshot, progress=session.standing)

    def adopt(self, session: Session, note: str) -> None:
        """Write down that a session that a predecessor began goes on."""
        record = SessionAdopted(note=note)
        due = [(session_subject(self._agent, session.id), record)]
        self._ledger.write(session.snapshot, due, progress=session.standing)
        self._pages[session.id] = _Page(session)
        self._delivery.wake()

    def end(
        self, session: Session, state: SessionState, *, returned: Any = None, error: ErrorRecord | None = None
    ) -> None:
        """Write down that a session has ended; a second end changes nothing."""
        page = self._pages.get(session.id)
        if page is None or not session.end(state, returned=returned, error=error):
            return
        known = session.snapshot
        record = SessionEnded(
            at=known.ended_at or known.started_at,
            state=state.value,  # pyright: ignore[reportArgumentType] - a final state, as `session.end` has checked
            result=known.result,
            error=error,
            data=self._new_data(page),
            messages=session.take_messages(),
            progress=known.progress,
            note=known.note,
        )
        self._end_log(session.id, state)
        self._unrecorded.pop(session.id, None)
        self._unwritten[session.id] = (page, record)
        self._write_ends()
        page.ended.set()

    def lose(self, session: SessionSnapshot, error: ErrorRecord, *, was_aborted: bool = False) -> None:
        """Write down that a session that a predecessor began went down with it."""
        state = SessionState.ABORTED if was_aborted else SessionState.LOST
        record = SessionEnded(state=state.value, error=error)  # pyright: ignore[reportArgumentType] - as above
        ended = session.model_copy(update={"state": state, "ended_at": record.at, "error": error})
        self._ledger.write(ended, [(session_subject(self._agent, session.id), record)])
        self._end_log(session.id, state)
        self._delivery.wake()

    # --- what sessions say -------------------------------------------------------------------------------------------

    def changed(self, session: Session) -> None:
        """Note that what a session shows has changed."""
        page = self._pages.get(session.id)
        if page is None:
            return
        self._unseen[session.id] = page
        if not session.state.is_final:
            self._unrecorded[session.id] = page
        self._came.set()

    def say(self, session: Session, level: str, text: str, fields: Mapping[str, Any], said: Said = NOW) -> None:
        """Put a line into a session's log."""
        place = said.place or next((f"{number}:{offset}" for number, offset in session.logged.items()), "")
        self._logs.put(log_subject(session.id), level, text, fields, at=said.at, place=place)

    async def logged(self, session_id: str) -> dict[int, int]:
        """Tell up to where a predecessor has logged the output of a session's scripts, as far as can be told now."""
        try:
            async with asyncio.timeout(LOGGED_S):
                places = await last_places(self._connection, log_subject(session_id))
        except (UnreachableError, TimeoutError):
            return {}
        return {int(source): int(position) for source, position in places.items()}

    def push_all(self) -> None:
        """Push every running session once more, as after a new connection."""
        self._unseen |= self._pages
        self._came.set()

    async def run(self) -> None:
        """Push and record what changes, for ever."""
        while True:
            await self._until_due()
            await asyncio.sleep(COALESCE_S)
            self._came.clear()
            self._write_ends()
            self._record_changes()
            await self.push()
            await asyncio.sleep(PUSH_S - COALESCE_S)

    async def push(self) -> None:
        """Send what has changed to who watches now."""
        unseen, self._unseen = self._unseen, {}
        for name, page in unseen.items():
            subject = f"live.session.{encoded(self._agent)}.{name}"
            try:
                await self._connection.publish(subject, shortened(page.session.snapshot))
            except UnreachableError:
                return
            finally:
                self._forget(name, page)

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _until_due(self) -> None:
        dues = [page.record_due for page in self._unrecorded.values()]
        wait_s = max(0.0, min(dues) - time.monotonic()) if dues else None
        if self._unwritten:
            wait_s = RECORD_S
        try:
            async with asyncio.timeout(wait_s):
                await self._came.wait()
        except TimeoutError:
            pass

    def _record_changes(self) -> None:
        now = time.monotonic()
        for name, page in list(self._unrecorded.items()):
            is_news = page.session.state is SessionState.STOPPING and (
                page.recorded is None or page.recorded.state is not SessionState.STOPPING
            )
            if is_news or now >= page.record_due:
                del self._unrecorded[name]
                self._record(page)

    def _record(self, page: _Page) -> None:
        session = page.session
        known = session.snapshot
        record = SessionChanged(
            state="stopping" if known.state is SessionState.STOPPING else "running",
            data=self._new_data(page),
            messages=session.take_messages(),
            progress=known.progress,
        )
        page.recorded_at = time.monotonic()
        try:
            due = [(session_subject(self._agent, session.id), record)]
            self._ledger.write(known, due, progress=session.standing)
        except LedgerError as error:
            log.warning("what a session shows was not recorded", session=session.id, because=error.because)
            return
        page.recorded = known
        self._delivery.wake()

    def _write_ends(self) -> None:
        for name, (page, record) in list(self._unwritten.items()):
            try:
                self._ledger.write(page.session.snapshot, [(session_subject(self._agent, name), record)])
            except LedgerError as error:
                log.error("the end of a session waits for its record", session=name, because=error.because)  # noqa: TRY400 - said, not traced
                self._came.set()
                return
            del self._unwritten[name]
            self._delivery.wake()
            self._forget(name, page)

    def _forget(self, name: str, page: _Page) -> None:
        """Leave a session to the ledger, once it has ended, is written and was shown."""
        if page.session.state.is_final and name not in self._unwritten and name not in self._unseen:
            self._pages.pop(name, None)

    def _end_log(self, session_id: str, state: SessionState) -> None:
        """Put the last line into a session's log, by which a reader knows that nothing more comes."""
        self._logs.put(log_subject(session_id), "debug", f"the session {state.value}", {ENDED: state.value})

    @staticmethod
    def _new_data(page: _Page) -> dict[str, Any] | None:
        data = page.session.snapshot.data
        return None if page.recorded is not None and page.recorded.data is data else data
