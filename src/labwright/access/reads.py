"""Reading streams for identities: what they ask of JetStream goes through the lab, which sees where the answer goes.

nats-server sends an answer with its own rights wherever the asker says. Asked by an identity itself, it could be had to
delete the journal by an answer of its own; so an identity asks on `read.<sender>.<request>`, and whoever serves the lab
passes on what only reads and is answered into an inbox of that very identity.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any, cast

from nats.aio.msg import Msg

from labwright.core.errors import UnreachableError
from labwright.journal.connection import API, INBOX, Connection

STREAM = "(?:JOURNAL|BLOBS|LOGS|PRESENCE)"
READS = re.compile(
    rf"STREAM\.INFO\.{STREAM}|DIRECT\.GET\.{STREAM}(?:\..+)?"
    rf"|CONSUMER\.(?:CREATE|INFO|MSG\.NEXT)\.{STREAM}\.follow_[0-9a-f]{{16}}"
)
MOST_BYTES = 64 * 1024
PULLED = frozenset(
    {
        "name",
        "ack_policy",
        "deliver_policy",
        "opt_start_seq",
        "mem_storage",
        "num_replicas",
        "inactive_threshold",
        "filter_subjects",
    }
)
"""What may be said of a consumer: `journal.follow` says no more."""


async def pass_on(connection: Connection, message: Msg) -> None:
    """Pass on what an identity asks of a stream, if it may; the answer goes to it directly."""
    request = request_of(message.subject, message.data, message.reply)
    if request is not None:
        with contextlib.suppress(UnreachableError):  # whoever asked asks again
            await connection.publish(request[0], request[1], reply=message.reply)


def request_of(subject: str, data: bytes, reply: str) -> tuple[str, bytes] | None:
    """Give the request to JetStream that is to be passed on, or None where it must not be.

    >>> request_of("read.viewer=ada.STREAM.INFO.JOURNAL", b"", "_INBOX.viewer=ada.1.2")
    ('$JS.API.STREAM.INFO.JOURNAL', b'')
    >>> request_of("read.viewer=ada.STREAM.DELETE.JOURNAL", b"", "_INBOX.viewer=ada.1.2")
    >>> request_of("read.viewer=ada.STREAM.INFO.JOURNAL", b"", "$JS.API.STREAM.DELETE.JOURNAL")
    """
    word, _, rest = subject.partition(".")
    sender, _, request = rest.partition(".")
    own = (f"{INBOX}{sender}.", f"_DELIVER.{INBOX}{sender}.")
    if word != "read" or not sender or READS.fullmatch(request) is None:
        return None
    if not reply.startswith(own) or re.search(r"[*>\s]", reply) or len(data) > MOST_BYTES:
        return None
    body = _consumer(data) if request.startswith("CONSUMER.CREATE.") else data
    return None if body is None else (API + request, body)


def _consumer(data: bytes) -> bytes | None:
    """Write anew the request for a consumer that gives messages only to who pulls them; None for any other.

    One that pushes would speak wherever it is told. What is read here is what is passed on, so that nothing is hidden
    in a field that stands there twice.
    """
    try:
        body: Any = json.loads(data)
    except (ValueError, RecursionError):
        return None
    config: Any = cast("dict[str, Any]", body).get("config") if isinstance(body, dict) else None
    if not isinstance(config, dict) or cast("dict[str, Any]", body).keys() - {"stream_name", "config", "action"}:
        return None
    if cast("dict[str, Any]", config).keys() - PULLED:
        return None
    return json.dumps(body).encode()
