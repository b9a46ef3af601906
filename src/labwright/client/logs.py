"""Logs as they are read: the lines of a run or a session, and those to come until it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from labwright.journal.connection import Connection
from labwright.journal.follow import Message, follow

LOG_LAG_S = 0.5
"""By so much the text of a log may be written later than the end of what it is about."""
LAST_LINE_S = 5.0
"""So long after the end a log that tells of it itself is read on while nothing comes."""

T = TypeVar("T")


async def logged(
    connection: Connection,
    subject: str,
    ended: Coroutine[Any, Any, object] | None = None,
    *,
    is_last: Callable[[Mapping[str, Any]], bool] | None = None,
) -> AsyncGenerator[dict[str, Any]]:
    """Give the lines of a log: `{"at", "level", "text", "fields"}`; with `ended`, also those to come until it returns.

    A log whose last line can be told by `is_last` is then read up to that line, unless nothing comes for a while.
    What `ended` raises is raised once all lines have been given.
    """
    given = 0
    failure: BaseException | None = None
    if ended is not None:
        try:
            async with closing(_until(_messages(connection, subject, after=0), ended)) as messages:
                async for message in messages:
                    given = message.seq
                    for line in _lines(message):
                        yield line
                        if is_last is not None and is_last(line):
                            return
        except _EndedBadlyError as error:
            failure = error.reason
        await asyncio.sleep(LOG_LAG_S)
    has_end = ended is not None and failure is None and is_last is not None
    async with closing(_rest(_messages(connection, subject, after=given), LAST_LINE_S if has_end else 0)) as messages:
        async for message in messages:
            for line in _lines(message):
                yield line
                if is_last is not None and is_last(line):
                    return
    if failure is not None:
        raise failure


@contextlib.asynccontextmanager
async def closing(items: AsyncIterator[T]) -> AsyncGenerator[AsyncIterator[T]]:
    """Close a generator when it is left, before what it stands on is closed."""
    try:
        yield items
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()


class _EndedBadlyError(Exception):
    """What was waited for has ended with an exception; it is told from those of the reading itself."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _messages(connection: Connection, subject: str, *, after: int) -> AsyncIterator[list[Message]]:
    return follow(connection, "LOGS", [subject], after=after)


async def _until(batches: AsyncIterator[list[Message]], end: Coroutine[Any, Any, object]) -> AsyncIterator[Message]:
    """Give what comes until something has ended; some of what came last may be left out."""
    ended = asyncio.ensure_future(end)
    try:
        async with closing(batches):
            while True:
                async with _coming(batches) as coming:
                    await asyncio.wait({coming, ended}, return_when=asyncio.FIRST_COMPLETED)
                    if not ended.done():
                        for message in coming.result():
                            yield message
                        continue
                if (reason := ended.exception()) is not None:
                    raise _EndedBadlyError(reason)
                return
    finally:
        await _cancelled(ended)


async def _rest(batches: AsyncIterator[list[Message]], patience_s: float) -> AsyncIterator[Message]:
    """Give what is there, and what comes before nothing has come for so long."""
    is_whole = False
    async with closing(batches):
        while True:
            async with _coming(batches) as coming:
                await asyncio.wait({coming}, timeout=patience_s if is_whole else None)
                if not coming.done():
                    return
                batch = coming.result()
                for message in batch:
                    yield message
            is_whole = is_whole or not batch
            if is_whole and patience_s == 0:
                return


@contextlib.asynccontextmanager
async def _coming(batches: AsyncIterator[T]) -> AsyncGenerator[asyncio.Future[T]]:
    """Give the next item to wait for; it is not waited for any more when this is left, so that its source can be."""
    coming = asyncio.ensure_future(anext(batches))
    try:
        yield coming
    finally:
        await _cancelled(coming)


async def _cancelled(future: asyncio.Future[Any]) -> None:
    future.cancel()
    await asyncio.wait({future})
    if not future.cancelled():
        future.exception()  # so that it counts as seen


def _lines(message: Message) -> list[dict[str, Any]]:
    return [json.loads(line) for line in message.data.decode().splitlines()]
