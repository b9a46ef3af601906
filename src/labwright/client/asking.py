"""Questions to the lab that runs: one message out, the answer back in as many parts as it needs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from labwright.agents.asking import origin
from labwright.core.errors import UnreachableError
from labwright.journal.connection import Connection
from labwright.journal.session_fold import encoded

ASK_TIMEOUT_S = 40.0


async def ask(connection: Connection, question: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Ask `ask.<question>`; gives the answer as the lab has written it, which may be an error.

    Raises:
        UnreachableError: no lab answers.
    """
    return await _asked(connection, f"ask.{question}", arguments)


async def act(connection: Connection, verb: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Have the lab that is served do something for the identity of this connection; gives its answer as `ask` does.

    Raises:
        UnreachableError: no lab answers.
    """
    return await _asked(connection, f"act.{encoded(connection.identity)}.{verb}", {**arguments, "origin": origin()})


async def _asked(connection: Connection, subject: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    parts: dict[int, bytes] = {}
    until = time.monotonic() + ASK_TIMEOUT_S
    async with connection.channel() as channel:
        await connection.publish(subject, json.dumps(arguments).encode(), reply=channel.reply)
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
