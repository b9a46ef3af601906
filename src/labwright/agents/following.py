"""What clients see of agents: who is here, whether one that is waited for still is, and what the journal knows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Self, TypeAlias, cast

from nats.aio.msg import Msg

from labwright.agents.wire import command_subject
from labwright.core.errors import LabwrightError, UnreachableError
from labwright.core.model import ErrorRecord, SessionSnapshot, SessionState
from labwright.journal.connection import Connection, NoResponderError
from labwright.journal.journal import Journal
from labwright.journal.presence import STREAM, watch
from labwright.journal.session_fold import decoded, encoded, fold_session, session_subject

SILENCE_S = 2.3
"""An agent that has not said for so long that it is here is asked; few of them say so each second, many more seldom."""
PING_S = 1.0
ANSWER_S = 2.0

Ear: TypeAlias = Callable[[Msg], Awaitable[None]]
Unlisten: TypeAlias = Callable[[], Awaitable[None]]


class Hearing:
    """Hears agents say that they are here: with one subscription, for all who wait for any of them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ears: dict[str, set[Ear]] = {}
        self._unlisten: Unlisten | None = None

    async def __aenter__(self) -> Self:
        self._unlisten = await self._connection.listen("presence.agent.*", self._hear)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._unlisten is not None:
            await self._unlisten()

    def listen(self, name: str, ear: Ear) -> Unlisten:
        """Have what an agent says told to a function; gives what ends that."""
        self._ears.setdefault(encoded(name), set()).add(ear)

        async def end() -> None:
            ears = self._ears.get(encoded(name), set())
            ears.discard(ear)
            if not ears:
                self._ears.pop(encoded(name), None)

        return end

    async def came(self, name: str) -> None:
        """Wait until an agent says that it is here."""
        came = asyncio.Event()

        async def hear(message: Msg) -> None:
            if not _is_farewell(message):
                came.set()

        end = self.listen(name, hear)
        try:
            await came.wait()
        finally:
            await end()

    async def _hear(self, message: Msg) -> None:
        for ear in tuple(self._ears.get(message.subject.rpartition(".")[2], ())):
            await ear(message)


class AgentWatch:
    """Watches whether an agent is here, as long as somebody waits for it: `async with AgentWatch(...) as watch`."""

    def __init__(self, connection: Connection, name: str, sender: str, hearing: Hearing | None = None) -> None:
        self._connection = connection
        self._name = name
        self._sender = sender
        self._hearing = hearing
        self._heard = time.monotonic()
        self._farewell = asyncio.Event()

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncGenerator[asyncio.Task[None]]:
        """Give a task that ends when the agent is gone."""
        if self._hearing is not None:
            unlisten = self._hearing.listen(self._name, self._hear)
        else:
            unlisten = await self._connection.listen(f"presence.agent.{encoded(self._name)}", self._hear)
        task = asyncio.create_task(self._gone())
        try:
            yield task
        finally:
            task.cancel()
            await unlisten()

    async def _hear(self, message: Msg) -> None:
        self._heard = time.monotonic()
        if _is_farewell(message):
            self._farewell.set()

    async def _gone(self) -> None:
        while True:
            if not self._connection.is_connected:  # who was here could not say so meanwhile
                await self._connection.wait_connected()
                self._heard = time.monotonic()
            generation = self._connection.generation
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.05, self._heard + SILENCE_S - time.monotonic())):
                    await self._farewell.wait()
            if not self._connection.is_connected or self._connection.generation != generation:
                self._heard = time.monotonic()
                continue
            is_silent = time.monotonic() - self._heard >= SILENCE_S
            if (self._farewell.is_set() or is_silent) and not await answers(self._connection, self._name, self._sender):
                if self._connection.is_connected and self._connection.generation == generation:
                    return
            elif is_silent or self._farewell.is_set():
                self._farewell.clear()
                self._heard = time.monotonic()


def _is_farewell(message: Msg) -> bool:
    return b'"gone": true' in message.data


async def answers(connection: Connection, name: str, sender: str) -> bool:
    """Ask an agent whether it is here."""
    try:
        subject = command_subject(connection.identity or sender, name, None)
        await connection.request(subject, b'{"do": "ping"}', timeout_s=PING_S)
    except (UnreachableError, TimeoutError):
        return False
    return True


async def presence_of(connection: Connection, name: str) -> dict[str, Any] | None:
    """Give what an agent last said of itself; None where it is not here.

    Raises:
        UnreachableError, TimeoutError: the server does not answer.
    """
    try:
        message = await connection.request(f"$JS.API.DIRECT.GET.{STREAM}.presence.agent.{encoded(name)}")
    except NoResponderError:  # no stream: nobody has been here since the server was started
        return None
    return _body(message)


async def agents_here(connection: Connection) -> dict[str, dict[str, Any]]:
    """List the agents that are here now, by name, with what they say of themselves.

    Raises:
        UnreachableError, TimeoutError: the server does not answer.
    """
    ask = json.dumps({"multi_last": ["presence.agent.>"]}).encode()
    here: dict[str, dict[str, Any]] = {}
    async with connection.channel() as channel:
        await connection.publish(f"$JS.API.DIRECT.GET.{STREAM}", ask, reply=channel.reply)
        while True:
            message = await channel.next(ANSWER_S)
            headers = message.headers or {}
            if "Nats-Sequence" not in headers:
                break
            body = _body(message)
            if body is not None:
                here[decoded(headers["Nats-Subject"].split(".", 2)[2])] = body
    if headers.get("Status") == "413":  # more than the server gives at once
        return await _all_here(connection)
    return dict(sorted(here.items()))


async def _all_here(connection: Connection) -> dict[str, dict[str, Any]]:
    here: dict[str, dict[str, Any]] = {}
    async for seen in watch(connection, "agent"):
        if seen is None:
            break
        if seen.body is None:
            here.pop(decoded(seen.name), None)
        else:
            here[decoded(seen.name)] = seen.body
    return dict(sorted(here.items()))


async def recorded(journal: Journal, agent: str, session_id: str) -> SessionSnapshot | None:
    """Give a session as the journal has it, large values included.

    Raises:
        UnreachableError, TimeoutError: the server does not answer.
    """
    entries = await journal.read(session_subject(agent, session_id))
    session = fold_session([entry.record for entry in entries], session_id)
    if session is None:
        return None
    light = {"params": session.params, "data": session.data, "result": session.result}
    return session.model_copy(update=await journal.restore(light))


def shown_lost(session: SessionSnapshot) -> SessionSnapshot:
    """Show a session as long as its agent is away: one that has not ended is lost."""
    if session.state.is_final:
        return session
    error = LabwrightError(
        f"{session.operation} is lost", because=f"its agent {session.agent} is away", cure="see what it did"
    )
    return session.model_copy(update={"state": SessionState.LOST, "error": ErrorRecord.of(error, kind="lost")})


def _body(message: Msg) -> dict[str, Any] | None:
    headers = message.headers or {}
    if "Nats-Sequence" not in headers or "Nats-Marker-Reason" in headers or not message.data:
        return None
    try:
        body: object = json.loads(message.data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    said = cast("dict[str, Any]", body)
    return None if said.get("gone") else said
