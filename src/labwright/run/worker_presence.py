"""A worker's sign of life: refreshed from a thread and a connection of its own, whatever its steps do to the loop."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Mapping
from typing import Any

from nats.aio.msg import Msg

from labwright.core.errors import EngineError, UnreachableError
from labwright.core.logs import get_logger
from labwright.journal.connection import Address, Connection
from labwright.journal.journal import Journal
from labwright.journal.presence import REFRESH_S, HeldError, Presence

log = get_logger(__name__)


class SignOfLife:
    """Announces a worker until `end`; also answers pings."""

    def __init__(self, locate: Callable[[], Address], name: str, body: Mapping[str, Any]) -> None:
        self._locate = locate
        self._name = name
        self._body = dict(body)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True, name="sign-of-life")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Say farewell; bounded to three seconds."""
        self._ended.set()
        self._thread.join(3)

    def _main(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        async with Connection(self._locate, name=f"{self._name} presence") as connection:
            await connection.listen(f"worker.{self._name}.ping", _answer)
            presence = Presence(Journal(connection), "worker", self._name, lambda: self._body)
            with contextlib.suppress(UnreachableError, TimeoutError, EngineError, HeldError):
                await presence.announce()
            while not await asyncio.to_thread(self._ended.wait, REFRESH_S * (0.8 + 0.2 * random.random())):  # noqa: S311 - jitter
                try:
                    await presence.refresh()
                except (UnreachableError, TimeoutError, EngineError, HeldError) as error:
                    log.debug("not announced", because=str(error))
            await presence.leave()


async def _answer(message: Msg) -> None:
    await message.respond(b"here")
