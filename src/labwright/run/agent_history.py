"""Who was here when: what presence tells of agents becomes records, written by the one lab that leads.

What came or went while no lab looked is found when the next one begins to, and its record says so. Each record states
the place of the one before it, so a lab that has lost the lead, and does not know it yet, writes nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from labwright.core.logs import get_logger
from labwright.journal.journal import Journal, LeftBehindError, MovedError
from labwright.journal.presence import OWNER
from labwright.journal.records import AgentCame, AgentGone
from labwright.journal.stay_fold import StayEntry, stay_subject
from labwright.run.agents_here import AgentsHere, Sighting
from labwright.run.folding import Folding

SUSPECTED_S = 6.0
"""After a start of the lab nobody counts as gone for so long: a restarted server must first hear of everybody again."""
WRITERS = 64
TOLD = ("class", "labels", "host", "pid", "version", "identity", "since")

log = get_logger(__name__)


class AgentHistory:
    """Writes who came and who went, for as long as `lead` runs."""

    def __init__(self, journal: Journal, folding: Folding, here: AgentsHere) -> None:
        self._journal = journal
        self._folding = folding
        self._here = here
        self._sightings: dict[str, list[Sighting]] = {}
        self._came = asyncio.Event()

    async def lead(self) -> None:
        """Write what is found now, and then what is seen, for ever."""
        await self._here.known.wait()
        self._sightings.clear()
        for sighting in self._here.found():
            self._note(sighting)
        self._here.listeners.append(self._note)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._find_gone())
                group.create_task(self._write_all())
        finally:
            self._here.listeners.remove(self._note)

    def _note(self, sighting: Sighting) -> None:
        self._sightings.setdefault(sighting.agent, []).append(sighting)
        self._came.set()

    async def _find_gone(self) -> None:
        """Look once for those who went while no lab looked."""
        await asyncio.sleep(SUSPECTED_S)
        for name, entry in self._folding.present.stays.items():
            if entry.is_open and name not in self._here.agents:
                self._note(Sighting(agent=name, said=None, is_found=True))

    async def _write_all(self) -> None:
        """Write what was sighted, of each agent in its order."""
        places = asyncio.Semaphore(WRITERS)

        async def write(sightings: Sequence[Sighting]) -> None:
            async with places:
                for sighting in sightings:
                    await self._write(sighting)

        while True:
            await self._came.wait()
            self._came.clear()
            sighted, self._sightings = self._sightings, {}
            async with asyncio.TaskGroup() as group:
                for sightings in sighted.values():
                    group.create_task(write(sightings))

    async def _write(self, sighting: Sighting) -> None:
        """Write what a sighting adds to what the journal knows, whoever writes in between."""
        subject = stay_subject(sighting.agent)
        has_left = False
        while True:
            newest = self._folding.present.stays.get(sighting.agent)
            record = next_record(sighting, newest)
            if record is None:
                return
            try:
                after = 0 if newest is None or has_left else newest.seq
                seq = await self._journal.append(subject, record, after=after)
            except MovedError as error:
                seq = error.entries[-1].seq
            except LeftBehindError:  # what is known of it is older than the journal
                has_left = True
                continue
            await self._folding.folded(seq)


def next_record(sighting: Sighting, newest: StayEntry | None) -> AgentCame | AgentGone | None:
    """Tell what a sighting adds to the newest stay that is known; None where that knows it already. Pure."""
    if newest is None or not newest.is_open:
        return None if sighting.said is None else _came(sighting, sighting.said)
    if sighting.said is not None and str(sighting.said.get(OWNER, "")) == newest.owner:
        return None
    return AgentGone(owner=newest.owner, why=_why(sighting), at=sighting.at)


def _why(sighting: Sighting) -> Literal["farewell", "silent", "replaced", "unseen"]:
    if sighting.is_found:
        return "unseen"
    if sighting.said is not None:
        return "replaced"
    return "farewell" if sighting.said_farewell else "silent"


def _came(sighting: Sighting, said: Mapping[str, Any]) -> AgentCame:
    """Write down what an agent says of itself; where it says so in an unknown form, only that it came."""
    known = {"owner": str(said.get(OWNER, "")), "is_found": sighting.is_found, "at": sighting.at}
    told = {name: said[name] for name in TOLD if name in said}
    try:
        return AgentCame.model_validate({**told, **known})
    except ValidationError as error:
        log.warning("an agent describes itself in an unknown form", agent=sighting.agent, because=str(error))
        return AgentCame.model_validate(known)
