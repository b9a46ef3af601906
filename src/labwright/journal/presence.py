"""Who is here now: short-lived records that their owners refresh and the server expires.

One subject for each name; the first announcement expects nobody there, each refresh expects its owner's own last one.
So a name has one holder, and a lead is nothing but a name that several want to hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import psutil

from labwright.core.errors import EngineError, LabwrightError, UnreachableError
from labwright.core.ids import new_id
from labwright.journal.connection import Connection, NoResponderError
from labwright.journal.follow import Message, follow
from labwright.journal.journal import EXPECTED, Journal

STREAM = "PRESENCE"
REFRESH_S = 1.0
TTL_S = 2
TTL = "Nats-TTL"
MARKER_TTL_S = 60
HOLD_S = 1.5
MISSED_TTLS = 2.5
GATHER_S = 0.1
LOOK_S = 0.5
REQUEST_S = 1.5
DEPARTURES = "labwright.departures"
CUT_OFF = "cut_off"
"""The field of a last word that somebody else said of who did not come back; a farewell has none."""
OWNER = "owner"
"""The field that tells who holds a name, so that a holder whose acknowledgement was lost recognises itself."""


class HeldError(LabwrightError):
    """Somebody else holds that name: `holder` is what it says of itself; unless said again it expires in `ttl_s`."""

    kind = "held"

    def __init__(self, subject: str, holder: Mapping[str, Any], *, seq: int = 0, ttl_s: int = TTL_S) -> None:
        super().__init__(
            f"{subject.partition('.')[2]} is held by another",
            because=f"holder: {json.dumps(dict(holder))}",
            cure="use another name, or end the holder first",
        )
        self.holder = holder
        self.seq = seq
        self.ttl_s = ttl_s


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one name; `body` is None once its owner is gone, and then it may have said farewell."""

    kind: str
    name: str
    body: dict[str, Any] | None
    said_farewell: bool = False


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process among all that ever ran: host (with its boot), process id and the kernel's start time of it."""

    host: str
    pid: int
    start: str

    @classmethod
    def mine(cls) -> ProcessIdentity:
        """Tell who this process is."""
        return cls(this_host(), os.getpid(), start_of(os.getpid()) or "")

    @classmethod
    def parse(cls, name: str) -> ProcessIdentity | None:
        """Read an identity back from a worker's name."""
        parts = name.split(":")
        if len(parts) != 3 or re.fullmatch("[0-9]{1,9}", parts[1]) is None:  # noqa: PLR2004 - host, pid, start
            return None
        return cls(parts[0], int(parts[1]), parts[2])

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.start}"

    @property
    def is_here(self) -> bool:
        """Tell whether it belongs to this host, so that its end can be seen."""
        return self.host == this_host()

    @property
    def is_alive(self) -> bool:
        """Tell whether it still exists; only valid for this host."""
        return start_of(self.pid) == self.start


@cache
def this_host() -> str:
    """Name this host and its current boot, with the characters that a subject allows."""
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    name = "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())
    return f"{name}-{boot}" if boot else name


