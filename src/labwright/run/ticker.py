"""The ticker: turns the due time points of durable schedules into runs, while it leads.

Each schedule has a loop of its own, which sleeps until its next point is due. The runs are requested first, under ids
that are made of the point, and the watermark is written afterwards: who dies in between requests the same runs again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta

from labwright.core.clock import Clock, MovedClock, to_text
from labwright.core.errors import ConflictError, LabwrightError, UnreachableError
from labwright.core.ids import canonical, hashed_id
from labwright.core.logs import get_logger
from labwright.core.model import Cause, ErrorRecord, Run, RunState
from labwright.core.request import Request
from labwright.journal.journal import Journal, MovedError
from labwright.journal.records import Aborting, SchedulePaused, ScheduleTicked
from labwright.journal.schedule_fold import ScheduleEntry, schedule_subject
from labwright.journal.state import Changes
from labwright.plan.durable import (
    DuePoint,
    PointOutcome,
    ScheduleDefinition,
    ScheduleSnapshot,
    ScheduleState,
)
from labwright.plan.fan_out import FanOut
from labwright.plan.policies import OnError, Pause
from labwright.plan.tasks import TaskDescription
from labwright.plan.ticking import Surroundings, Tick, tick
from labwright.run.fleets import run_request
from labwright.run.folding import Folding
from labwright.run.requesting import requested
from labwright.run.signals import ABORTING
from labwright.run.site_description import ScheduleDescription
from labwright.run.site_schedules import write_site_schedules
from labwright.run.writer import RunWriter

KIND = "schedule"
MOST_AT_ONCE = 64
AGAIN_S = 1.0
"""After how long something that broke, or could not be known, is tried again."""

VIEW_PATIENCE_S = 30.0

log = get_logger(__name__)

Prepare = Callable[[str, Mapping[str, object]], Awaitable[Mapping[str, object]]]
Choose = Callable[[str], Awaitable[Sequence[str]]]


class Ticker:
    """Makes the points of all durable schedules, for as long as `lead` runs; `note` keeps it up to date.

    `choose` names the targets of a selector, `prepare` checks a task's parameters and fills in its defaults, `of_site`
    gives the schedules that stand in the site's package.
    """

    def __init__(
        self,
        journal: Journal,
        folding: Folding,
        tasks: Callable[[], Mapping[str, TaskDescription]],
        *,
        choose: Choose,
        prepare: Prepare,
        clock: Clock,
        of_site: Callable[[], Sequence[ScheduleDescription]] = tuple,
    ) -> None:
        self._journal = journal
        self._folding = folding
        self._tasks = tasks
        self._choose = choose
        self._prepare = prepare
        self._clock = clock
        self._of_site = of_site
        self._open: dict[str, set[str]] = {}
        self._loops: dict[str, _Loop] = {}
        self._group: asyncio.TaskGroup | None = None
        self._up_since = clock.now()
        self._site_changed = asyncio.Event()

    async def lead(self) -> None:
        """Make what is due now, and then what becomes due, for ever."""
        self._up_since = self._clock.now()
        self._open.clear()
        self._loops.clear()
        for entry in self._folding.present.runs.values():
            self._note_run(entry.run)
        try:
            async with asyncio.TaskGroup() as self._group:
                for name in list(self._folding.present.schedules):
                    self._begin(name)
                await self._keep_site()
        finally:
            self._group = None
            self._loops.clear()

    async def _keep_site(self) -> None:
        """Write down which schedules the site has now, and again whenever it has been loaded anew."""
        while True:
            self._site_changed.clear()
            try:
                await write_site_schedules(self._journal, self._folding, self._of_site())
            except MovedError as error:
                await self._folding.folded(error.entries[-1].seq)
                continue
            except LabwrightError as error:
                log.warning("the site's schedules cannot be written now", because=str(error))
                await asyncio.sleep(AGAIN_S)
                continue
            await self._site_changed.wait()

    def note(self, changes: Changes) -> None:
        """Look again at the schedules that have changed, and at those of which a run has begun or ended."""
        if self._group is None:
            return
        for entry in changes.runs.values():
            if self._note_run(entry.run):
                self._wake(entry.run.cause.id)
        for name in changes.schedules:
            self._begin(name)
            self._wake(name)

    def clock_was_set(self) -> None:
        """Take what the wall clock has passed over for missed, and look again at what is due."""
        self._up_since = self._clock.now()
        self.look_again()

    def look_again(self) -> None:
        """Look again at all schedules, as when the site has changed."""
        self._site_changed.set()
        for loop in self._loops.values():
            loop.is_site_new = True
            loop.changed.set()

    def _note_run(self, run: Run) -> bool:
        """Keep up to date which runs are open; tells whether one has newly begun or ended."""
        if run.cause.kind != KIND:
            return False
        mine = self._open.setdefault(run.cause.id, set())
        was_open = run.id in mine
        (mine.discard if run.state.is_final else mine.add)(run.id)
        if run.state is RunState.FAILED and was_open:
            loop = self._loops.get(run.cause.id)
            if loop is not None:
                loop.failed = run.id
        return was_open == run.state.is_final

    def _begin(self, name: str) -> None:
        entry = self._folding.present.schedules[name]
        is_over = entry.schedule.state is ScheduleState.REMOVED and not self._open.get(name)
        if self._group is not None and name not in self._loops and not is_over:
            self._loops[name] = _Loop(self._clock)
            self._group.create_task(self._keep(name, self._loops[name]))

    def _wake(self, name: str) -> None:
        if (loop := self._loops.get(name)) is not None:
            loop.changed.set()

    async def _keep(self, name: str, loop: _Loop) -> None:
        """Do what one schedule wants, until it is removed."""
        try:
            while True:
                loop.changed.clear()
                entry = self._folding.present.schedules[name]
                wakes_at = await self._looked(entry, loop)
                if entry.schedule.state is ScheduleState.REMOVED and wakes_at is None:
                    return
                await loop.sleep(wakes_at)
        finally:
            self._loops.pop(name, None)

    async def _looked(self, entry: ScheduleEntry, loop: _Loop) -> datetime | None:
        """Do what is to be done now; gives when to look again, None where only a change matters."""
        try:
            return await self._look(entry, loop)
        except MovedError as error:
            await self._folding.folded(error.entries[-1].seq)
        except LabwrightError as error:
            log.warning("a schedule cannot go on now", schedule=entry.schedule.name, because=str(error))
            return self._clock.now() + timedelta(seconds=AGAIN_S)
        except Exception:  # a border: whatever breaks one schedule must not end the others
            log.exception("a schedule broke", schedule=entry.schedule.name)
            return self._clock.now() + timedelta(seconds=AGAIN_S)
        return self._clock.now()

    async def _look(self, entry: ScheduleEntry, loop: _Loop) -> datetime | None:
        schedule = entry.schedule
        await self._withdraw(schedule, loop)
        failed, loop.failed = loop.failed, ""
        if failed and schedule.definition.on_error is OnError.STOP and schedule.is_active:
            record = SchedulePaused(reason=f"{failed} failed")
            seq = await self._journal.append(schedule_subject(schedule.name), record, after=entry.seq)
            await self._folding.folded(seq)
            return self._clock.now()
        if loop.begun is None:
            loop.begun = await self._begun(schedule)
        cutoff = await self._cut_off(schedule)
        now, is_busy = self._clock.now(), bool(self._open.get(schedule.name))
        due = tick(
            schedule, Surroundings(now=now, up_since=self._up_since, is_busy=is_busy, begun=frozenset(loop.begun))
        )
        if not due.settles(schedule):
            return min(filter(None, (due.wakes_at, cutoff)), default=None)
        loop.begun |= {point.planned_at for point in due.make}
        await self._do(entry, due)
        loop.begun.difference_update(point.planned_at for point in due.make)
        return self._clock.now()

    async def _do(self, entry: ScheduleEntry, due: Tick) -> None:
        for run in self._runs_of(entry.schedule.name) if due.replaces else ():
            await self._abort(run.id, "a later point of its schedule takes its place")
        seqs = [entry.seq]
        for point in list(due.make):
            made = await self._make(entry.schedule, point)
            seqs += made
            if not made:
                due.missed.append(point.missed(PointOutcome.FAILED, _nobody(entry.schedule.definition)))
        record = ScheduleTicked(
            generation=entry.schedule.generation,
            watermark=due.watermark,
            missed=tuple(due.missed),
            waiting=tuple(due.waiting),
            skips=due.skips,
            fired=tuple(point.fired for point in due.make if point.fired),
        )
        seqs.append(await self._journal.append(schedule_subject(entry.schedule.name), record, after=entry.seq))
        await self._folding.folded(max(seqs))

    async def _make(self, schedule: ScheduleSnapshot, point: DuePoint) -> list[int]:
        """Request the runs of a point, one on each target that is chosen; gives their places in the journal."""
        definition = schedule.definition
        targets: Sequence[str | None] = [None]
        if definition.on is not None and definition.fleet is None:
            targets = await self._choose(definition.on)
        params, problem = await self._prepared(definition)
        places = asyncio.Semaphore(MOST_AT_ONCE)

        async def make(target: str | None) -> int:
            async with places:
                return await self._request(schedule, point, target, params, problem)

        return await asyncio.gather(*(make(target) for target in targets))

    async def _begun(self, schedule: ScheduleSnapshot) -> set[datetime]:
        """Find the points that whoever led before has requested, and has not settled."""
        view, begun, cursor = self._folding.view, set[datetime](), None
        await view.wait_for(self._folding.present.seq, VIEW_PATIENCE_S)
        while True:
            runs, cursor = view.runs({"cause": schedule.name}, limit=500, cursor=cursor)
            points = {run.cause.point for run in runs if run.cause.kind == KIND and run.cause.point is not None}
            new = {point for point in points if point > schedule.counted_to} - begun
            begun |= new
            if not new or cursor is None:
                return begun

    async def _prepared(self, definition: ScheduleDefinition) -> tuple[Mapping[str, object], ErrorRecord | None]:
        """Give all parameters; where the site does not have the task any more, or other parameters, the run says so."""
        try:
            return await self._prepare(definition.task, definition.params), None
        except UnreachableError:
            raise
        except LabwrightError as error:
            return definition.params, ErrorRecord.of(error)

    async def _request(
        self,
        schedule: ScheduleSnapshot,
        point: DuePoint,
        target: str | None,
        params: Mapping[str, object],
        problem: ErrorRecord | None,
    ) -> int:
        request = request_of(schedule, point, target, params)
        task = self._tasks().get(request.task)
        cause = Cause(kind=KIND, id=schedule.name, point=point.planned_at)
        record = requested(
            request,
            target=target,
            cause=cause,
            by=schedule.by or schedule.origin,
            start_within=task.start_within if task else None,
            error=problem,
        ).model_copy(update={"role": schedule.role})
        run_id = run_id_of(schedule, point, target)
        try:
            seq, _ = await self._journal.create(f"run.{run_id}", record, content=record.content)
        except ConflictError:  # the defaults of the task have changed since it was made the first time
            seq = 0
        return seq

    # --- runs that are open ------------------------------------------------------------------------------------------

    async def _withdraw(self, schedule: ScheduleSnapshot, loop: _Loop) -> None:
        """Abort what has been requested and has not begun, where the schedule does not want it any more."""
        pending = [run for run in self._runs_of(schedule.name) if run.state is RunState.PENDING and run.attempt == 0]
        reasons = {run.id: _unwanted(schedule, run) for run in pending}
        wanted = [run for run in pending if run.target is not None and not reasons[run.id]]
        if loop.is_site_new and wanted and schedule.definition.on is not None:
            chosen = await self._choose(schedule.definition.on)
            reasons |= {run.id: "its selector no longer chooses it" for run in wanted if run.target not in chosen}
        loop.is_site_new = False
        for run_id, reason in reasons.items():
            if reason:
                await self._abort(run_id, f"withdrawn by {schedule.name}: {reason}")

    async def _cut_off(self, schedule: ScheduleSnapshot) -> datetime | None:
        """Abort the runs that should have ended by now; gives when the next one has to."""
        now, coming = self._clock.now(), list[datetime]()
        for run in self._runs_of(schedule.name):
            cutoff = cutoff_of(schedule, run)
            if cutoff is not None and cutoff > now:
                coming.append(cutoff)
            elif cutoff is not None:
                limit = f"{schedule.definition.cutoff_s:g} s after its point"
                await self._abort(run.id, f"cut off by {schedule.name}: it had to end {limit}")
        return min(coming, default=None)

    def _runs_of(self, name: str) -> list[Run]:
        runs = self._folding.present.runs
        return [runs[run_id].run for run_id in self._open.get(name, ()) if run_id in runs]

    async def _abort(self, run_id: str, reason: str) -> None:
        """Have a run end early."""
        known = self._folding.present.runs.get(run_id)
        if known is None:
            return
        writer = RunWriter(self._journal, known.run, known.seq)
        if await writer.append(Aborting(reason=reason), while_=_is_to_be_aborted):
            data = json.dumps({"run": run_id, "reason": reason}).encode()
            await self._journal.connection.publish(ABORTING, data)


class _Loop:
    """What the loop of one schedule waits for. It sleeps by the clock, also by one that a test moves."""

    def __init__(self, clock: Clock) -> None:
        self.changed = asyncio.Event()
        self.failed = ""
        """A run that has failed since the last look."""
        self.is_site_new = True
        self.begun: set[datetime] | None = None
        """The planned moments of points that have been requested and are not settled; None before that is known."""
        self._clock = clock
        self._until: datetime | None = None

    async def sleep(self, until: datetime | None) -> None:
        """Sleep until a moment, or until something has changed."""
        if isinstance(self._clock, MovedClock):
            await self._sleep_by_hand(self._clock, until)
            return
        wait_s = None if until is None else (until - self._clock.now()).total_seconds()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if wait_s is None else max(0.0, wait_s)):
                await self.changed.wait()

    async def _sleep_by_hand(self, clock: MovedClock, until: datetime | None) -> None:
        self._until = until
        if until is not None and until <= clock.now():
            return
        clock.attach(self)
        try:
            await self.changed.wait()
        finally:
            clock.detach(self)

    def wakes_in(self) -> float | None:
        """Tell a clock that is moved by hand when to stop."""
        if self._until is None or self.changed.is_set():
            return None
        return max(0.0, (self._until - self._clock.now()).total_seconds())

    def wake(self) -> None:
        """Look again."""
        self.changed.set()


def request_of(
    schedule: ScheduleSnapshot, point: DuePoint, target: str | None, params: Mapping[str, object]
) -> Request:
    """Give the request for a point's run on a target, or for the run that makes those on a fleet."""
    definition = schedule.definition
    earliest = point.due_at + timedelta(seconds=spread_s(schedule, target)) if definition.spread_s else None
    latest = None
    if definition.window_s is not None:
        latest = (earliest or point.due_at) + timedelta(seconds=definition.window_s)
    request = Request(
        definition.task,
        on=definition.on if definition.fleet is not None else target,
        params=params,
        priority=definition.priority,
        not_before=earliest,
        not_after=latest,
    )
    return request if definition.fleet is None else run_request(request, FanOut.given(**definition.fleet))


