"""The one follower: the only way in which anything reads a stream forward.

An ephemeral pull consumer with an explicit start; the continuity of its own sequence is checked, and on any gap, error
or reconnection it is made anew behind the last message that was given.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from nats.aio.msg import Msg

from labwright.core.errors import EngineError, UnreachableError
from labwright.journal.connection import Channel, Connection

PULL_BATCH = 512
PULL_EXPIRES_S = 1.0
PULL_BYTES = 8 * 1024 * 1024
PULL_GRACE_S = 5.0
API_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a stream; `headers` tell markers and the like, `stored_ns` when the server stored it (epoch)."""

    seq: int
    subject: str
    data: bytes
    headers: dict[str, str]
    stored_ns: int


@dataclass(frozen=True, slots=True)
class _Pull:
    """One request for messages: at most how many, and how long the server waits for them."""

    most: int
    wait_s: float

    def encoded(self) -> bytes:
        return json.dumps({"batch": self.most, "expires": int(self.wait_s * 1e9), "max_bytes": PULL_BYTES}).encode()


WHAT_COMES = _Pull(PULL_BATCH, PULL_EXPIRES_S)
FIRST_TO_COME = _Pull(1, PULL_EXPIRES_S)
ALL_THERE = _Pull(PULL_BATCH, 0.002)


async def follow(
    connection: Connection, stream: str, subjects: Sequence[str], *, after: int, gather_s: float = 0.0
) -> AsyncIterator[list[Message]]:
    """Give, for ever, batches of what the stream holds behind a sequence: each once, in order, none left out.

    An empty batch tells that everything written so far has been given. A stream that was made anew, as one in memory is
    after a restart of the server, is given from its beginning. With `gather_s` what comes within that time is given
    together: where thousands come each second, each alone would cost the server and the follower a wake-up.
    """
    created: str | None = None
    while True:
        try:
            info = await _stream(connection, stream)
            if created not in {None, info}:
                after = 0
            created = info
            async with connection.delivery() as channel:
                async for batch in _consume(connection, channel, stream, subjects, after, gather_s):
                    if batch:
                        after = batch[-1].seq
                    yield batch
        except (UnreachableError, TimeoutError, EngineError):
            await connection.wait_connected()
            await asyncio.sleep(0.05)


async def _consume(  # noqa: C901, PLR0917 - one loop: pull, check, give, look whether more is there
    connection: Connection, channel: Channel, stream: str, subjects: Sequence[str], after: int, gather_s: float
) -> AsyncIterator[list[Message]]:
    """Pull from a consumer made here until it breaks, which ends the iteration."""
    name = f"follow_{secrets.token_hex(8)}"
    await _make_consumer(connection, name, stream, subjects, after)
    pull = ALL_THERE if gather_s else WHAT_COMES
    given = 0
    caught_up = False
    while True:
        await connection.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}", pull.encoded(), reply=channel.reply)
        received = 0
        ended = False
        while not ended:
            batch: list[Message] = []
            pending = 1
            for raw in await _take(channel):
                if (raw.headers or {}).get("Status"):
                    ended = True
                    continue
                seq, number, stored_ns, pending = _place(raw)
                if number != given + 1:
                    return
                given = number
                batch.append(Message(seq, raw.subject, raw.data, raw.headers or {}, stored_ns))
            received += len(batch)
            ended = ended or received >= pull.most
            if batch:
                yield batch
                if pending == 0 and not caught_up:
                    caught_up = True
                    yield []
        if received == 0 and not (pull is ALL_THERE and caught_up):
            behind = await _pending(connection, name, stream, given)
            if behind is None:
                return
            if behind == 0 and not caught_up:
                caught_up = True
                yield []
        if gather_s:
            pull = await _after(pull, received, gather_s)


async def _after(pull: _Pull, received: int, gather_s: float) -> _Pull:
    """Give the pull after this one: where something has come, wait for more to come and take it all."""
    if pull is FIRST_TO_COME and received:
        await asyncio.sleep(gather_s)
        return ALL_THERE
    return ALL_THERE if received >= PULL_BATCH else FIRST_TO_COME


async def _take(channel: Channel) -> list[Msg]:
    """Wait for a message, and take with it all that have come."""
    messages = [await channel.next(PULL_EXPIRES_S + PULL_GRACE_S)]
    while not channel.queue.empty():
        messages.append(await channel.next(PULL_GRACE_S))
    return messages


async def _pending(connection: Connection, name: str, stream: str, given: int) -> int | None:
    """Tell how many messages the consumer still holds, or None where it is gone or has given more than arrived."""
    answer = await _api(connection, f"CONSUMER.INFO.{stream}.{name}")
    if "error" in answer or answer["delivered"]["consumer_seq"] != given:
        return None
    return int(answer["num_pending"])


async def _make_consumer(connection: Connection, name: str, stream: str, subjects: Sequence[str], after: int) -> None:
    config = {
        "name": name,
        "ack_policy": "none",
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": after + 1,
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": 30_000_000_000,
        "filter_subjects": list(subjects),
    }
    body = {"stream_name": stream, "config": config, "action": "create"}
    answer = await _api(connection, f"CONSUMER.CREATE.{stream}.{name}", body)
    if "error" in answer:
        message = f"{stream} cannot be followed"
        raise EngineError(message, because=str(answer["error"].get("description")))


async def _stream(connection: Connection, stream: str) -> str:
    """Tell when the stream was made, which distinguishes it from others of that name."""
    answer = await _api(connection, f"STREAM.INFO.{stream}")
    if "error" in answer:
        message = f"{stream} cannot be followed"
        raise EngineError(message, because=str(answer["error"].get("description")))
    return str(answer["created"])


async def _api(connection: Connection, verb: str, body: object = None) -> dict[str, Any]:
    data = b"" if body is None else json.dumps(body).encode()
    answer = await connection.request(f"$JS.API.{verb}", data, timeout_s=API_TIMEOUT_S)
    return cast("dict[str, Any]", json.loads(answer.data))


def _place(message: Msg) -> tuple[int, int, int, int]:
    """Read stream and consumer sequence, time and number pending from the reply subject of a delivered message.

    Its form is `$JS.ACK[.domain.account].stream.consumer.delivered.stream_seq.consumer_seq.time.pending[.random]`
    (NATS ADR-15).
    """
    tokens = message.reply.split(".")
    first = 5 if len(tokens) == 9 else 7  # noqa: PLR2004 - with or without domain and account
    return int(tokens[first]), int(tokens[first + 1]), int(tokens[first + 2]), int(tokens[first + 3])
