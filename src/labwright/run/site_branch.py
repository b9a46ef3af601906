"""A branch: the forked process in which a site's code runs, one call after another, look-ups side by side."""

from __future__ import annotations

import asyncio
import concurrent.futures
import faulthandler
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar, cast

from pydantic_core import to_json

from labwright.core.model import Event, Target, utc_now
from labwright.core.plain import to_plain
from labwright.core.selectors import select
from labwright.facts.source import gather
from labwright.run.site import Site, decide_in_full, find_task
from labwright.run.site_kinds import KindsSaid
from labwright.run.site_wire import Board, FrameReader, error_to_wire, frame_text

REPORT_SIGNAL = signal.SIGUSR2
"""Asks a branch that hangs to write down where it is."""

THREADS = 64
"""How many look-ups of plain functions may wait at once."""

T = TypeVar("T")


def serve_calls(site: Site, calls: socket.socket, board: int, report: int) -> int:
    """Answer calls until the socket is closed; give the exit code."""
    faulthandler.enable(report)
    faulthandler.register(REPORT_SIGNAL, report, all_threads=False)
    with os.fdopen(board, "r+b", buffering=0) as file:
        asyncio.run(_serve(site, calls, Board(file)))
    return 0


class Announced(Coroutine[Any, Any, T]):
    """A coroutine that writes on the board each time that it is resumed, and again when it gives way.

    Where a step does not come back (an endless loop, a crash), the board says in whose call.
    """

    def __init__(self, inner: Coroutine[Any, Any, T], call: int, board: Board) -> None:
        self._inner = inner
        self._call = call
        self._board = board

    def send(self, value: Any, /) -> Any:
        """Resume the coroutine."""
        before = self._board.enter(self._call)
        try:
            given = self._inner.send(value)
        except (Exception, asyncio.CancelledError):  # its ordinary ends; SystemExit takes the process down in this call
            self._board.enter(before)
            raise
        self._board.enter(before)
        return given

    def throw(self, kind: Any, value: Any = None, _trace: TracebackType | None = None, /) -> Any:
        """Resume the coroutine with an exception."""
        before = self._board.enter(self._call)
        try:
            given = self._inner.throw(value if isinstance(value, BaseException) else kind)
        except (Exception, asyncio.CancelledError):
            self._board.enter(before)
            raise
        self._board.enter(before)
        return given

    def close(self) -> None:
        """End the coroutine."""
        self._inner.close()

    def __await__(self) -> Any:
        return (yield from self._inner.__await__())


async def _serve(site: Site, calls: socket.socket, board: Board) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(THREADS, "look-up"))
    loop.set_task_factory(_announcing(board))
    answering = _Answering(site, board)
    await loop.create_unix_connection(lambda: answering, sock=calls)
    await answering.closed
    os._exit(0)  # whatever a look-up still does is of no use to anybody


def _announcing(board: Board) -> Callable[..., asyncio.Task[Any]]:
    """Make a factory of tasks that belong to the call in which they are made."""

    def make(loop: asyncio.AbstractEventLoop, task: Coroutine[Any, Any, Any], **more: Any) -> asyncio.Task[Any]:
        announced = task if isinstance(task, Announced) else Announced(task, board.call, board)
        return asyncio.Task(announced, loop=loop, **more)

    return make


class _Answering(asyncio.Protocol):
    """Reads calls and writes answers, several with each write."""

    def __init__(self, site: Site, board: Board) -> None:
        self.site = site
        self.board = board
        self.kinds = KindsSaid(site.rules)
        self.loop = asyncio.get_running_loop()
        self.closed = self.loop.create_future()
        self.reader = FrameReader()
        self.tasks: set[asyncio.Task[None]] = set()
        self.answers: list[bytes] = []
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        for message in self.reader.feed(data):
            task = self.loop.create_task(Announced(self._answer(message), message["id"], self.board))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol of asyncio
        if not self.closed.done():
            self.closed.set_result(None)

    async def _answer(self, message: dict[str, Any]) -> None:
        number: int = message["id"]
        try:
            if message["call"] == "decide":
                answer = b'{"id":%d,"decided":%b}' % (number, await self._decide(message))
            else:
                answer = b'{"id":%d,"ok":%b}' % (number, await _execute(self.site, message))
        except Exception as error:  # noqa: BLE001 - a site's code may raise anything, and whoever called must hear of it
            answer = to_json({"id": number, "error": error_to_wire(error)})
        if not self.answers:
            self.loop.call_soon(self._flush)
        self.answers.append(frame_text(answer))

    async def _decide(self, message: dict[str, Any]) -> bytes:
        event, at = Event.model_validate(message["event"]), datetime.fromisoformat(message["at"])
        return self.kinds.encode(await decide_in_full(self.site, event, at, message["agents"]))

    def _flush(self) -> None:
        if self.transport is not None:
            self.transport.write(b"".join(self.answers))
        self.answers.clear()


async def _execute(site: Site, message: dict[str, Any]) -> bytes:
    match message:
        case {"call": "facts", "subject": str(subject)}:
            event = Event(id="facts", source="labwright", type="facts", subject=subject, time=utc_now())
            gathered = await gather(event, site.fact_sources, every=True)
            return to_json(to_plain(gathered.facts))
        case {"call": "validate", "task": str(task), "params": params}:
            return to_json(to_plain(find_task(site, task).validated(params)))
        case {"call": "resolve", "on": str(on)}:
            targets = await site.targets()
            return to_json([on] if on in targets else [target.name for target in select(on, targets.values())])
        case {"call": "targets"}:
            targets: dict[str, Target] = await site.targets()
            return to_json({"targets": targets, "warnings": site.target_warnings()}, by_alias=True)
        case _:
            raise ValueError(f"no such call: {message}")
