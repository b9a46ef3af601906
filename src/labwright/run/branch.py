"""The parent's end of a branch: a process in which a site's code runs, which may crash or hang at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import Callable
from typing import IO, Any, cast

from labwright.run.site_kinds import KindsHeard
from labwright.run.site_wire import Board, FrameReader, error_from_wire, frame

IN_FLIGHT = 256
"""How many calls one branch has before it at once."""

PATIENCE_S = 1.0
"""After how long in one step the calls behind it are taken elsewhere."""

REPORT_S = 0.1
"""How long a branch that hangs has to write down where it is."""

LAST_WORDS_S = 0.5
MOST_REPORT = 8_000


class CallMovedError(Exception):
    """The call was not executed, or need not be: it is to be asked again elsewhere."""


class BranchEndedError(Exception):
    """The branch ended while the call was before it.

    `is_culprit` tells that it was executing this call, `is_suspect` that it may have been: it ended by itself, and was
    executing no other.
    """

    def __init__(self, how: str, *, is_culprit: bool, is_suspect: bool, report: str) -> None:
        super().__init__(how)
        self.how = how
        self.is_culprit = is_culprit
        self.is_suspect = is_suspect
        self.report = report


class Branch(asyncio.Protocol):
    """The parent's end of one branch. `on_stuck` is told when a step takes long; True lets the calls behind it go."""

    def __init__(self, board: Board, report: IO[bytes], life: int, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.on_stuck: Callable[[Branch], bool] = lambda _: False
        self.is_open = True
        self.pid = 0
        self.send_signal: Callable[[int, int], None] = lambda _, __: None
        self._board = board
        self._report = report
        self._life = life
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self._out: list[bytes] = []
        self._reader = FrameReader()
        self._kinds = KindsHeard()
        self._transport: asyncio.WriteTransport | None = None
        self._busy = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._lost = asyncio.Event()
        self._verdict = ""
        self._ended = asyncio.get_running_loop().create_future()
        self._watch = asyncio.create_task(self._watch_steps())

    @property
    def accepts(self) -> bool:
        """Tell whether it takes calls."""
        return self.is_open and not self._ended.done()

    async def call(self, **what: Any) -> Any:
        """Have something executed.

        Raises:
            CallMovedError: it was not executed.
            BranchEndedError: the branch ended meanwhile.
            LabwrightError: what the execution raised.
        """
        async with self._room:
            if not self.accepts:
                raise CallMovedError
            number = next(self._numbers)
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._calls[number] = answer
            self._busy.set()
            self._idle.clear()
            self._write(frame({"id": number, **what}))
            try:
                return await answer
            finally:
                self._calls.pop(number, None)
                if not self._calls:
                    self._busy.clear()
                    self._idle.set()

    async def idle(self) -> None:
        """Wait until no call is before it."""
        await self._idle.wait()

    def let_go(self) -> None:
        """Take no more calls, and give back all but the one that is being executed."""
        self.is_open = False
        _, executing = self._board.read()
        self._fail(lambda _: CallMovedError(), besides=executing)

    def end(self, how: str, *, is_counted: bool = True) -> None:
        """Note that the branch has ended; whoever waits for it is told once its last answers are read."""
        if not self._ended.done():
            self._ended.set_result(None)
            self._closing = asyncio.create_task(self._close(self._verdict or how, is_counted=is_counted))

    async def closed(self) -> None:
        """End it and let everything go."""
        self.is_open = False
        self.end("it was closed", is_counted=False)
        await asyncio.shield(self._closing)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to write."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Give the answers to those who wait for them."""
        for message in self._reader.feed(data):
            answer = self._calls.get(message["id"])
            # A decision is read even if nobody waits for it: later ones may refer to what it says of its kind.
            given = self._kinds.decode(message["decided"]) if "decided" in message else message.get("ok")
            if answer is None or answer.done():
                continue
            if "error" in message:
                answer.set_exception(error_from_wire(message["error"]))
            else:
                answer.set_result(given)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol of asyncio
        """Note that no more answers come."""
        self._lost.set()
        asyncio.get_running_loop().call_later(LAST_WORDS_S, self.end, "its connection was closed")

    async def _close(self, how: str, *, is_counted: bool) -> None:
        self.is_open = False
        self._watch.cancel()
        if is_counted:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await self._lost.wait()
        self._report.seek(0)
        report = self._report.read(MOST_REPORT).decode(errors="replace")
        _, executing = self._board.read()
        self._fail(
            lambda number: BranchEndedError(
                how,
                is_culprit=is_counted and number == executing,
                is_suspect=is_counted and executing in {0, number},
                report=report,
            )
        )
        if self._transport is not None:
            self._transport.abort()
        os.close(self._life)
        self._board.close()
        self._report.close()

    def _fail(self, error: Callable[[int], Exception], *, besides: int = 0) -> None:
        for number, answer in self._calls.items():
            if number != besides and not answer.done():
                answer.set_exception(error(number))

    def _write(self, data: bytes) -> None:
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    async def _watch_steps(self) -> None:
        """End the branch when one step, or a silence, exceeds the deadline."""
        loop = asyncio.get_running_loop()
        patience = min(PATIENCE_S, self.deadline_s / 3)
        seen, since = self._board.read(), loop.time()
        while True:
            if not self._busy.is_set():
                await self._busy.wait()
                since = loop.time()
            await asyncio.sleep(patience / 4)
            now = self._board.read()
            if now != seen:
                seen, since = now, loop.time()
                continue
            stuck_s, executes = loop.time() - since, bool(now[1])
            if executes and self.is_open and stuck_s > patience and self.on_stuck(self):
                self.let_go()
            if stuck_s > (self.deadline_s if executes else 2 * self.deadline_s + patience):
                await self._kill(f"it took longer than {self.deadline_s:g} s" if executes else "it did not answer")
                return

    async def _kill(self, verdict: str) -> None:
        self._verdict = verdict
        self.send_signal(self.pid, signal.SIGUSR2)
        await asyncio.sleep(REPORT_S)
        self.send_signal(self.pid, signal.SIGKILL)
