"""How an agent makes itself known: one process holds its name, repeats that it is here, and gives it back."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Any

from labwright.agents.pace import TOLD, UNTOLD, Pace
from labwright.core.errors import ConflictError, EngineError, UnreachableError
from labwright.core.logs import get_logger
from labwright.journal.connection import NoResponderError
from labwright.journal.journal import Journal
from labwright.journal.presence import HeldError, Presence, ProcessIdentity, are_departures_told, ensure_presence
from labwright.journal.session_fold import encoded

KIND = "agent"
MARGIN_S = 1.5
EXPIRY_S = 2 * max(TOLD.slowest_s, UNTOLD.slowest_s) + MARGIN_S
"""A name whose holder has died without a farewell is free after this time at the latest."""
RETRY_S = 0.2
PING_S = 20
"""How often an agent's connection is tried: seldom, for each of its words is answered too."""
DEAF_S = 8.0
"""A connection on which no word has been answered for so long is given up."""
ASK_EACH_S = 30.0
"""How often an agent asks whether departures are told, until they are."""

log = get_logger(__name__)


class NameTakenError(ConflictError):
    """Another agent of that name is here."""

    kind = "held"


class Announcing:
    """Holds an agent's name for as long as `run` runs."""

    def __init__(self, journal: Journal, name: str, describe: Callable[[], Mapping[str, Any]]) -> None:
        self.may_act = asyncio.Event()
        """Set once no other agent of that name can be there."""
        self._name = name
        self._journal = journal
        self._presence = Presence(journal, KIND, encoded(name), describe)
        self._pace = Pace()
        self._asks_at = 0.0
        self._asked_in = -1
        """In which generation of the connection it was told that departures are."""
        self._held_since: float | None = None
        self._deaf_since: float | None = None
        self._speaking = asyncio.Lock()
        self._has_left = False

    async def run(self) -> None:
        """Announce the agent and go on saying that it is here, for ever.

        Raises:
            NameTakenError: another agent of that name is here, and stays.
        """
        while not self._has_left:
            try:
                async with self._speaking:
                    await self._speak()
            except HeldError as error:
                self._judge(error)
                await asyncio.sleep(RETRY_S)
            except NoResponderError:  # the stream of presence is not there: a restarted server has forgotten it
                await self._make_stream()
            except (UnreachableError, TimeoutError, EngineError):
                self._judge_connection()
                await asyncio.sleep(RETRY_S)
            else:
                self._held_since = self._deaf_since = None
                self.may_act.set()
                await self._ask_departures()
                self._pace.note(self._presence.seq, asyncio.get_running_loop().time())
                await asyncio.sleep(self._pace.refresh_s * (0.9 + 0.2 * random.random()))  # noqa: S311 - jitter

    async def leave(self) -> None:
        """Say farewell, bounded to two seconds."""
        self._has_left = True
        try:
            async with asyncio.timeout(2), self._speaking:
                await self._presence.leave()
        except TimeoutError:
            log.debug("no farewell was said", agent=self._name)

    async def _speak(self) -> None:
        """Say that it is here; the name of a holder who is known to have died is taken over at once."""
        try:
            await self._presence.refresh(ttl_s=self._pace.ttl_s)
        except HeldError as error:
            if not _has_died(error.holder):
                raise
            await self._presence.announce(ttl_s=self._pace.ttl_s, instead_of=error)

    def _judge_connection(self) -> None:
        """Have a connection made anew on which nothing is answered any more, though it does not look broken."""
        now = asyncio.get_running_loop().time()
        if not self._journal.connection.is_connected:
            self._deaf_since = None
        elif self._deaf_since is None:
            self._deaf_since = now
        elif now - self._deaf_since > DEAF_S:
            self._deaf_since = None
            self._journal.connection.renew()

    async def _ask_departures(self) -> None:
        """Ask whether it is told at once who was cut off; once it is, that holds until this one connects again."""
        now, generation = asyncio.get_running_loop().time(), self._journal.connection.generation
        if self._asked_in == generation or now < self._asks_at:
            return
        self._asks_at = now + ASK_EACH_S
        with contextlib.suppress(UnreachableError, TimeoutError, EngineError):
            if await are_departures_told(self._journal):
                self._pace.limits, self._asked_in = TOLD, generation
            else:
                self._pace.limits = UNTOLD

    async def _make_stream(self) -> None:
        try:
            await ensure_presence(self._journal)
        except (UnreachableError, TimeoutError, EngineError):
            await asyncio.sleep(RETRY_S)

    def _judge(self, error: HeldError) -> None:
        """Decide what a holder means: a dead one's name expires, a living one keeps it."""
        now = asyncio.get_running_loop().time()
        self._held_since = self._held_since or now
        if now - self._held_since < error.ttl_s + MARGIN_S:
            return
        holder = error.holder
        place = f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
        raise NameTakenError(
            f"an agent named {self._name!r} is here already",
            because=place,
            cure="use another name, or end that agent first",
        )


def _has_died(holder: Mapping[str, Any]) -> bool:
    """Tell whether a holder's process is known to have ended, which can be seen on its own host alone."""
    identity = ProcessIdentity.parse(str(holder.get("identity", "")))
    return identity is not None and identity.is_here and not identity.is_alive
