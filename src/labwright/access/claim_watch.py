"""Who follows claims: told by push as they change, read from the journal at the start and after a new connection."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Callable
from datetime import datetime

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
    seq = int((message.headers or {}).get("Nats-Sequence", 0))
    record = decode(message.data)
    if seq and not isinstance(record, ClaimsChanged):
        message = await _before_noise(journal)
        record = decode(message.data)
    if not isinstance(record, ClaimsChanged) or not record.claims:
        return seq, ()
    age_s = await _age_s(journal, (message.headers or {})["Nats-Time-Stamp"])
    return seq, claims_of(record, age_s=age_s, now=time.monotonic())


async def _before_noise(journal: Journal) -> Msg:
    """Give the newest record of claims where something else is newer; where there is none, what tells so.

    Whoever may write anything may have nats-server's acknowledgement of it written here: it tells nothing of claims.
    """
    entries = await journal.read(SUBJECT)
    seq = max((entry.seq for entry in entries if isinstance(entry.record, ClaimsChanged)), default=0)
    return await journal.connection.request(f"$JS.API.DIRECT.GET.{STREAM}", json.dumps({"seq": seq}).encode())


async def _age_s(journal: Journal, stored_at: str) -> float:
    """Tell how old a record is, both moments by nats-server's own clock."""
    info = await journal.api(f"STREAM.INFO.{STREAM}")
    if "ts" not in info:
        raise EngineError(
            "nats-server does not tell its time",
            because=str(info.get("error", {}).get("description", "its answer has none")),
            cure="see labwright doctor; who follows claims asks again by itself",
        )
    return (_moment(str(info["ts"])) - _moment(stored_at)).total_seconds()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(FRACTION.sub(r".\1", text))


def _nothing() -> None:
    """Do nothing."""
