"""How claims hold back runs: while somebody else has claimed its target, a run waits as it would for a lock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from labwright.access.claim_watch import ClaimWatch
from labwright.access.claims import Claim, labels_of
from labwright.agents.members import members
from labwright.core.errors import LabwrightError
from labwright.core.logs import get_logger
from labwright.core.model import Target
from labwright.journal.journal import Journal
from labwright.journal.records import ClaimEntry
from labwright.run.agents_here import AgentsHere, Sighting
from labwright.run.dispatcher import Dispatcher
from labwright.run.site_host import SiteHost

ASK_AGAIN_S = 5.0
"""A site that could not tell its targets is asked again after this time."""

Labels = dict[str, dict[str, str]]

log = get_logger(__name__)


class ClaimHolds:
    """Tells the dispatcher of claims, as they are made, given back, or expire, and as those come whom they choose."""

    def __init__(self, journal: Journal, dispatcher: Dispatcher, host: SiteHost, agents: AgentsHere) -> None:
        self.told = asyncio.Event()
        """Set once the dispatcher knows of the claims from before: it is to hand out nothing until then."""
        self._changed = asyncio.Event()
        self._watch = ClaimWatch(journal, self._changed.set)
        self._dispatcher = dispatcher
        self._host = host
        self._agents = agents
        self._said: dict[str, Mapping[str, Any]] = {}
        """What each agent said last, also of those that are gone: what they are called stays known."""
        self._targets: Mapping[str, Target] = {}
        self._asks_again = False
        self._last: tuple[tuple[ClaimEntry, ...], Labels] = ((), {})

    async def run(self) -> None:
        """Follow claims, for ever."""
        self._agents.listeners.append(self._see)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch.run())
            group.create_task(self._tell())

    def site_changed(self) -> None:
        """Take up that the site's targets may have other labels now."""
        self._changed.set()

    def _see(self, sighting: Sighting) -> None:
        """Look again when an agent has come with labels that were not known."""
        if sighting.said is None:
            return
        before, self._said[sighting.agent] = self._said.get(sighting.agent), sighting.said
        if before is None or labels_of(before) != labels_of(sighting.said):
            self._changed.set()

    async def _tell(self) -> None:
        await self._watch.is_known.wait()
        while True:
            self._changed.clear()
            claims = self._in_force()
            labels = await self._labels() if claims else {}
            told = tuple(claim.entry for claim in claims), labels
            if told != self._last:
                self._last = told
                self._dispatcher.note_claims(claims, labels)
            self.told.set()
            await self._wait()

    async def _wait(self) -> None:
        """Wait until something has changed, a claim has ended, or a site is to be asked again."""
        now = time.monotonic()
        pauses = [claim.ends_at - now for claim in self._in_force()]
        if self._asks_again:
            pauses.append(ASK_AGAIN_S)
        try:
            async with asyncio.timeout(min(pauses, default=None)):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _in_force(self) -> tuple[Claim, ...]:
        now = time.monotonic()
        return tuple(claim for claim in self._watch.claims if claim.ends_at > now)

    async def _labels(self) -> Labels:
        """Give the labels of targets by name; of one that cannot be told now, its name is all that is known."""
        await self._agents.known.wait()
        self._asks_again = False
        try:
            self._targets = await self._host.targets()
        except LabwrightError as error:
            self._asks_again = True
            log.warning("claims by the labels of new targets do not hold back runs now", because=error.message)
        self._said.update(self._agents.agents)
        return {name: target.labels for name, target in members(self._targets, self._said).items()}
