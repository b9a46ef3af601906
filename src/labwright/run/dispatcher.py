"""The dispatcher: a thin loop around the pure policy, and the only one that hands runs out.

It appends what it hands out to the fenced log before anybody may start it, so a dispatcher that has lost the lead does
no harm: its next append is refused, and what it decided after that does not exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, cast

from labwright.access.claims import Claim, claim_on
from labwright.core.clock import Clock
from labwright.core.errors import LabwrightError, UnreachableError
from labwright.core.logs import get_logger
from labwright.core.model import ErrorRecord, Run, RunState
from labwright.journal.fold import is_open_attempt
from labwright.journal.journal import Journal, MovedError
from labwright.journal.records import AttemptLost, Finished, HandedOut, HandOut, Led, Record
from labwright.journal.state import Changes, Present, RunEntry, is_handed_out
from labwright.plan.dispatch import Candidate, Chosen, Dispatch
from labwright.plan.tasks import TaskDescription
from labwright.run.kin import Kin
from labwright.run.liveness import Liveness
from labwright.run.settings import PoolTable, Settings
from labwright.run.work import Assignment, hand_over
from labwright.run.writer import RunWriter

SUBJECT = "dispatch.0"
MOST_LOST = 3
MOST_SLOTS = 1_000_000
SUSPECTS = "lock:~suspects"
"""Runs with one chance left go one at a time, so that none is lost for the fault of another; no lock has this name."""
BATCH = 500
HAND_OVER_AGAIN_S = 5.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerHere:
    """A worker that is here: how many runs it takes at once, and from which pools."""

    slots: int
    pools: frozenset[str]
    revision: str = ""


def worker_of(body: Mapping[str, Any]) -> WorkerHere | None:
    """Read what a worker announces of itself; None where it is nonsense."""
    slots, pools, revision = body.get("slots"), body.get("pools"), body.get("revision", "")
    if not isinstance(slots, int) or not 0 < slots <= MOST_SLOTS or not isinstance(pools, list):
        return None
    names = frozenset(name for name in cast("list[object]", pools) if isinstance(name, str))
    return WorkerHere(slots=slots, pools=names, revision=str(revision))


class Dispatcher:
    """Hands out runs while it leads; `note` keeps it up to date at all times."""

    def __init__(
        self,
        journal: Journal,
        present: Present,
        settings: Settings,
        tasks: Callable[[], Mapping[str, TaskDescription]],
        clock: Clock,
    ) -> None:
        self.workers: dict[str, WorkerHere] = {}
        self._journal = journal
        self._present = present
        self._settings = settings
        self._tasks = tasks
        self._clock = clock
        self._dispatch = Dispatch()
        self._in_flight: dict[str, str] = {}
        self._ends: dict[str, Record] = {}
        self._busy: set[str] = set()
        self._kin = Kin(journal, present)
        self._handing: set[str] = set()
        self._log_seq = 0
        self._claims: tuple[Claim, ...] = ()
        self._labels: Mapping[str, Mapping[str, str]] = {}
        self._held_by: dict[str, str] = {}
        """The claim for whose end a run waits that is to be handed out."""
        self._wake = asyncio.Event()
        self._came = asyncio.Condition()
        self._leads = asyncio.Event()
        self._jobs: set[asyncio.Task[None]] = set()
        self.liveness = Liveness(journal.connection, self._worker_gone, settings.leases.seconds)

    @property
    def leading(self) -> bool:
        """Tell whether it hands out runs now."""
        return self._leads.is_set()

    # --- what it is told ---------------------------------------------------------------------------------------------

    def note(self, changes: Changes) -> None:
        """Take up what a batch of records has changed."""
        for entry in changes.runs.values():
            self._note_run(entry)
            self._note_kin(entry)
        if changes.pools or changes.runs or changes.hand_outs:
            self._wake.set()

    def _note_kin(self, entry: RunEntry) -> None:
        """Look at those whom a run's change concerns beside itself."""
        if entry.run.state.is_final and (waiting := self._kin.note_end(entry)) is not None:
            self._note_run(waiting)
        for left in self._kin.to_abort(entry):
            self._start(self._abort_child(left))

    async def _abort_child(self, entry: RunEntry) -> None:
        """Pass an abort on; only the leader does."""
        await self._leads.wait()
        await self._kin.abort(entry)

    def note_log(self, seq: int) -> None:
        """Remember the newest sequence of the log of hand-outs."""
        self._log_seq = max(self._log_seq, seq)

    def note_all(self) -> None:
        """Look at every open run again, as at the start or after a reload of the site, and forget the others."""
        for run_id in self._in_flight.keys() - self._present.runs.keys():
            self._forget(run_id)
        for entry in list(self._present.runs.values()):
            self._kin.begin(entry.run)
            self._note_run(entry)
            self._note_kin(entry)
        self._wake.set()

    def note_claims(self, claims: tuple[Claim, ...], labels: Mapping[str, Mapping[str, str]]) -> None:
        """Take up which claims are in force; `labels` are those of the targets, by name."""
        for claim in self._claims:
            self._dispatch.release(_claimed(claim))
        for claim in claims:
            self._dispatch.hold(_claimed(claim), (_claimed(claim),))
        self._claims, self._labels = claims, labels
        for entry in list(self._present.runs.values()):
            claim = self._claim_on(entry.run)
            if self._held_by.get(entry.run.id) != (claim.entry.id if claim is not None else None):
                self._note_run(entry)
        self._wake.set()

    def _claim_on(self, run: Run) -> Claim | None:
        """Find the claim of somebody else that a run waits for."""
        if run.target is None or not self._claims:
            return None
        claim = claim_on(self._claims, run.target, self._labels.get(run.target, {}), time.monotonic())
        return claim if claim is not None and claim.entry.by != run.by else None

    def worker_here(self, name: str, worker: WorkerHere) -> None:
        """Take up that a worker is here, and what it takes."""
        if self.liveness.is_ended(name):
            return
        is_new = name not in self.workers
        self.workers[name] = worker
        self.liveness.heard(name)
        self._wake.set()
        if is_new:
            self._start(self._announce())

    def worker_silent(self, name: str, *, has_left: bool = False) -> None:
        """Take up that a worker's presence has run out, or that it has said farewell."""
        if self.workers.pop(name, None) is not None and not has_left:
            self.liveness.silent(name)

    def clock_was_set(self) -> None:
        """Look again at what is due, and give nobody up by silence for a lease."""
        self.liveness.suspend(self._settings.leases.seconds)
        self._wake.set()

    async def wait_for_workers(self, count: int) -> None:
        """Wait until that many workers are here and this dispatcher leads."""
        async with self._came:
            await self._came.wait_for(lambda: self.leading and len(self.workers) >= count)

    async def _announce(self) -> None:
        async with self._came:
            self._came.notify_all()

    # --- leading -----------------------------------------------------------------------------------------------------

    async def lead(self, name: str, folded: Callable[[int], Coroutine[Any, Any, object]]) -> None:
        """Take the lead by a record of the log, read the log through it, and hand out until that is refused.

        `folded(seq)` is awaited until the present is folded up to a sequence.
        """
        seq = await self._take_lead(name)
        await folded(seq)
        self._handing.clear()
        self._leads.set()
        await self._announce()
        log.info("leading", leader=name)
        self.note_all()
        again = asyncio.create_task(self._hand_over_again())
        try:
            while self.leading:
                await self._wait()
                await self._round(name)
        finally:
            self._leads.clear()
            again.cancel()

    async def close(self) -> None:
        """End what is under way."""
        self.liveness.close()
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    async def _take_lead(self, name: str) -> int:
        while True:
            try:
                seq = await self._journal.append(SUBJECT, Led(leader=name), after=self._log_seq)
            except MovedError as error:
                self.note_log(error.entries[-1].seq)
            else:
                self.note_log(seq)
                return seq

    async def _wait(self) -> None:
        moment = self._dispatch.next_moment()
        delay = None if moment is None else max(0.0, moment - self._now())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wake.wait()
        self._wake.clear()

    async def _round(self, name: str) -> None:
        chosen = self._dispatch.choose(self._now(), self._places(), self._free_slots())
        for candidate in chosen.expired:
            self._ends[candidate.run] = _expired(candidate)
        for run_id in [run_id for run_id in self._ends if run_id not in self._busy]:
            self._start(self._end(run_id, self._ends.pop(run_id)))
        if chosen.start:
            await self._hand_out(name, chosen)

    async def _hand_out(self, name: str, chosen: Chosen) -> None:
        items = [item for candidate in chosen.start if (item := self._item(candidate)) is not None]
        if not items:
            return
        self._handing.update(item.run for item in items)
        try:
            seq = await self._journal.append(SUBJECT, HandedOut(leader=name, items=tuple(items)), after=self._log_seq)
        except MovedError as error:
            log.warning("lost the lead", because="another dispatcher has written to the log")
            self.note_log(error.entries[-1].seq)
            self._leads.clear()
            self._handing.clear()
            self.note_all()
            return
        self.note_log(seq)
        for item in items:
            self._present.hand_outs[item.run] = (seq, item)
            self._handing.discard(item.run)
            entry = self._present.runs.get(item.run)
            if entry is None:
                self._forget(item.run)
            else:
                self._note_run(entry)
                self._start(self._hand_over(entry, seq, item))

    def _item(self, candidate: Candidate) -> HandOut | None:
        entry = self._present.runs.get(candidate.run)
        if entry is None:
            self._dispatch.release(candidate.run)
            return None
        run = entry.run
        attempt = run.attempt if run.state is RunState.WAITING else run.attempt + 1
        self._in_flight[run.id] = candidate.pool
        locks = tuple(name for name in candidate.resources if name.startswith("lock:"))
        return HandOut(run=run.id, attempt=attempt, target=run.target, locks=locks, pool=candidate.pool)

    async def _hand_over(self, entry: RunEntry, token: int, item: HandOut) -> None:
        assignment = Assignment(run_id=item.run, token=token, attempt=item.attempt, seq=entry.seq, run=entry.run)
        with contextlib.suppress(UnreachableError, TimeoutError):  # it is handed over again
            await hand_over(self._journal, item.pool, assignment)

    async def _hand_over_again(self) -> None:
        """Hand over again what nobody has started: at once after a take-over, then now and then."""
        while True:
            self.hand_over_all()
            await asyncio.sleep(HAND_OVER_AGAIN_S)

    def hand_over_all(self) -> None:
        """Hand over again everything that was handed out and not started, as after a restart of the server."""
        if not self.leading:
            return
        for run_id, (token, item) in list(self._present.hand_outs.items()):
            entry = self._present.runs.get(run_id)
            if entry is not None and token > entry.run.token:
                self._start(self._hand_over(entry, token, item))

    # --- runs --------------------------------------------------------------------------------------------------------

    def _note_run(self, entry: RunEntry) -> None:
        run = entry.run
        if run.state.is_final:
            self._handing.discard(run.id)
            self._forget(run.id)
            return
        if run.id in self._handing:
            return
        token, item = self._present.hand_outs.get(run.id, (0, None))
        if item is not None and is_handed_out(run, token):
            self._note_attempt(run, item)
        else:
            self._note_candidate(run)
        end = self._end_of(run)
        if end is not None:
            self._dispatch.withdraw(run.id)
            self._ends[run.id] = end

    def _forget(self, run_id: str) -> None:
        self._dispatch.withdraw(run_id)
        self._dispatch.release(run_id)
        self._in_flight.pop(run_id, None)
        self._ends.pop(run_id, None)
        self._held_by.pop(run_id, None)
        self._kin.forget(run_id)

    def _note_attempt(self, run: Run, item: HandOut) -> None:
        self._dispatch.withdraw(run.id)
        self._held_by.pop(run.id, None)
        self._dispatch.hold(run.id, _resources(item.target, item.locks))
        self._in_flight[run.id] = item.pool
        if run.worker is not None and run.state is RunState.RUNNING:
            self._look_after(run)

    def _look_after(self, run: Run) -> None:
        worker = run.worker or ""
        if self.liveness.is_ended(worker):
            self._start(self._close_attempt(run.id, run.token, "its worker has ended"))
        else:
            self.liveness.watch(worker)
            if worker not in self.workers:
                self.liveness.silent(worker)

    def _note_candidate(self, run: Run) -> None:
        self._in_flight.pop(run.id, None)
        task = self._tasks().get(run.task)
        locks = tuple(f"lock:{name}" for name in task.locks) if task else ()
        resources = _resources(run.target, locks)
        if run.lost_in_step >= MOST_LOST - 1:
            resources += (SUSPECTS,)
        self._held_by.pop(run.id, None)
        if (claim := self._claim_on(run)) is not None:
            resources += (_claimed(claim),)
            self._held_by[run.id] = claim.entry.id
        if run.state is RunState.WAITING and not run.awaits_approval:
            self._dispatch.hold(run.id, resources)
        else:
            self._dispatch.release(run.id)
        due = run.next_attempt_at if run.state in {RunState.WAITING, RunState.RETRYING} else run.not_before
        if run.state is RunState.WAITING and self._kin.has_news(run):
            due = None
        self._dispatch.offer(
            Candidate(
                run=run.id,
                pool=task.pool if task else "default",
                resources=resources,
                priority=run.priority,
                requested_at=run.requested_at.timestamp(),
                due_at=due.timestamp() if due else 0.0,
                latest_at=run.not_after.timestamp() if run.not_after and run.attempt == 0 else None,
                is_held=run.awaits_approval,
            )
        )

    def _end_of(self, run: Run) -> Record | None:
        """Tell how a run that nobody executes has to end, if it has to."""
        if run.state.is_final or run.state is RunState.RUNNING:
            return None
        if run.aborting is not None:
            error = LabwrightError("the run was aborted", because=run.aborting)
            return Finished(state="aborted", error=ErrorRecord.of(error, kind="aborted"))
        if run.refused is not None:
            return Finished(state="failed", error=run.refused)
        if run.lost_in_step >= MOST_LOST:
            return Finished(state="failed", error=_lost(run))
        if run.task not in self._tasks():
            return Finished(state="failed", error=_unknown(run, self._tasks()))
        return None

    async def _end(self, run_id: str, record: Record) -> None:
        entry = self._present.runs.get(run_id)
        if entry is None:
            return
        self._busy.add(run_id)
        try:
            writer = RunWriter(self._journal, entry.run, entry.seq)
            await writer.append(record, while_=_may_end)
        finally:
            self._busy.discard(run_id)

    # --- workers -----------------------------------------------------------------------------------------------------

    def _worker_gone(self, name: str, reason: str) -> None:
        self.workers.pop(name, None)
        self._wake.set()
        for entry in list(self._present.runs.values()):
            if entry.run.worker == name and entry.run.state is RunState.RUNNING:
                self._start(self._close_attempt(entry.run.id, entry.run.token, f"worker {name}: {reason}"))

    async def _close_attempt(self, run_id: str, token: int, reason: str) -> None:
        """Close an attempt whose worker is gone; only the leader does."""
        await self._leads.wait()
        entry = self._present.runs.get(run_id)
        if entry is None or not is_open_attempt(entry.run, token):
            return
        writer = RunWriter(self._journal, entry.run, entry.seq)
        await writer.append(AttemptLost(token=token, reason=reason), while_=lambda run: is_open_attempt(run, token))

    # --- sums --------------------------------------------------------------------------------------------------------

    def _places(self) -> dict[str, int]:
        used = Counter(self._in_flight.values())
        names = {*self._settings.pools, "default", *(task.pool for task in self._tasks().values())}
        return {
            name: min(self._concurrency(name), self._slots_for(name)) - used[name]
            for name in names
            if self._present.pools.get(name, "active") == "active"
        }

    def _slots_for(self, pool: str) -> int:
        """Sum up the slots of the workers that take from a pool, and one for each that may already be on its way."""
        slots = [worker.slots for worker in self.workers.values() if pool in worker.pools]
        return sum(slots) + len(slots)

    def _concurrency(self, pool: str) -> int:
        return self._settings.pools.get(pool, PoolTable()).concurrency

    def _free_slots(self) -> int:
        if not self.workers:
            return 0
        slots = sum(worker.slots for worker in self.workers.values())
        return min(BATCH, slots + len(self.workers) - len(self._in_flight))

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _start(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            log.error("a dispatcher's job failed", exc_info=error)

    def explain(self, run: Run) -> str:
        """Say in one line what a run waits for that nobody executes."""
        if run.state.is_final or run.state is RunState.RUNNING:
            return ""
        task = self._tasks().get(run.task)
        pool = task.pool if task else "default"
        if held_back := self._pool_said(pool) or self._claim_said(run):
            return held_back
        locks = tuple(f"lock:{name}" for name in task.locks) if task else ()
        for resource in _resources(run.target, locks):
            holder = self._dispatch.holder(resource)
            if holder is not None and holder != run.id:
                kind, _, name = resource.partition(":")
                return f"the {kind} {name}, which {holder} holds"
        moment = run.next_attempt_at or run.not_before
        if moment is not None and moment.timestamp() > self._now():
            return f"its moment, {moment.isoformat()}"
        if not self.workers:
            return "a worker: none is here"
        return "a free place in its pool, or a free worker"

    def _pool_said(self, pool: str) -> str:
        state = self._present.pools.get(pool, "active")
        return "" if state == "active" else f"its pool {pool} is {state}"

    def _claim_said(self, run: Run) -> str:
        claim = self._claim_on(run)
        if claim is None:
            return ""
        return (
            f"the claim of {claim.entry.by} on {claim.entry.selector}, until {claim.shown(time.monotonic())['until']}"
        )


def _resources(target: str | None, locks: tuple[str, ...]) -> tuple[str, ...]:
    return ((f"target:{target}",) if target is not None else ()) + locks


def _claimed(claim: Claim) -> str:
    """Name what a claim holds, so that runs of others can wait for it."""
    return f"claim:{claim.entry.id}"


def _may_end(run: Run) -> bool:
    return not run.state.is_final and run.state is not RunState.RUNNING


def _expired(candidate: Candidate) -> Record:
    because = "nobody approved it in time" if candidate.is_held else "no worker could start it in time"
    error = LabwrightError("its latest start has passed", because=because, cure="request it again")
    return Finished(state="expired", error=ErrorRecord.of(error, kind="timeout"))


def _lost(run: Run) -> ErrorRecord:
    error = LabwrightError(
        f"{run.lost_in_step} attempts were lost in the same step",
        because=run.note or "their workers died",
        cure="see why the step kills its worker, then retry the run",
    )
    return ErrorRecord.of(error, kind="lost")


def _unknown(run: Run, tasks: Mapping[str, TaskDescription]) -> ErrorRecord:
    error = LabwrightError(
        f"there is no task {run.task!r}",
        because=f"the site has: {', '.join(sorted(tasks)) or 'none'}",
        cure="add the task to the site, reload it, then retry the run",
    )
    return ErrorRecord.of(error, kind="usage")
