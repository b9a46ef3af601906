"""The event loop on which a schedule runs its `async` actions; it is started with the first of them."""

from __future__ import annotations

import threading
from collections.abc import Awaitable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


class Coroutine:
    """A coroutine on the schedule's loop, as a thread sees it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, awaitable: Awaitable[Any]) -> None:
        self._loop = loop
        self._future: Future[Any] = Future()
        self._task: asyncio.Task[Any] | None = None
        self._is_cancelled = False
        loop.call_soon_threadsafe(self._start, awaitable)

    def result(self) -> Any:
        """Wait for its end; a cancelled one has ended too, with all its clean-up, when `CancelledError` is raised."""
        return self._future.result()

    def cancel(self) -> None:
        """Ask it to end."""
        self._is_cancelled = True
        self._loop.call_soon_threadsafe(self._cancel)

    def _start(self, awaitable: Awaitable[Any]) -> None:
        self._task = self._loop.create_task(_awaited(awaitable))
        self._task.add_done_callback(self._ended)
        if self._is_cancelled:
            self._task.cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._future.set_exception(CancelledError())
        elif (error := task.exception()) is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(task.result())


class Coroutines:
    """One event loop in one thread, so that what a coroutine opens at one point can be used at the next."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()

    def run(self, awaitable: Awaitable[Any]) -> Coroutine:
        """Run it on the loop."""
        import asyncio

        with self._guard:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name="labwright-loop", daemon=True)
                self._thread.start()
        return Coroutine(self._loop, awaitable)

    def close(self) -> None:
        """Cancel what still runs, give it a moment to end, and end the loop."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CLEAN_UP_S)


CLEAN_UP_S = 5.0


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    import asyncio

    try:
        loop.run_forever()
        if tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks, timeout=CLEAN_UP_S))
    finally:
        loop.close()


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
