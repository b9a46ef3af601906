"""Who follows claims: told by push as they change, read from the journal at the start and after a new connection."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from nats.aio.msg import Msg

from labwright.access.claims import SUBJECT, Claim, claims_of
from labwright.core.errors import EngineError, UnreachableError
from labwright.core.logs import get_logger
from labwright.journal.connection import NoResponderError
from labwright.journal.journal import STREAM, Journal
from labwright.journal.records import ClaimsChanged, decode

CONFIRM_S = 1.0
"""What was heard is read after this time, at the latest: a word that the journal refused was heard, too."""
RETRY_S = 0.5
FRACTION = re.compile(r"\.(\d{6})\d*")

log = get_logger(__name__)


class ClaimWatch:
    """The claims in force, as far as one process knows: `claims`; `changed` is called whenever they change."""

    def __init__(self, journal: Journal, changed: Callable[[], None] | None = None) -> None:
        self.claims: tuple[Claim, ...] = ()
        self.is_known = asyncio.Event()
        """Set once the journal has told which claims are in force."""
        self._journal = journal
        self._changed = changed or _nothing
        self._look = asyncio.Event()

    async def run(self) -> None:
        """Follow claims, for ever."""
        self._journal.connection.on_reconnect(self._reconnected)
        await self._journal.connection.listen("claim.*", self._hear)
        while True:
            try:
                _, claims = await read_claims(self._journal)
            except (UnreachableError, TimeoutError, EngineError):
                await self._journal.connection.wait_connected()
                await asyncio.sleep(RETRY_S)
                continue
            self._take(claims)
            self.is_known.set()
            await self._look.wait()
            self._look.clear()
            if self.is_known.is_set():
                await asyncio.sleep(CONFIRM_S * (0.5 + 0.5 * random.random()))  # noqa: S311 - jitter

    def _reconnected(self) -> None:
        """Read anew: what has changed meanwhile was not heard."""
        self.is_known.clear()
        self._look.set()

    async def _hear(self, message: Msg) -> None:
        record = decode(message.data)
        if message.subject == SUBJECT and isinstance(record, ClaimsChanged):
            self._take(claims_of(record, age_s=0, now=time.monotonic()))
            self._look.set()

    def _take(self, claims: tuple[Claim, ...]) -> None:
        self.claims = claims
        self._changed()


async def read_claims(journal: Journal) -> tuple[int, tuple[Claim, ...]]:
    """Read which claims are in force, and the sequence of the record that says so; 0 where there never was one.

    Raises:
        UnreachableError, TimeoutError, EngineError: the journal does not answer.
    """
    try:
        message = await journal.connection.request(f"$JS.API.DIRECT.GET.{STREAM}.{SUBJECT}")
    except NoResponderError:  # the journal was never made, or nobody passes on what an identity asks
        if journal.connection.identity:
            raise
        return 0, ()
    headers = message.headers or {}
    if "Nats-Sequence" not in headers:
        return 0, ()
    seq, record = int(headers["Nats-Sequence"]), decode(message.data)
    if not isinstance(record, ClaimsChanged):
        return seq, ()
    if not record.claims:
        return seq, ()
    info = await journal.api(f"STREAM.INFO.{STREAM}")
    age_s = _age_s(info, headers["Nats-Time-Stamp"])
    return seq, claims_of(record, age_s=age_s, now=time.monotonic())


def _age_s(info: dict[str, Any], stored_at: str) -> float:
    """Tell how old a record is, both moments by nats-server's own clock."""
    return (_moment(str(info["ts"])) - _moment(stored_at)).total_seconds()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(FRACTION.sub(r".\1", text))


def _nothing() -> None:
    """Do nothing."""
