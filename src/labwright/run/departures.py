"""Departures: an agent whose connection to nats-server has ended, and who does not come back, is gone at once.

nats-server pushes the end of each connection to its system account. So agents need not repeat every second that they
are here for their death to be seen, and where very many are here they speak seldom.
Source: the advisories `$SYS.ACCOUNT.<account>.DISCONNECT` of nats-server (type client_disconnect, version 1).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nats.aio.msg import Msg

from labwright.agents.following import answers
from labwright.agents.serving import connection_name
from labwright.core.errors import EngineError, LabwrightError, UnreachableError
from labwright.core.logs import get_logger
from labwright.journal.connection import Address, Connection
from labwright.journal.journal import Journal
from labwright.journal.nats_server import SYSTEM_USER
from labwright.journal.presence import declare_gone, ensure_presence, last_word
from labwright.journal.session_fold import encoded
from labwright.run.agents_here import KIND

ENDED = "$SYS.ACCOUNT.*.DISCONNECT"
COMES_BACK_S = 1.0
"""A connection that merely broke is there again after this time."""
ANSWERS_S = 5.0
"""So long it takes at most to see whether an agent is there."""
AGAIN_S = 1.0

log = get_logger(__name__)


class Departures:
    """Tells that agents are gone, for as long as `run` runs; the lab's own server must be where `locate` says."""

    def __init__(self, journal: Journal, locate: Callable[[], Address]) -> None:
        self._journal = journal
        self._locate = locate
        self._looking: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Hear who is cut off, for ever; the stream of presence says so to the agents."""
        system = Connection(lambda: replace(self._locate(), user=SYSTEM_USER), name="serve, departures")
        told = asyncio.Event()
        system.on_reconnect(told.set)
        self._journal.connection.on_reconnect(told.set)  # a server that was restarted has forgotten what it was told
        async with system:
            await system.listen(ENDED, self._hear)
            while True:
                told.clear()
                try:
                    await ensure_presence(self._journal, tells_departures=True)
                except (UnreachableError, TimeoutError, EngineError) as error:
                    log.debug("agents are not told yet that departures are seen", because=str(error))
                    await asyncio.sleep(AGAIN_S)
                    continue
                await told.wait()

    async def _hear(self, message: Msg) -> None:
        agent = agent_of(message.data)
        if agent is None or agent in self._looking:
            return
        task = self._looking[agent] = asyncio.create_task(self._look(agent))
        task.add_done_callback(lambda _: self._looking.pop(agent, None))

    async def _look(self, agent: str) -> None:
        """Declare an agent gone, unless it has spoken since or answers: anybody may name a connection as an agent's."""
        connection = self._journal.connection
        with contextlib.suppress(LabwrightError, TimeoutError):
            async with asyncio.timeout(ANSWERS_S):
                before = await last_word(connection, KIND, encoded(agent))
                if before.body is None:
                    return
                await asyncio.sleep(COMES_BACK_S)
                if await answers(connection, agent, "serve"):
                    return
                if await declare_gone(self._journal, KIND, encoded(agent), before.seq):
                    log.info("an agent is gone", agent=agent)


def agent_of(data: bytes) -> str | None:
    """Give the agent whose connection has ended, as the server tells it; None where it was another's.

    >>> agent_of(b'{"client": {"name": "agent smurf-s2"}, "reason": "Client Closed"}')
    'smurf-s2'
    """
    try:
        said: Any = json.loads(data)
        name: object = said["client"]["name"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    mark = connection_name("")
    return name.removeprefix(mark) if isinstance(name, str) and name.startswith(mark) and name != mark else None
