"""Steps that block: each runs in a thread of its own, with the caller's context variables, and reports to the loop.

The threads are daemons, so that one that never ends cannot hold up the end of its process.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

THREADS = 32
"""Threads that one attempt may have at once; further blocking steps wait for one to end."""


@dataclass(frozen=True)
class Returned:
    """User code returned."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """User code raised; whatever it was, SystemExit too."""

    error: BaseException


Outcome = Returned | Raised


async def run_in_thread(function: Callable[[], Any], on_cancel: Callable[[], None]) -> Outcome:
    """Run a function in a thread until it ends by itself.

    A thread cannot be cancelled: a cancellation of the caller only calls `on_cancel`, which tells the function.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Outcome] = loop.create_future()

    def work() -> None:
        outcome = capture(function)
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits for this thread any more
            loop.call_soon_threadsafe(_settle, ended, outcome)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), daemon=True, name="labwright-step").start()
    while True:
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            on_cancel()


def capture(function: Callable[[], Any]) -> Outcome:
    """Call user code and hold fast what comes out of it."""
    try:
        return Returned(function())
    except BaseException as error:  # noqa: BLE001 - a step may raise anything, SystemExit too, and must not end the worker
        return Raised(error)


def _settle(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)