def start_of(pid: int) -> str | None:
    """Tell when a process started, in a form that only serves to recognise it; None where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        with contextlib.suppress(psutil.Error):
            return None if Path("/proc/self").exists() else str(int(psutil.Process(pid).create_time()))
        return None
    return None if fields[0] in {"Z", "X"} else fields[19]


async def ensure_presence(journal: Journal, *, tells_departures: bool | None = None) -> None:
    """Make the stream of presence, which a restarted server has forgotten.

    `tells_departures` notes there whether somebody tells who is cut off, so that the others need not speak often.

    Raises:
        UnreachableError: it is not there, and an identity of this connection may not make it; `serve` does.
    """
    if journal.connection.identity:
        message = "nobody can be announced yet"
        raise UnreachableError(message, because="the stream of presence is not there", cure="labwright serve")
    await journal.ensure_stream(
        {
            "name": STREAM,
            "subjects": ["presence.>"],
            "storage": "memory",
            "retention": "limits",
            "max_msgs_per_subject": 1,
            "allow_msg_ttl": True,
            "subject_delete_marker_ttl": MARKER_TTL_S * 1_000_000_000,
            "allow_direct": True,
            "duplicate_window": 1_000_000_000,
            **({} if tells_departures is None else {"metadata": {DEPARTURES: "told" if tells_departures else ""}}),
        }
    )


async def are_departures_told(journal: Journal) -> bool:
    """Tell whether it is seen at once that somebody was cut off, as `ensure_presence` has noted it.

    Raises:
        UnreachableError, TimeoutError: the server does not answer.
    """
    config: dict[str, Any] = (await journal.api(f"STREAM.INFO.{STREAM}")).get("config", {})
    noted: dict[str, str] = config.get("metadata") or {}
    return noted.get(DEPARTURES) == "told"


@dataclass(frozen=True, slots=True)
class LastWord:
    """What was said last under a name: its place, what it says (None: nobody is here), and for how long it counts."""

    seq: int = 0
    body: dict[str, Any] | None = None
    ttl_s: int = TTL_S


class Presence:
    """One name, held and refreshed by this process."""

    def __init__(self, journal: Journal, kind: str, name: str, describe: Callable[[], Mapping[str, Any]]) -> None:
        self.subject = f"presence.{kind}.{name}"
        self.acknowledged = 0.0
        self.seq = 0
        """The place of its newest word among those of everybody; zero where it has no name."""
        self._kind, self._name = kind, name
        self._journal = journal
        self._describe = describe
        self._owner = new_id("own")

    async def announce(self, *, ttl_s: int = TTL_S, instead_of: HeldError | None = None) -> None:
        """Take the name; `instead_of` is a holder who is known to have died, and who must not have spoken since.

        Raises:
            HeldError: somebody else has it.
            UnreachableError, TimeoutError: the server does not answer.
        """
        while True:
            last = await last_word(self._journal.connection, self._kind, self._name)
            is_free = last.body is None or last.body.get(OWNER) == self._owner
            if not is_free and (instead_of is None or last.seq != instead_of.seq):
                raise self._held(last)
            if await self._try(self._said(), last.seq, ttl_s):  # else somebody has spoken meanwhile: see who
                return

    async def refresh(self, *, ttl_s: int = TTL_S) -> None:
        """Say that this process is still here; announce anew where the server has forgotten it.

        Raises:
            HeldError: somebody else has taken the name.
            UnreachableError, TimeoutError: the server does not answer.
        """
        if not self.seq or not await self._try(self._said(), self.seq, ttl_s):
            self.seq = 0
            await self.announce(ttl_s=ttl_s)

    async def leave(self) -> None:
        """Say that this process is gone."""
        if self.seq > 0:
            with contextlib.suppress(UnreachableError, TimeoutError, LabwrightError):
                await self._try({"gone": True}, self.seq)
            self.seq = 0

    def _held(self, last: LastWord) -> HeldError:
        return HeldError(self.subject, last.body or {}, seq=last.seq, ttl_s=last.ttl_s)

    def _said(self) -> dict[str, Any]:
        return {**self._describe(), OWNER: self._owner}

    async def _try(self, body: dict[str, Any], expected: int, ttl_s: int = TTL_S) -> bool:
        asked = time.monotonic()
        headers = {EXPECTED: str(expected), TTL: str(ttl_s)}
        data = json.dumps(body).encode()
        try:
            answer = await self._journal.connection.request(self.subject, data, headers=headers, timeout_s=REQUEST_S)
        except NoResponderError:
            await ensure_presence(self._journal)
            answer = await self._journal.connection.request(
                self.subject, data, headers={**headers, EXPECTED: "0"}, timeout_s=REQUEST_S
            )
        result = json.loads(answer.data)
        if "error" in result:
            return False
        self.seq = int(result["seq"])
        self.acknowledged = asked
        return True


async def last_word(connection: Connection, kind: str, name: str) -> LastWord:
    """Give what was said last under a name.

    Raises:
        UnreachableError, TimeoutError: the server does not answer.
    """
    subject = f"$JS.API.DIRECT.GET.{STREAM}.presence.{kind}.{name}"
    answer = await connection.request(subject, timeout_s=REQUEST_S)
    headers = answer.headers or {}
    if "Nats-Sequence" not in headers:
        return LastWord()
    return LastWord(int(headers["Nats-Sequence"]), _body(headers, answer.data), _ttl_s(headers))


async def declare_gone(journal: Journal, kind: str, name: str, seq: int) -> bool:
    """Say of somebody who was cut off that he is gone, unless he has spoken since `seq`; tells whether that was said.

    Raises:
        UnreachableError, TimeoutError: the server does not answer.
    """
    headers = {EXPECTED: str(seq), TTL: str(TTL_S)}
    data = json.dumps({"gone": True, CUT_OFF: True}).encode()
    answer = await journal.connection.request(f"presence.{kind}.{name}", data, headers=headers, timeout_s=REQUEST_S)
    return "error" not in json.loads(answer.data)


async def watch(connection: Connection, kind: str, *, only_changes: bool = False) -> AsyncIterator[Seen | None]:
    """Give, for ever, who is here and who has gone; None once everybody who is here now has been told.

    The server tells who has gone. Where it was itself away, and has forgotten everybody, whoever does not announce
    himself anew within a while is gone too. With `only_changes` a refresh that says nothing new is not given, and
    costs next to nothing; a change is then told up to a tenth of a second later.
    """
    known: dict[str, _Heard] = {}
    generation = 0
    looked = time.monotonic()
    gather_s = GATHER_S if only_changes else 0.0
    batches = aiter(follow(connection, STREAM, [f"presence.{kind}.>"], after=0, gather_s=gather_s))
    coming: asyncio.Future[list[Message]] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(batches))
            await asyncio.wait({coming}, timeout=TTL_S if known else None)
            now = time.monotonic()
            if coming.done():
                batch, coming = coming.result(), None
                if not batch:  # new or newly connected: who was here may have been unable to say so
                    for heard in known.values():
                        heard.until = now + heard.patience_s
                    generation = connection.generation
                    yield None
                for message in batch:
                    name = message.subject.split(".", 2)[2]
                    if _hear(known, name, message, now) or not only_changes:
                        body = _body(message.headers, message.data)
                        is_farewell = body is None and bool(message.data) and CUT_OFF.encode() not in message.data
                        yield Seen(kind, name, body, said_farewell=is_farewell)
            if now - looked > LOOK_S and connection.is_connected and connection.generation == generation:
                looked = now
                for name in [name for name, heard in known.items() if now > heard.until]:
                    del known[name]
                    yield Seen(kind, name, None)
    finally:
        if coming is not None:
            coming.cancel()


@dataclass(slots=True)
class _Heard:
    """What somebody who is here said last, and until when he is believed without saying it again."""

    data: bytes
    patience_s: float
    until: float


def _hear(known: dict[str, _Heard], name: str, message: Message, now: float) -> bool:
    """Note what was said; tells whether it is something new."""
    before = known.get(name)
    if before is not None and before.data == message.data:
        before.until = now + before.patience_s
        return False
    if _body(message.headers, message.data) is None:
        return known.pop(name, None) is not None
    patience_s = MISSED_TTLS * _ttl_s(message.headers)
    known[name] = _Heard(message.data, patience_s, now + patience_s)
    return True


@contextlib.asynccontextmanager
async def _released(presence: Presence) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await presence.leave()


async def lead(journal: Journal, role: str, identity: Mapping[str, Any]) -> AsyncGenerator[bool]:
    """Give True whenever this process has taken the lead of a role, and False as soon as it may have lost it."""
    presence = Presence(journal, "leader", role, lambda: identity)
    leading = False
    async with _released(presence):
        while True:
            try:
                async with asyncio.timeout(_left(presence) if leading else None):
                    await (presence.refresh() if leading else presence.announce())
            except HeldError:
                if leading:
                    leading = False
                    yield False
                await asyncio.sleep(REFRESH_S * (0.5 + random.random()))  # noqa: S311 - jitter
                continue
            except (UnreachableError, TimeoutError, EngineError):
                if leading and _left(presence) <= 0:
                    leading = False
                    yield False
                await asyncio.sleep(0.1)
                continue
            if not leading:
                leading = True
                yield True
            await asyncio.sleep(REFRESH_S * (0.6 + 0.2 * random.random()))  # noqa: S311 - jitter


def _left(presence: Presence) -> float:
    """Tell for how many seconds more an unacknowledged leader may go on."""
    return max(0.0, presence.acknowledged + HOLD_S - time.monotonic())


def _ttl_s(headers: Mapping[str, str]) -> int:
    """Tell for how many seconds what was said counts."""
    said = headers.get(TTL, "")
    return int(said) if re.fullmatch("[0-9]{1,4}", said) else TTL_S


def _body(headers: Mapping[str, str], data: bytes) -> dict[str, Any] | None:
    """Read what an owner says; None for a marker of the server and for a farewell."""
    if "Nats-Marker-Reason" in headers or not data:
        return None
    try:
        body: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    said = cast("dict[str, Any]", body)
    return None if said.get("gone") else said
