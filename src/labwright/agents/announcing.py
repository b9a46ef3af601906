"""How an agent makes itself known: one process holds its name, refreshes it each second, and gives it back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

from labwright.core.errors import ConflictError, EngineError, UnreachableError
from labwright.core.logs import get_logger
from labwright.journal.connection import NoResponderError
from labwright.journal.journal import Journal
from labwright.journal.presence import REFRESH_S, TTL_S, HeldError, Presence, ProcessIdentity, ensure_presence
from labwright.journal.session_fold import encoded

KIND = "agent"
EXPIRY_S = TTL_S + 1.5
"""A name whose holder has died without a farewell is free after this time."""
RETRY_S = 0.2

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
        self._held_since: float | None = None
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
                    await self._presence.refresh()
            except HeldError as error:
                self._judge(error.holder)
                await asyncio.sleep(RETRY_S)
            except NoResponderError:  # the stream of presence is not there: a restarted server has forgotten it
                await self._make_stream()
            except (UnreachableError, TimeoutError, EngineError):
                await asyncio.sleep(RETRY_S)
            else:
                self._held_since = None
                self.may_act.set()
                await asyncio.sleep(REFRESH_S * (0.8 + 0.2 * random.random()))  # noqa: S311 - jitter

    async def leave(self) -> None:
        """Say farewell, bounded to two seconds."""
        self._has_left = True
        try:
            async with asyncio.timeout(2), self._speaking:
                await self._presence.leave()
        except TimeoutError:
            log.debug("no farewell was said", agent=self._name)

    async def _make_stream(self) -> None:
        try:
            await ensure_presence(self._journal)
        except (UnreachableError, TimeoutError, EngineError):
            await asyncio.sleep(RETRY_S)

    def _judge(self, holder: Mapping[str, Any]) -> None:
        """Decide what a holder means: a dead one's name expires, a living one keeps it."""
        now = asyncio.get_running_loop().time()
        self._held_since = self._held_since or now
        identity = ProcessIdentity.parse(str(holder.get("identity", "")))
        if identity is not None and identity.is_here and not identity.is_alive:
            self.may_act.set()
            return
        if now - self._held_since < EXPIRY_S:
            return
        place = f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
        raise NameTakenError(
            f"an agent named {self._name!r} is here already",
            because=place,
            cure="use another name, or end that agent first",
        )
