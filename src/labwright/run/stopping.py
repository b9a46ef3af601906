"""How an attempt is told to end early: somebody aborts it, or its deadline passes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from labwright.core.clock import Clock
from labwright.run.threads import Outcome, Raised, Returned

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """When an attempt must have ended, on the monotonic clock, and by which of the task's limits."""

    at: float
    limit_s: float
    is_total: bool = False
    moment: datetime | None = None
    """The wall-clock time of a total deadline, which bounds waits and pauses too."""

    def __str__(self) -> str:
        return f"{'total timeout' if self.is_total else 'timeout'} of {self.limit_s:g} s"


def deadline_of(clock: Clock, timeout: float, total_timeout: float | None, started_at: datetime | None) -> Deadline:
    """Find the deadline that comes first."""
    now = clock.monotonic()
    own = Deadline(at=now + timeout, limit_s=timeout)
    if total_timeout is None:
        return own
    wall = clock.now()
    moment = (started_at or wall) + timedelta(seconds=total_timeout)
    left = (moment - wall).total_seconds()
    total = Deadline(at=now + left, limit_s=total_timeout, is_total=True, moment=moment)
    return total if left <= timeout else Deadline(at=own.at, limit_s=timeout, moment=moment)


class Stop:
    """The word to end early, given once; the first reason counts."""

    def __init__(self, clock: Clock) -> None:
        self.reason: Literal["timeout", "aborted"] | None = None
        self.text = ""
        self.deadline: Deadline | None = None
        self.unfinished: set[asyncio.Task[Outcome]] = set()
        """User code that was cancelled and still runs."""
        self._clock = clock
        self._heard: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def abort(self, text: str) -> None:
        """Ask for an early end on somebody's behalf."""
        self._give("aborted", text)

    @contextlib.contextmanager
    def armed(self, deadline: Deadline) -> Generator[None]:
        """Let the deadline give the word too, inside the block."""
        loop = asyncio.get_running_loop()
        self.deadline = deadline
        self._heard = loop.create_future()
        if self.reason is not None:
            self._heard.set_result(None)
        self._timer = loop.call_later(max(0.0, deadline.at - self._clock.monotonic()), self._pass_deadline)
        try:
            yield
        finally:
            self._timer.cancel()
            self._heard.cancel()

    def look_at_clock(self) -> None:
        """Notice a deadline that has passed by the clock, whatever the timer says."""
        if self.deadline is not None and self._clock.monotonic() >= self.deadline.at:
            self._pass_deadline()

    def late_by(self) -> float:
        """Tell how many seconds ago the deadline has passed."""
        return 0.0 if self.deadline is None else max(0.0, self._clock.monotonic() - self.deadline.at)

    async def supervise(
        self, work: Coroutine[Any, Any, Outcome], *, grace: float, tell: Callable[[], None]
    ) -> Outcome | None:
        """Let user code run to its end; once the word is given, cancel it and give it `grace` seconds.

        Gives None for one that did not end. A cancellation of the caller cancels the work too, and waits as long.
        """
        task = asyncio.create_task(work)
        try:
            await asyncio.wait({task, self._waiter()}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                tell()
                task.cancel()
                await asyncio.wait({task}, timeout=grace)
        except asyncio.CancelledError:
            tell()
            task.cancel()
            await asyncio.wait({task}, timeout=grace)
            raise
        finally:
            if not task.done():
                self.unfinished.add(task)
                task.add_done_callback(self.unfinished.discard)
        if not task.done():
            return None
        return Raised(asyncio.CancelledError()) if task.cancelled() else task.result()

    def _waiter(self) -> asyncio.Future[None]:
        if self._heard is None:
            raise RuntimeError("a stop supervises only inside its `armed` block")
        return self._heard

    def _pass_deadline(self) -> None:
        self._give("timeout", f"the {self.deadline} has passed")

    def _give(self, reason: Literal["timeout", "aborted"], text: str) -> None:
        if self.reason is None:
            self.reason = reason
            self.text = text
            if self._heard is not None and not self._heard.done():
                self._heard.set_result(None)


async def awaited(call: Callable[[], Coroutine[Any, Any, Any]]) -> Outcome:
    """Await user code and hold fast what comes out of it."""
    try:
        return Returned(await call())
    except GeneratorExit:  # the loop is going away
        raise
    except BaseException as error:  # noqa: BLE001 - a step may raise anything, SystemExit too, and must not end the worker
        return Raised(error)


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Finish what must not be left half done, such as an append, before a cancellation goes on."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait({task})
        raise
