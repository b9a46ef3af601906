"""The way of an agent's records into the journal: in order, each once, however long nats-server is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Sequence

from labwright.agents.ledger import Due, Ledger, LedgerError
from labwright.core.errors import EngineError, TooLargeError, UnreachableError
from labwright.core.logs import get_logger
from labwright.core.model import ErrorRecord
from labwright.journal.journal import Journal, LeftBehindError, MovedError
from labwright.journal.records import Record, SessionChanged, SessionEnded

AT_ONCE = 64
PLACES = 10_000
"""Of how many subjects the last sequence is remembered; of others it is found out."""
RETRY_S = 1.0
BEHIND_S = 0.2
"""Records follow so much behind what they tell of, unless somebody waits for them: many sessions may begin at once, and
the replies of those that end at once go first."""

log = get_logger(__name__)


class Delivery:
    """Appends what the ledger's outbox holds, the oldest first, and then forgets it there."""

    def __init__(self, ledger: Ledger, journal: Journal) -> None:
        self._ledger = ledger
        self._journal = journal
        self._places: OrderedDict[str, int] = OrderedDict()
        self._came = asyncio.Event()
        self._empty = asyncio.Event()
        self._awaited = asyncio.Event()

    def wake(self) -> None:
        """Say that there is something new."""
        self._empty.clear()
        self._came.set()

    async def run(self) -> None:
        """Deliver, for ever."""
        while True:
            try:
                due = self._ledger.due(AT_ONCE)
                await self._deliver_all(due)
            except (LedgerError, EngineError, UnreachableError, TimeoutError) as error:
                log.warning("records wait for the journal", because=error.args[0] if error.args else repr(error))
                await asyncio.sleep(RETRY_S)
                continue
            if not due:
                self._empty.set()
                await self._came.wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEHIND_S):
                        await self._awaited.wait()
                self._awaited.clear()
                self._came.clear()

    async def drain(self, patience_s: float) -> bool:
        """Have delivering begin at once, and wait until nothing is left to deliver; tells whether that came in time.

        It waits for the whole outbox, also for what others put there meanwhile, and not for one record: where the
        journal is away, or much is to be delivered, `patience_s` passes in vain.
        """
        if self._empty.is_set():
            return True
        self._awaited.set()
        try:
            async with asyncio.timeout(patience_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def _deliver_all(self, due: Sequence[Due]) -> None:
        """Deliver in order, and forget at once what was delivered, also where that was not everything."""
        delivered: Due | None = None
        try:
            for item in due:
                await self._deliver(item)
                delivered = item
        finally:
            if delivered is not None:
                self._ledger.delivered(delivered)

    async def _deliver(self, due: Due) -> None:
        record = due.record
        while True:
            after = self._places.get(due.subject, 0)
            try:
                self._remember(due.subject, await self._journal.append(due.subject, record, after=after), record)
            except MovedError as error:  # this process does not know the place yet
                self._places[due.subject] = error.entries[-1].seq
            except LeftBehindError:  # the journal is another one, or has dropped what was old
                if not self._places.pop(due.subject, 0):
                    raise
            except TooLargeError as error:
                record = _without_values(record, error)
            else:
                return

    def _remember(self, subject: str, seq: int, record: Record) -> None:
        if isinstance(record, SessionEnded):
            self._places.pop(subject, None)
            return
        self._places[subject] = seq
        self._places.move_to_end(subject)
        if len(self._places) > PLACES:
            self._places.popitem(last=False)


def _without_values(record: Record, error: TooLargeError) -> Record:
    """Leave out what the journal does not take, and say so."""
    if isinstance(record, SessionEnded):
        said = record.error or ErrorRecord.of(error)
        return record.model_copy(update={"result": None, "data": None, "messages": (), "error": said})
    if isinstance(record, SessionChanged):
        return record.model_copy(update={"data": None, "messages": ()})
    return record.model_copy(update={"params": {}})
