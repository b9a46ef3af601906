"""The pulse of an agent's loop: an operation that holds it is pointed at, and in the end costs the agent its process.

An `async` operation that never waits cannot be cancelled, and while it holds the loop nobody is answered, no deadline
is kept and no signal heard. What such an agent leaves is as safe as after its death: its successor goes on.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Self

from labwright.core.logs import get_logger

LOOK_S = 1.0
SAID_AFTER = 3
"""After so many looks in a row at which the loop stood still, the log tells where."""
ENDED_AFTER = 30
"""After so many the agent ends itself; time in which its whole process was stopped does not count."""
HARD_EXIT = 70
"""The exit code of an agent that ended itself since nothing else could end what runs in it."""

log = get_logger(__name__)


class Pulse:
    """Watches the running loop from a thread: `with Pulse():`."""

    def __init__(
        self, *, look_s: float = LOOK_S, ended_after: int = ENDED_AFTER, exit_hard: Callable[[int], object] = os._exit
    ) -> None:
        self._look_s = look_s
        self._ended_after = ended_after
        self._exit_hard = exit_hard
        self._beats = 0
        self._over = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()

    def __enter__(self) -> Self:
        self._beat()
        self._thread = threading.Thread(target=self._watch, name="pulse", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._over.set()

    def _beat(self) -> None:
        self._beats += 1
        self._timer = self._loop.call_later(self._look_s / 2, self._beat)

    def _watch(self) -> None:
        seen, missed = 0, 0
        while not self._over.wait(self._look_s):
            missed = missed + 1 if self._beats == seen else 0
            seen = self._beats
            if missed == SAID_AFTER:  # from a thread of its own: the log itself may be what hangs
                threading.Thread(target=self._say, name="pulse says", daemon=True).start()
            if missed >= self._ended_after:
                self._exit_hard(HARD_EXIT)

    def _say(self) -> None:
        frames = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its documented use
        frame = frames.get(self._loop_thread)
        where = "".join(traceback.format_stack(frame)[-3:]) if frame is not None else "unknown"
        cure = "await what takes long, or write the operation as a plain def"
        log.error("an operation holds the agent's loop; the agent is about to end itself", where=where, cure=cure)
