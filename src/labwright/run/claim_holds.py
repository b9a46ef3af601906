"""How claims hold back runs: while somebody else has claimed its target, a run waits as it would for a lock."""

from __future__ import annotations

import asyncio
import time

from labwright.access.claim_watch import ClaimWatch
from labwright.access.claims import labels_of
from labwright.core.errors import LabwrightError
from labwright.core.logs import get_logger
from labwright.journal.journal import Journal
from labwright.run.agents_here import AgentsHere
from labwright.run.dispatcher import Dispatcher
from labwright.run.site_host import SiteHost

log = get_logger(__name__)


class ClaimHolds:
    """Tells the dispatcher of claims, as they are made, given back, or expire."""

    def __init__(self, journal: Journal, dispatcher: Dispatcher, host: SiteHost, agents: AgentsHere) -> None:
        self._changed = asyncio.Event()
        self._watch = ClaimWatch(journal, self._changed.set)
        self._dispatcher = dispatcher
        self._host = host
        self._agents = agents

    async def run(self) -> None:
        """Follow claims, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch.run())
            group.create_task(self._tell())

    async def _tell(self) -> None:
        while True:
            now = time.monotonic()
            ends = [claim.ends_at - now for claim in self._watch.claims if claim.ends_at > now]
            try:
                async with asyncio.timeout(min(ends, default=None)):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            claims = tuple(claim for claim in self._watch.claims if claim.ends_at > time.monotonic())
            self._dispatcher.note_claims(claims, await self._labels() if claims else {})

    async def _labels(self) -> dict[str, dict[str, str]]:
        """Give the labels of targets by name; of one that cannot be told now, its name is all that is known."""
        known: dict[str, dict[str, str]] = {}
        try:
            known = {name: dict(target.labels) for name, target in (await self._host.targets()).items()}
        except LabwrightError as error:
            log.warning("claims by labels do not hold back runs now", because=error.message)
        for name, said in self._agents.agents.items():
            known[name] = {**known.get(name, {}), **labels_of(said)}
        return known
