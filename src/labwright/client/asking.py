"""Questions to the lab that runs: one message out, the answer back in as many parts as it needs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from labwright.core.errors import UnreachableError
from labwright.journal.connection import Connection

ASK_TIMEOUT_S = 40.0


async def ask(connection: Connection, question: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Ask `ask.<question>`; gives the answer as the lab has written it, which may be an error.

    Raises:
        UnreachableError: no lab answers.
    """
    parts: dict[int, bytes] = {}
    until = time.monotonic() + ASK_TIMEOUT_S
    async with connection.channel() as channel:
        await connection.publish(f"ask.{question}", json.dumps(arguments).encode(), reply=channel.reply)
        while True:
            try:
                message = await channel.next(max(0.01, until - time.monotonic()))
            except TimeoutError as error:
                text = "the lab does not answer"
                raise UnreachableError(text, because=f"it had {ASK_TIMEOUT_S:g} s", cure="labwright doctor") from error
            headers = message.headers or {}
            if headers.get("Status") == "503":
                text = "no lab is running here"
                raise UnreachableError(
                    text, because="the journal answers, but nobody serves the site", cure="labwright serve"
                )
            parts[int(headers["Part"])] = message.data
            if len(parts) == int(headers["Parts"]):
                return json.loads(b"".join(parts[number] for number in sorted(parts)))
