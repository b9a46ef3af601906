"""The hand-over of runs to workers: a stream in memory, refilled from the log of hand-outs whenever it is lost."""

from __future__ import annotations

import json
from dataclasses import dataclass

from labwright.core.errors import LabwrightError
from labwright.core.model import Run
from labwright.journal.connection import NoResponderError
from labwright.journal.journal import Journal

STREAM = "WORK"
ACK_WAIT_S = 2
RUN_LIMIT = 512 * 1024
ACK = b"+ACK"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One run for one worker; `run` is its state at `seq`, or None where it is too large to travel."""

    run_id: str
    token: int
    attempt: int
    seq: int
    run: Run | None

    def encode(self) -> bytes:
        """Write it as a message."""
        head = json.dumps({"run_id": self.run_id, "token": self.token, "attempt": self.attempt, "seq": self.seq})
        body = self.run.model_dump_json(exclude_defaults=True, by_alias=True) if self.run else ""
        return f"{head}\n{body if len(body) <= RUN_LIMIT else ''}".encode()

    @classmethod
    def decode(cls, data: bytes) -> Assignment:
        """Read a message."""
        head, _, body = data.partition(b"\n")
        fields = json.loads(head)
        return cls(**fields, run=Run.model_validate_json(body) if body else None)


def pool_token(pool: str) -> str:
    """Write a pool's name as one part of a subject."""
    return pool.replace(".", "%2E")


async def ensure_work(journal: Journal, pools: tuple[str, ...] = ()) -> None:
    """Make the stream, and the consumers of these pools, where a restarted server has forgotten them."""
    await journal.ensure_stream(
        {
            "name": STREAM,
            "subjects": ["work.>"],
            "storage": "memory",
            "retention": "workqueue",
            "max_msgs_per_subject": 1,
            "discard": "new",
            "discard_new_per_subject": True,
            "duplicate_window": 1_000_000_000,
        }
    )
    for pool in pools:
        name = consumer_name(pool)
        config = {
            "durable_name": name,
            "name": name,
            "ack_policy": "explicit",
            "ack_wait": ACK_WAIT_S * 1_000_000_000,
            "max_ack_pending": 100_000,
            "filter_subject": f"work.{pool_token(pool)}.>",
        }
        answer = await journal.api(
            f"CONSUMER.DURABLE.CREATE.{STREAM}.{name}", {"stream_name": STREAM, "config": config}
        )
        if "error" in answer:
            message = f"the work of pool {pool} cannot be consumed"
            raise LabwrightError(message, because=str(answer["error"].get("description")))


def consumer_name(pool: str) -> str:
    """Name the consumer that all workers of a pool share."""
    return f"pool_{pool_token(pool)}"


async def hand_over(journal: Journal, pool: str, assignment: Assignment) -> None:
    """Put an assignment where a free worker takes it; one that lies there already stays the only one.

    Raises:
        UnreachableError, TimeoutError: the server does not answer; hand it over again later.
    """
    subject = f"work.{pool_token(pool)}.{assignment.run_id}.{assignment.token}"
    data = assignment.encode()
    try:
        await journal.connection.request(subject, data)
    except NoResponderError:
        await ensure_work(journal)
        await journal.connection.request(subject, data)
