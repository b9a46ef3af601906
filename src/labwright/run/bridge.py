"""The way from a blocking step, in its thread, to the loop that runs the attempt."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Bridge(Protocol):
    """The way from a blocking step's thread to the loop."""

    def check(self) -> None:
        """Raise `asyncio.CancelledError` if the attempt is cancelled."""
        ...

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Let the loop do something and wait for what comes of it."""
        ...

    def tell(self, function: Callable[..., None], *values: Any) -> None:
        """Let the loop call something, without waiting."""
        ...


class LoopBridge:
    """The way to a running loop; `cancel` ends calls that wait and refuses further ones."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._cancelled = False
        self._pending: set[concurrent.futures.Future[Any]] = set()

    def check(self) -> None:
        """Raise `asyncio.CancelledError` if the attempt is cancelled."""
        if self._cancelled:
            raise asyncio.CancelledError

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Let the loop do something and wait for what comes of it."""
        if self._cancelled:
            work.close()
            raise asyncio.CancelledError
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._pending.add(future)
        if self._cancelled:  # between the check and the line above
            future.cancel()
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError from None
        finally:
            self._pending.discard(future)

    def tell(self, function: Callable[..., None], *values: Any) -> None:
        """Let the loop call something, without waiting."""
        self._loop.call_soon_threadsafe(function, *values)

    def cancel(self) -> None:
        """End the calls that wait, and refuse further ones."""
        self._cancelled = True
        for future in tuple(self._pending):
            future.cancel()