def spread_s(schedule: ScheduleSnapshot, target: str | None) -> float:
    """Give how many seconds after its point a target has its turn: always the same, and another in each schedule."""
    digest = hashlib.sha256(canonical([schedule.name, target]).encode()).digest()
    return schedule.definition.spread_s * (int.from_bytes(digest[:6]) / 2**48)


def cutoff_of(schedule: ScheduleSnapshot, run: Run) -> datetime | None:
    """Give the moment at which a run must have ended; a pause that moves the points moves it too."""
    definition = schedule.definition
    if definition.cutoff_s is None or run.cause.point is None:
        return None
    moves = definition.pause is Pause.SHIFT and not definition.when.has_instants
    return run.cause.point + timedelta(seconds=definition.cutoff_s + (schedule.moved_s if moves else 0.0))


def run_id_of(schedule: ScheduleSnapshot, point: DuePoint, target: str | None) -> str:
    """Make the id of a point's run on a target: always the same, so that no point is ever made twice."""
    moment = point.fired or to_text(point.planned_at)
    return hashed_id("run", KIND, schedule.name, schedule.generation, moment, target)


def _unwanted(schedule: ScheduleSnapshot, run: Run) -> str:
    """Tell why a run that has not begun is not wanted any more; empty while it is."""
    if schedule.state is ScheduleState.REMOVED:
        return "it has been removed"
    point = run.cause.point
    if schedule.paused_at is not None and point is not None and point <= schedule.paused_at:
        return "it is paused"
    return "it has been changed" if point is not None and point < schedule.defined_at else ""


def _is_to_be_aborted(run: Run) -> bool:
    return not run.state.is_final and run.aborting is None


def _nobody(definition: ScheduleDefinition) -> str:
    return f"nobody is chosen by {definition.on}"
