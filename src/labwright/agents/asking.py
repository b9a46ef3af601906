"""Commands to an agent and their replies: repeated where an answer was lost, ended where nobody is there to answer."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import functools
import json
import math
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from labwright.agents.following import agents_here, presence_of
from labwright.agents.wire import command_subject
from labwright.core.errors import (
    AgentGoneError,
    RefusedError,
    TooLargeError,
    UnreachableError,
)
from labwright.core.model import SessionSnapshot
from labwright.core.remote import error_of
from labwright.journal.connection import Channel, Connection, ConnectionLostError, NoResponderError

REPLY_S = 5.0
RETRY_S = 0.1
MOST_BYTES = 1024 * 1024 - 4096
"""A command with its subject fits into one message of the server."""
MOST_NAMED = 20
RECONNECTS_S = 3.0
"""An agent that is announced and does not listen is about to connect again; it is given this time."""


@dataclass(frozen=True)
class Asked:
    """Who asks which agent; `patience_s` is how long a command is repeated while nobody answers."""

    connection: Connection
    agent: str
    sender: str
    patience_s: float = 10.0

    async def ask(self, operation: str | None, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command and give its reply, which tells of no error.

        Raises:
            AgentGoneError: the agent is not here.
            UnreachableError: the server, or the agent, did not answer in time; asking again is safe.
            LabwrightError: the agent did not follow it, for this reason.
        """
        first, _ = await self.ask_twice(operation, body, second_s=0)
        return first

    async def ask_twice(
        self, operation: str | None, body: Mapping[str, Any], *, second_s: float, reply_s: float = REPLY_S
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Send a command as `ask` does; gives its reply, and the one that follows if it comes within `second_s`.

        A process is not waited for, nor what the first reply shows as ended.
        """
        begun = time.monotonic()
        if body["do"] == "start":
            body = {**body, "within_s": self.patience_s}
        while True:
            try:
                return await self._once(operation, _aged(body, time.monotonic() - begun), reply_s, second_s)
            except NoResponderError:
                await self._judge_absence(begun)
            except (ConnectionLostError, TimeoutError) as error:
                if time.monotonic() - begun > self.patience_s:
                    raise self._silent(body, error) from error
                await self._pause()

    def _silent(self, body: Mapping[str, Any], error: BaseException) -> UnreachableError:
        session = body.get("session")
        asked = f"labwright sessions show {session} tells whether it was heard; " if session else ""
        return UnreachableError(
            f"the agent {self.agent} did not answer",
            because=str(error) or f"nothing came for {self.patience_s:g} s",
            cure=f"{asked}ask again with the same session or key: that is safe",
        )

    async def _once(
        self, operation: str | None, body: Mapping[str, Any], reply_s: float, second_s: float
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        subject = command_subject(self.connection.identity or self.sender, self.agent, operation)
        command = json.dumps({**body, "origin": origin()}).encode()
        if len(command) > MOST_BYTES:
            raise TooLargeError(
                f"the command to {self.agent} has {len(command)} bytes",
                because=f"a command may have {MOST_BYTES}",
                cure="write what is large to a file and pass its path",
            )
        async with self.connection.channel() as channel:
            await self.connection.publish(subject, command, reply=channel.reply)
            first = await reply_of(channel, reply_s)
            shown: dict[str, Any] = first.get("session") or {}
            if second_s <= 0 or shown.get("kind") == "process" or "timed_out" in first:
                return first, None
            try:
                return first, await reply_of(channel, second_s)
            except (ConnectionLostError, TimeoutError):
                return first, None

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(1):
                await self.connection.wait_connected()
                await asyncio.sleep(RETRY_S)
        except TimeoutError:
            pass

    async def _judge_absence(self, begun: float) -> None:
        """Wait a moment for an agent that is announced and does not listen; one that is not is gone."""
        try:
            here = await presence_of(self.connection, self.agent)
        except (UnreachableError, TimeoutError):
            here = {}
        if here is None or time.monotonic() - begun > RECONNECTS_S:
            raise await self._absent()
        await asyncio.sleep(RETRY_S)

    async def _absent(self) -> AgentGoneError:
        """Make the error for the agent, which is not here; it names who is, and the nearest."""
        error = gone(self.agent)
        with contextlib.suppress(UnreachableError, TimeoutError):
            here = set(await agents_here(self.connection)) - {self.agent}
            error.reword(because=f"here are: {', '.join(sorted(here)[:MOST_NAMED])}" if here else "no agent is here")
            if near := difflib.get_close_matches(self.agent, here, n=1, cutoff=0.5):
                error.reword(cure=f"did you mean {near[0]!r}?")
        return error


@functools.cache
def origin() -> str:
    """Tell where this process is, for the record: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"


async def reply_of(channel: Channel, timeout_s: float) -> dict[str, Any]:
    """Take one reply.

    Raises:
        NoResponderError: nobody listens.
        LabwrightError: the reply tells of this error.
        ConnectionLostError, TimeoutError: none came.
    """
    message = await channel.next(timeout_s)
    if not message.data and (message.headers or {}).get("Status") == "503":
        raise NoResponderError("the agent does not listen")
    reply = cast("dict[str, Any]", json.loads(message.data))
    if "error" in reply and reply["error"] is not None:
        raise error_of(reply)
    return reply


def gone(agent: str, session: SessionSnapshot | None = None) -> AgentGoneError:
    """Make the error for an agent that is not here, with what is known of the session that was asked for."""
    if session is None:
        return AgentGoneError(
            f"no agent named {agent!r} is here",
            because="nobody of that name is announced",
            cure="see who is: labwright agents list",
        )
    return AgentGoneError(
        f"the agent {agent!r} is away; {session.operation} ({session.id}) is lost",
        session=session,
        because="it is final unless the agent comes back and takes the session up again",
        cure=f"see what is known: labwright sessions show {session.id}",
    )


def _aged(body: Mapping[str, Any], age_s: float) -> Mapping[str, Any]:
    """Give a command that is repeated only the time that it has left; while it is repeated, somebody waits for it."""
    limits = {name: body[name] for name in ("valid_for_s", "within_s") if body.get(name) is not None}
    if not limits or age_s < RETRY_S:
        return body
    if age_s >= limits.get("valid_for_s", math.inf):
        raise RefusedError("the command has expired", because="nobody answered in time", cure="ask again")
    return {**body, **{name: max(limit - age_s, RETRY_S) for name, limit in limits.items()}}
