"""Logs as they are read: the lines of a run or a session, and those to come until it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, TypeVar

from labwright.journal.connection import Connection
from labwright.journal.follow import Message, follow

LOG_LAG_S = 0.5
"""By so much the text of a log may be written later than the end of what it is about."""

T = TypeVar("T")


async def logged(
    connection: Connection, subject: str, ended: Coroutine[Any, Any, object] | None = None
) -> AsyncGenerator[dict[str, Any]]:
    """Give the lines of a log: `{"at", "level", "text", "fields"}`; with `ended`, also those to come until it returns.

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
        except _EndedBadlyError as error:
            failure = error.reason
        await asyncio.sleep(LOG_LAG_S)
    async with closing(_messages(connection, subject, after=given)) as batches:
        async for batch in batches:
            if not batch:
                break
            for message in batch:
                for line in _lines(message):
                    yield line
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
    coming: asyncio.Future[list[Message]] | None = None
    try:
        async with closing(batches):
            while True:
                coming = asyncio.ensure_future(anext(batches))
                await asyncio.wait({coming, ended}, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    await _cancelled(coming)
                    if (reason := ended.exception()) is not None:
                        raise _EndedBadlyError(reason)
                    return
                for message in coming.result():
                    yield message
    finally:
        await _cancelled(ended)
        if coming is not None:
            await _cancelled(coming)


async def _cancelled(future: asyncio.Future[Any]) -> None:
    future.cancel()
    await asyncio.wait({future})
    if not future.cancelled():
        future.exception()  # so that it counts as seen


def _lines(message: Message) -> list[dict[str, Any]]:
    return [json.loads(line) for line in message.data.decode().splitlines()]
