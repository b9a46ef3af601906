"""The decider: each event that came in is decided once, and the runs of each decision are made, whatever dies.

Both halves read what is unreacted in the present, so a restart goes on where the last one stopped. Deciding happens in
a process of its own; what is written is fenced, so that a second decider does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from pydantic_core import to_json

from labwright.core.clock import Clock
from labwright.core.errors import ConflictError, LabwrightError, TooLargeError, TransientError, UnreachableError
from labwright.core.logs import get_logger
from labwright.core.model import Cause, ErrorRecord, RequestRecord
from labwright.core.request import Request
from labwright.journal.journal import Journal, MovedError
from labwright.journal.records import Decided, PlannedRunRecord, SetAside
from labwright.journal.state import Changes, EventEntry, Present
from labwright.plan.tasks import TaskDescription
from labwright.run.requesting import needs_approval, requested
from labwright.run.site_host import PoisonedError, SiteHost

MOST_AT_ONCE = 256
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
LONGEST_DECISION = 64 * 1024

log = get_logger(__name__)


class Decider:
    """Decides and reacts while it leads; `note` keeps it up to date."""

    def __init__(
        self,
        journal: Journal,
        present: Present,
        host: SiteHost,
        tasks: Callable[[], Mapping[str, TaskDescription]],
        clock: Clock,
    ) -> None:
        self.problems: dict[str, ErrorRecord] = {}
        """Why events are still undecided, by key."""
        self._journal = journal
        self._present = present
        self._host = host
        self._tasks = tasks
        self._clock = clock
        self._leading = False
        self._jobs: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(MOST_AT_ONCE)

    def lead(self) -> None:
        """Begin with everything that is unreacted."""
        self._leading = True
        for entry in list(self._present.events.values()):
            self._note(entry)

    def note(self, changes: Changes) -> None:
        """Take up events that came in, and decisions that were made."""
        if self._leading:
            for entry in changes.events.values():
                self._note(entry)

    async def close(self) -> None:
        """Stop; what is under way is found again."""
        self._leading = False
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    def _note(self, entry: EventEntry) -> None:
        if entry.state in {"received", "released"}:
            self._begin((entry.key, f"decide {entry.seq}"), self._decide(entry))
        elif entry.missing:
            self._begin((entry.key, "react"), self._react(entry))

    def _begin(self, key: tuple[str, str], job: Coroutine[Any, Any, None]) -> None:
        if key in self._jobs:
            job.close()
            return
        task = asyncio.create_task(job)
        self._jobs[key] = task
        task.add_done_callback(lambda _: self._ended(key, task))

    def _ended(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        self._jobs.pop(key, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("deciding broke", event_key=key[0], exc_info=error)

    async def _decide(self, entry: EventEntry) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                async with self._places:
                    record = await self._decided(entry)
                    await self._write(entry, record)
            except TransientError as error:
                self.problems[entry.key] = ErrorRecord.of(error)
                log.warning("the facts of an event cannot be known now", event_id=entry.event.id, because=error.message)
                await asyncio.sleep(max(pause, error.retry_after or 0.0))
                pause = min(pause * 2, LONGEST_PAUSE_S)
            else:
                self.problems.pop(entry.key, None)
                return

    async def _write(self, entry: EventEntry, record: Decided | SetAside) -> None:
        subject = f"event.{entry.key}"
        try:
            try:
                await self._journal.append(subject, record, after=entry.seq)
            except TooLargeError as error:
                aside = SetAside(tries=1, error=ErrorRecord.of(error))
                await self._journal.append(subject, aside, after=entry.seq)
        except MovedError:
            log.info("another decider was first", event_id=entry.event.id)

    async def _decided(self, entry: EventEntry) -> Decided | SetAside:
        try:
            data = await self._journal.restore(entry.event.data)
            event = entry.event.model_copy(update={"data": data})
            decided = await self._host.decide(event, self._clock.now())
            return Decided(decision_json=await self._decision_text(entry, decided.decision), runs=decided.runs)
        except TransientError:
            raise
        except PoisonedError as error:
            log.error("an event is set aside", event_id=entry.event.id, tries=error.tries, because=error.message)  # noqa: TRY400 - said, not traced
            return SetAside(tries=error.tries, error=error.error)
        except UnreachableError as error:
            message = "the journal does not answer"
            raise TransientError(message) from error
        except LabwrightError as error:
            log.error("an event cannot be decided", event_id=entry.event.id, because=error.message)  # noqa: TRY400 - said, not traced
            return SetAside(tries=1, error=ErrorRecord.of(error))
        except Exception as error:  # a border: a fault of ours must not leave an event undecided for ever
            log.exception("deciding broke", event_id=entry.event.id)
            message = "deciding broke"
            raise TransientError(message, LONGEST_PAUSE_S, because=repr(error)) from error

    async def _decision_text(self, entry: EventEntry, decision: dict[str, Any]) -> str:
        """Write a decision as text of a bounded size: large facts and long lists lie beside it."""
        text = to_json(decision)
        if len(text) > LONGEST_DECISION:
            light = await self._journal.lightened(decision, f"event.{entry.key}", f"decision {entry.seq}")
            text = to_json(light)
        return text.decode()

    async def _react(self, entry: EventEntry) -> None:
        """Make the runs of a decision that are still missing."""
        requests: list[dict[str, Any]] = await self._journal.restore((entry.decision or {}).get("requests", []))
        wanted = [planned for planned in entry.runs if planned.id in entry.missing]
        for start in range(0, len(wanted), MOST_AT_ONCE):
            await asyncio.gather(
                *(self._make(entry, planned, requests) for planned in wanted[start : start + MOST_AT_ONCE])
            )

    async def _make(self, entry: EventEntry, planned: PlannedRunRecord, requests: list[dict[str, Any]]) -> None:
        described = RequestRecord.model_validate(requests[planned.request])
        task = self._tasks().get(described.task)
        cause = Cause(kind="event", id=entry.event.id, source=entry.event.source)
        by = ", ".join(described.rules)[:1000]
        try:
            latest = task.start_within if task else None
            request = described.to_request()
            approve = needs_approval(request, self._tasks())
        except LabwrightError as error:  # a decision of an older version may hold what is refused now
            latest, request, approve = None, Request(described.task, key=described.key), False
            planned = planned.model_copy(update={"error": planned.error or ErrorRecord.of(error)})
        record = requested(
            request,
            target=planned.target,
            cause=cause,
            by=by,
            start_within=latest,
            approve=approve,
            error=planned.error,
        )
        try:
            await self._journal.create(f"run.{planned.id}", record, content=record.content)
        except ConflictError as error:
            log.error("a run exists with other content", run=planned.id, because=error.message)  # noqa: TRY400 - said, not traced
