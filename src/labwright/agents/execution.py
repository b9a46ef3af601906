"""The execution of one session: its turn at the locks, its deadline, the words to stop and to abort, and one end.

User code may ignore every word, so each wait here has a limit; what does not end is left behind, and keeps its locks.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from labwright.agents.book import Book
from labwright.agents.locks import Holder, Locks
from labwright.agents.operation import AnyOperation
from labwright.agents.session import Session
from labwright.core.clock import lasting
from labwright.core.errors import LabwrightError, RefusedError, Stopped
from labwright.core.logs import get_logger
from labwright.core.model import ErrorRecord, SessionState

INSIST_S = 1.0
"""How often something that was abandoned is told once more to end."""
SCRIPTS_END_S = 2.0
"""How long the scripts of a session may take to die after they were killed."""

log = get_logger(__name__)


class Told(enum.IntEnum):
    """What a session was told, the stronger word later."""

    STOP = 1
    TIMEOUT = 2
    ABORT = 3
    LEAVE = 4
    """The agent ends, and its successor is to go on with it."""


@dataclass(frozen=True)
class Word:
    """A word to end, and why."""

    told: Told
    reason: str


@dataclass(frozen=True)
class Returned:
    """The operation returned."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """The operation raised; whatever it was, SystemExit too."""

    error: BaseException


class OperationFailedError(Exception):
    """An operation failed in another process, which has described its error."""

    def __init__(self, record: ErrorRecord) -> None:
        super().__init__(record.message)
        self.record = record


class Scripts(Protocol):
    """The scripts of sessions."""

    async def end_all(self, session: Session, grace_s: float, reason: str) -> None:
        """End what still runs for a session, and everything below it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a session may run, and how long it may wait for its turn."""

    timeout_s: float | None
    valid_for_s: float | None = None


class Execution:
    """One session on its way to its end: `await Execution(...).run()`, which never raises."""

    def __init__(
        self,
        session: Session,
        operation: AnyOperation,
        call: Callable[[], Coroutine[Any, Any, Any]],
        *,
        book: Book,
        locks: Locks,
        scripts: Scripts,
        limits: Limits,
        last_resort: Callable[[Session], None],
    ) -> None:
        self.session = session
        self.operation = operation
        self._call = call
        self._book = book
        self._locks = locks
        self._scripts = scripts
        self._limits = limits
        self._last_resort = last_resort
        self._word: Word | None = None
        self._heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._was_cancelled = False

    def tell(self, told: Told, reason: str) -> None:
        """Have it end; a stronger word than the one before counts, another does not."""
        if self._word is None or told > self._word.told:
            self._word = Word(told, reason)
            self.session.is_left = told is Told.LEAVE
            if not self._heard.done():
                self._heard.set_result(None)

    async def run(self) -> None:
        """Bring the session to its end."""
        work = asyncio.create_task(self._work(), name=f"session {self.session.id}")
        await self._watch(work)
        if self._word is None or self._word.told is not Told.LEAVE:
            if not work.done():
                await self._scripts.end_all(self.session, 0, "its session has ended")
                await asyncio.wait({work}, timeout=INSIST_S)
            self._conclude(work)
        if not work.done():
            await self._insist(work)
        self._locks.release(self.session.id)

    # --- the work ----------------------------------------------------------------------------------------------------

    async def _work(self) -> Returned | Raised:
        """Wait for the turn, then run the operation; user code may raise anything, which must not end the agent."""
        try:
            await self._turn()
            if self._word is not None and self._word.told is Told.ABORT:  # before it began
                self._take()
                return Raised(asyncio.CancelledError())
            self._book.begin(self.session)
            timer = self._armed()
            try:
                return Returned(await self._call())
            finally:
                timer()
                if self._word is None or self._word.told is not Told.LEAVE:
                    await self._scripts.end_all(self.session, self.operation.options.grace, "its session has ended")
        except BaseException as error:  # noqa: BLE001 - a border: whatever an operation raises is the end of its session
            return Raised(error)

    async def _turn(self) -> None:
        locks = self.operation.options.locks
        holder = self._locks.held.get(locks[0]) if locks else None
        if not locks or (holder is not None and holder.session == self.session.id):
            return
        try:
            async with asyncio.timeout(self._limits.valid_for_s):
                await self._locks.queue(locks, holder_of(self.session))
        except TimeoutError:
            raise RefusedError(
                f"{self.session.operation} was not started: its turn did not come in time",
                because=f"the command was valid for {self._limits.valid_for_s:g} s",
                cure="ask again, or give it more time",
            ) from None

    def _armed(self) -> Callable[[], None]:
        limit = self._limits.timeout_s
        if limit is None:
            return lambda: None
        loop = asyncio.get_running_loop()
        timer = loop.call_later(
            max(0.0, limit), self.tell, Told.TIMEOUT, f"its deadline of {lasting(limit)} has passed"
        )
        return timer.cancel

    # --- the words ---------------------------------------------------------------------------------------------------

    async def _watch(self, work: asyncio.Task[Returned | Raised]) -> None:
        """Wait for the end, and do what the words say until then; returns at the latest when the grace is over."""
        grace = self.operation.options.grace
        await self._until(work, None)
        if work.done():
            return
        word = self._take()
        if word.told is Told.STOP:
            await self._until(work, grace)
            if work.done():
                return
            self._take()
        self._was_cancelled = True
        work.cancel()
        await asyncio.wait({work}, timeout=grace)

    async def _until(self, work: asyncio.Task[Returned | Raised], limit_s: float | None) -> None:
        """Wait for the end or a word."""
        waited: set[asyncio.Future[Any]] = {work, self._heard}
        await asyncio.wait(waited, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)

    def _take(self) -> Word:
        """Give the word of now, and say it to the session."""
        if self._heard.done():
            self._heard = asyncio.get_running_loop().create_future()
        word = self._word or Word(Told.STOP, "")
        self.session.ask_to_end(word.reason)
        if word.told is not Told.LEAVE:
            self.session.move(SessionState.STOPPING)
        return word

    async def _insist(self, work: asyncio.Task[Returned | Raised]) -> None:
        """Tell what was abandoned to end until it does; a thread that never does takes the agent with it."""
        log.warning("an operation does not end", session=self.session.id, operation=self.session.operation)
        given_up = asyncio.get_running_loop().time() + self.operation.options.grace
        while not work.done():
            work.cancel()
            await asyncio.wait({work}, timeout=INSIST_S)
            if self.operation.options.thread and asyncio.get_running_loop().time() >= given_up:
                self._last_resort(self.session)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _conclude(self, work: asyncio.Task[Returned | Raised]) -> None:
        told = self._word.told if self._word is not None and self._was_heard() else None
        outcome = _outcome(work)
        match told, outcome:
            case ((None | Told.STOP), Returned(value)):
                self._book.end(self.session, SessionState.SUCCEEDED, returned=value)
            case Told.STOP, Raised(error) if isinstance(error, Stopped | asyncio.CancelledError):
                self._book.end(self.session, SessionState.SUCCEEDED)
            case Told.STOP, None:
                self.session.note("it did not end when it was stopped, and was given up")
                self._book.end(self.session, SessionState.SUCCEEDED)
            case ((None | Told.STOP), Raised(error)):
                self._book.end(self.session, SessionState.FAILED, error=_error_of(error))
            case _:
                state = SessionState.FAILED if told is Told.TIMEOUT else SessionState.ABORTED
                self._book.end(self.session, state, error=self._early(outcome))

    def _was_heard(self) -> bool:
        """Tell whether the word came before the operation had ended by itself."""
        return self.session.is_stopping

    def _early(self, outcome: Returned | Raised | None) -> ErrorRecord:
        """Describe an early end: why, and how the operation took it."""
        word = self._word or Word(Told.ABORT, "")
        because = word.reason
        if outcome is None:
            because += f"; it did not end within {self.operation.options.grace:g} s and was given up"
        elif isinstance(outcome, Raised) and not isinstance(outcome.error, Stopped | asyncio.CancelledError):
            because += f"; its clean-up failed: {_error_of(outcome.error).message}"
        if word.told is Told.TIMEOUT:
            text = f"{self.session.operation} took too long"
            cure = "give it more time (timeout_s), or see in its log where it stood"
            return ErrorRecord.of(LabwrightError(text, because=because, cure=cure), kind="timeout")
        return ErrorRecord.of(LabwrightError(f"{self.session.operation} was aborted", because=because), kind="aborted")


def holder_of(session: Session) -> Holder:
    """Describe a session as the holder of locks."""
    return Holder(session=session.id, operation=session.operation, since=session.started_at, by=session.by)


def _outcome(work: asyncio.Task[Returned | Raised]) -> Returned | Raised | None:
    if not work.done():
        return None
    return Raised(asyncio.CancelledError()) if work.cancelled() else work.result()


def _error_of(error: BaseException) -> ErrorRecord:
    if isinstance(error, OperationFailedError):
        return error.record
    if isinstance(error, asyncio.CancelledError):
        text = "the operation ended as if it had been cancelled, which nobody did"
        return ErrorRecord.of(LabwrightError(text, because="it raised CancelledError"), kind="bug")
    return ErrorRecord.of(error)
