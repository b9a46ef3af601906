"""Blocking operations in threads of the agent: each in one of its own, which shares the agent's object.

A thread cannot be ended from outside. It is asked: its next word to the session raises `EndedEarly`, which is also
raised in the midst of its Python code; only what hangs in C code hears neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from labwright.agents.blocking_session import BlockingSession
from labwright.agents.session import Session

if TYPE_CHECKING:
    from labwright.agents.script_folder import ScriptEnd

LOOK_S = 0.05
SCRIPT_LOOK_S = 0.1


class EndedEarly(BaseException):
    """The session was told to end hard; not an Exception, so that no `except Exception` swallows it."""


class ThreadLine:
    """Carries the words of a session between a thread and the agent's loop."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._asked = threading.Event()
        self._is_hard = False
        self._thread_id: int | None = None

    @property
    def reason(self) -> str | None:
        """Why the session is to end; None while it is not."""
        return self._session.reason if self._session.is_stopping else None

    def tell(self, word: str, /, *args: Any, **named: Any) -> None:
        """Have the session's method of that name called on the loop."""
        self._raise_if_hard()
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._do, word, args, named)

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until the session is asked to end; tells whether it was."""
        self._raise_if_hard()
        self._asked.wait(seconds)
        self._raise_if_hard()
        return self._session.is_stopping

    def data(self) -> dict[str, Any]:
        """Give what the session shows now."""
        self._raise_if_hard()
        return self._session.data

    def script(self, path: str, args: Sequence[object], options: Any) -> ScriptEnd:
        """Run a script to its end."""
        self._raise_if_hard()
        future = asyncio.run_coroutine_threadsafe(self._session.script(path, args, **options), self._loop)
        while True:
            try:
                return future.result(SCRIPT_LOOK_S)
            except TimeoutError:
                if future.done():
                    raise
                if self._is_hard:
                    future.cancel()
                    raise EndedEarly from None

    def ask(self) -> None:
        """Wake whoever waits: the session was asked to end."""
        self._asked.set()

    def end(self) -> None:
        """Have the thread end, as far as that can be done."""
        first, self._is_hard = not self._is_hard, True
        self._asked.set()
        if self._thread_id is not None and first:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread_id), ctypes.py_object(EndedEarly))

    def begin(self) -> None:
        """Remember which thread this is; called in it."""
        self._thread_id = threading.get_ident()
        self._raise_if_hard()

    def finish(self) -> None:
        """Have nothing raised in the thread from here on; called in it."""
        self._thread_id = None

    def _do(self, word: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if not self._session.state.is_final:
            getattr(self._session, word)(*args, **named)

    def _raise_if_hard(self) -> None:
        if self._is_hard:
            raise EndedEarly


async def run_in_thread(session: Session, call: Callable[[BlockingSession], Any]) -> Any:
    """Run a blocking operation in a thread until it ends; a cancellation of the caller tells it to, and waits on."""
    loop = asyncio.get_running_loop()
    line = ThreadLine(session)
    ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        outcome = _captured(lambda: call(blocking(session, line)), line)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, ended, outcome)

    threading.Thread(target=context.run, args=(work,), daemon=True, name=f"session {session.id}").start()
    asked = asyncio.create_task(_pass_on(session, line))
    was_cancelled = False
    try:
        while not ended.done():
            try:
                await asyncio.shield(ended)
            except asyncio.CancelledError:
                was_cancelled = True
                line.end()
    finally:
        asked.cancel()
    value, error = ended.result()
    if isinstance(error, EndedEarly) and was_cancelled:
        raise asyncio.CancelledError
    if error is not None:
        raise error
    return value


def blocking(session: Session, line: ThreadLine) -> BlockingSession:
    """Give the blocking twin of a session."""
    return BlockingSession(
        id=session.id,
        agent=session.agent,
        operation=session.operation,
        params=session.params,
        started_at=session.started_at,
        run=session.run,
        by=session.by,
        line=line,
    )


async def _pass_on(session: Session, line: ThreadLine) -> None:
    await session.asked()
    line.ask()


def _captured(function: Callable[[], Any], line: ThreadLine) -> tuple[Any, BaseException | None]:
    """Call the operation and hold fast what comes out of it; what is injected late is caught here, too."""
    try:
        try:
            line.begin()
            return function(), None
        finally:
            line.finish()
    except BaseException as error:  # noqa: BLE001 - a border: an operation may raise anything, SystemExit too
        return None, error


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    if not future.done():
        future.set_result(outcome)
