"""The worker: takes assignments, executes their runs in this process, and writes each finished step down.

It starts a run only by appending `started` under its hand-out; if others have written first it learns what, and leaves
the run alone unless it is still its own. When a step cannot be stopped the process ends hard: that is the only way to
be sure that nothing goes on acting.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from nats.aio.msg import Msg

from labwright.agents.fleet_handle import BlockingFleetHandle, FleetHandle
from labwright.agents.following import presence_of
from labwright.agents.members import members
from labwright.core.clock import Clock, SystemClock
from labwright.core.errors import ConflictError, LabwrightError, TerminalError, TransientError, UnreachableError
from labwright.core.logs import get_logger
from labwright.core.model import Cause, ErrorRecord, Event, Run, RunState, Step, Target
from labwright.core.request import Request
from labwright.core.selectors import select
from labwright.journal.connection import Channel, Connection
from labwright.journal.fold import fold, is_open_attempt
from labwright.journal.journal import Journal
from labwright.journal.logs import Logs
from labwright.journal.records import (
    AttemptLost,
    Finished,
    Received,
    Record,
    Retrying,
    Started,
    StepEnded,
    StepStarted,
    Stuck,
)
from labwright.run import ends
from labwright.run.children import ChildrenOf
from labwright.run.effects import child_id
from labwright.run.execution import Execution
from labwright.run.fleets import RUN, RunFleets, step_fleet
from labwright.run.recording import record_of
from labwright.run.requesting import event_subject, needs_approval, requested
from labwright.run.services import Caller, Services
from labwright.run.signals import ABORTING
from labwright.run.site import Site
from labwright.run.work import ACK, STREAM, Assignment, consumer_name, ensure_work
from labwright.run.writer import RunWriter

PULL_S = 5.0
GRACE_S = 2.0
LEAVE_S = 3.0
NEVER = b"+TERM"
LATER = b'-NAK {"delay": 1000000000}'
"""Hand this over again in a second, to a worker that has the task."""

if TYPE_CHECKING:
    from labwright.run.agents import StepAgent

log = get_logger(__name__)


class ClosedError(LabwrightError):
    """The attempt is not ours any more: it was given up, and its run goes on elsewhere or has ended."""

    kind = "closed"


class Worker:
    """Executes runs of some pools, up to `slots` of each at once; the dispatcher keeps the sum within the announced."""

    def __init__(self, connection: Connection, site: Site, name: str, *, pools: Sequence[str], slots: int) -> None:
        self.name = name
        self.slots = slots
        self.running: dict[str, Attempt] = {}
        self.journal = Journal(connection)
        self.site = site
        self.clock: Clock = SystemClock()
        self.logs = Logs(connection)
        self._connection = connection
        self._pools = tuple(pools)
        self._free = dict.fromkeys(pools, slots)
        self._takers: list[asyncio.Task[None]] = []
        self._freed = asyncio.Condition()
        self._attempts: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Take assignments until cancelled."""
        await self._connection.listen(ABORTING, self._hear_abort)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.logs.run())
                self._takers = [group.create_task(self._take(pool)) for pool in self._pools]
        finally:
            await self._leave()

    async def drain(self) -> None:
        """Take nothing more, and wait until what runs here has ended."""
        for taker in self._takers:
            taker.cancel()  # what is on its way here is handed to others when nobody has acknowledged it
        while self._attempts:
            await asyncio.wait(self._attempts)

    async def _leave(self) -> None:
        """Give back what runs here; what does not stop in time is lost with this process."""
        attempts = list(self._attempts)
        for attempt in attempts:
            attempt.cancel()
        if attempts:
            await asyncio.wait(attempts, timeout=LEAVE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self.logs.flush()

    async def _take(self, pool: str) -> None:
        """Pull assignments of one pool, never more than there are free slots."""
        while True:
            try:
                await ensure_work(self.journal, (pool,))
                async with self._connection.delivery() as channel:
                    while True:
                        await self._pull(pool, channel)
            except (UnreachableError, TimeoutError, LabwrightError) as error:
                log.debug("taking work again", because=str(error))
                await self._connection.wait_connected()
                await asyncio.sleep(0.05)

    async def _pull(self, pool: str, channel: Channel) -> None:
        async with self._freed:
            await self._freed.wait_for(lambda: self._free[pool] > 0)
        wanted, self._free[pool] = self._free[pool], 0
        try:
            ask = json.dumps({"batch": wanted, "expires": int(PULL_S * 1e9)}).encode()
            await self._connection.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{consumer_name(pool)}", ask, reply=channel.reply
            )
            while wanted:
                message = await channel.next(PULL_S + GRACE_S)
                if status := (message.headers or {}).get("Status"):
                    _check_status(status, message)
                    break
                wanted -= 1
                task = asyncio.create_task(self._serve(pool, message))
                self._attempts.add(task)
                task.add_done_callback(self._attempts.discard)
        finally:
            self._free[pool] += wanted

    async def _serve(self, pool: str, message: Msg) -> None:
        """Do one assignment; whatever comes of it, its slot is free again."""
        try:
            await self._attempt(message)
        finally:
            async with self._freed:
                self._free[pool] += 1
                self._freed.notify_all()

    async def _attempt(self, message: Msg) -> None:
        try:
            assignment = Assignment.decode(message.data)
        except (ValueError, TypeError, RecursionError) as error:
            log.warning("an assignment cannot be read", because=str(error)[:200])
            await self._connection.publish(message.reply, NEVER)
            return
        known = self.running.get(assignment.run_id)
        if known is not None and known.token == assignment.token:
            return  # the same once more, because its acknowledgement is still on its way
        attempt = Attempt(self, assignment)
        self.running[assignment.run_id] = attempt
        try:
            if not await attempt.is_possible():
                await self._connection.publish(message.reply, LATER)
                return
            started = await attempt.start()
            with contextlib.suppress(UnreachableError):
                await self._connection.publish(message.reply, ACK)
            if started:
                await attempt.execute()
        except asyncio.CancelledError:
            await attempt.give_back()
            raise
        except ClosedError as error:
            log.warning("an attempt was closed", run=assignment.run_id, because=error.because)
        except Exception as error:  # a border: whatever breaks here must not leave the run open for ever
            log.exception("an attempt broke", run=assignment.run_id)
            await attempt.broke(error)
        finally:
            if self.running.get(assignment.run_id) is attempt:
                del self.running[assignment.run_id]

    async def _hear_abort(self, message: Msg) -> None:
        asked = json.loads(message.data)
        attempt = self.running.get(asked["run"])
        if attempt is not None:
            attempt.abort(asked["reason"])

    def end_hard(self) -> None:
        """End this process and all that it has started, now."""
        log.error("a step cannot be stopped; this worker ends", worker=self.name)
        os.killpg(0, signal.SIGKILL)


class Attempt:
    """One attempt of one run in this worker; it is the recorder of its execution."""

    def __init__(self, worker: Worker, assignment: Assignment) -> None:
        self._worker = worker
        self._assignment = assignment
        self._token = assignment.token
        self._writer: RunWriter | None = None
        self._execution: Execution | None = None
        self._abort_reason: str | None = None

    @property
    def token(self) -> int:
        """The hand-out under which this attempt writes."""
        return self._token

    @property
    def writer(self) -> RunWriter:
        """The run, as far as this attempt knows it."""
        if self._writer is None:
            message = "the attempt has not started"
            raise LabwrightError(message)
        return self._writer

    async def is_possible(self) -> bool:
        """Learn what the run is; tells whether this worker's site has its task, as it may not just after a reload."""
        run, seq = self._assignment.run, self._assignment.seq
        if run is None:
            entries = await self._worker.journal.read_patiently(f"run.{self._assignment.run_id}")
            run = fold((entry.record for entry in entries), self._assignment.run_id)
            seq = entries[-1].seq if entries else 0
        if run is not None:
            self._writer = RunWriter(self._worker.journal, run, seq)
        return run is None or run.task in self._worker.site.tasks

    async def start(self) -> bool:
        """Append `started` under the hand-out; tells whether the run is ours now."""
        if self._writer is None:
            return False
        run = self._writer.run
        task = self._worker.site.tasks.get(run.task)
        names = tuple(step.name for step in task.steps) if task and not run.steps else None
        record = Started(
            token=self._token, attempt=self._assignment.attempt, worker=self._worker.name, steps=names or None
        )
        return await self._writer.append(record, while_=self._may_start) and self._is_open(self._writer.run)

    def _may_start(self, run: Run) -> bool:
        return not run.state.is_final and run.state is not RunState.RUNNING and self._token > run.token

    def _is_open(self, run: Run) -> bool:
        if run.aborting is not None:
            self.abort(run.aborting)
        return is_open_attempt(run, self._token)

    async def execute(self) -> None:
        """Execute the run to the end of this attempt, and write that end down."""
        run = self.writer.run
        task = self._worker.site.tasks[run.task]
        run = await self._restored(run)
        services = Services(
            clock=self._worker.clock,
            target=await self._target(run.target) if run.target is not None else None,
            event=await self._event(run),
            providers=self._worker.site.providers,
            agent=self._agent,
            fleet=step_fleet,
            fleets=self._fleets(run),
            blocking=_blocking,
        )
        self._execution = Execution(task, run, self, services)
        if self._abort_reason is not None:
            self._execution.abort(self._abort_reason)
        await self._conclude(await self._execution.run())

    async def _target(self, name: str) -> Target | None:
        """Give a target of the site, or an agent that is here, as one."""
        targets = await self._worker.site.targets()
        said = await presence_of(self._worker.journal.connection, name)
        return members(targets, {name: said} if said is not None else {}).get(name)

    def _agent(self, name: str, caller: Caller) -> StepAgent:
        from labwright.run.agents import RunAgents  # most runs want no agent

        run = self.writer.run
        agents = RunAgents(journal=self._worker.journal, run=run.id, token=self._token, by=run.by)
        return agents.handle(name, caller)

    def _fleets(self, run: Run) -> RunFleets:
        site = self._worker.site
        return RunFleets(
            journal=self._worker.journal,
            run=run.id,
            token=self._token,
            by=run.by,
            role=run.role,
            targets=site.targets,
        )

    async def _conclude(self, end: ends.End) -> None:
        record = record_of(end, self._token)
        await self._end(record)
        if isinstance(record, Stuck):
            self._worker.end_hard()

    async def _end(self, record: Record) -> None:
        await self.writer.append(record, while_=self._is_open)

    async def _restored(self, run: Run) -> Run:
        """Bring back parameters and outputs that were too large for a record."""
        if '"$blob"' not in run.model_dump_json():
            return run
        params = await self._worker.journal.restore(run.params)
        restore = self._worker.journal.restore
        steps = [
            step.model_copy(update={"output": await restore(step.output), "result": await restore(step.result)})
            for step in run.steps
        ]
        return run.model_copy(update={"params": params, "steps": tuple(steps)})

    async def _event(self, run: Run) -> Event | None:
        """Fetch the event that caused the run, if one did."""
        if run.cause.kind != "event":
            return None
        subject = event_subject(run.cause.source or "", run.cause.id)
        for most in (1, None):  # it comes first, and the decision behind it may hold thousands of requests
            for entry in await self._worker.journal.read_patiently(subject, most=most):
                if isinstance(entry.record, Received):
                    data = await self._worker.journal.restore(entry.record.event.data)
                    return entry.record.event.model_copy(update={"data": data})
        return None

    async def give_back(self) -> None:
        """Close the attempt because this worker ends; others go on with the first step that is not recorded."""
        if self._writer is not None and is_open_attempt(self._writer.run, self._token):
            record = AttemptLost(token=self._token, reason="its worker was told to end", counts=False)
            with contextlib.suppress(UnreachableError):
                await self._writer.append(
                    record, while_=lambda run: is_open_attempt(run, self._token), patience_s=GRACE_S
                )

    async def broke(self, error: Exception) -> None:
        """End the attempt with what broke outside its steps; what may pass is tried again."""
        if self._writer is None:
            return
        run = self._writer.run
        task = self._worker.site.tasks.get(run.task)
        if isinstance(error, TransientError) and task is not None and task.retry.allows_another(run.failures + 1):
            pause = max(task.retry.delay(run.failures + 1, random.random()), error.retry_after or 0.0)  # noqa: S311 - jitter
            moment = self._worker.clock.now() + timedelta(seconds=pause)
            await self._end(Retrying(token=self._token, error=ErrorRecord.of(error), next_attempt_at=moment))
        else:
            kind = None if isinstance(error, LabwrightError) else "bug"
            await self._end(Finished(token=self._token, state="failed", error=ErrorRecord.of(error, kind=kind)))

    def abort(self, reason: str) -> None:
        """Ask the execution for an early end."""
        self._abort_reason = reason
        if self._execution is not None:
            self._execution.abort(reason)

    # --- what the execution writes -----------------------------------------------------------------------------------

    async def step_started(self, step: Step) -> None:
        """Write that a step which must not be repeated is about to run."""
        await self._record(StepStarted(token=self._token, step=step))

    async def step_ended(self, step: Step) -> None:
        """Write a step that has ended and is not the last."""
        await self._record(StepEnded(token=self._token, step=step))

    async def _record(self, record: Record) -> None:
        if not await self.writer.append(record, while_=self._is_open):
            message = "this attempt was closed"
            raise ClosedError(message, because=f"the run is {self.writer.run.state}, token {self.writer.run.token}")

    async def spawn(self, request: Request, number: int | str) -> str:
        """Make a child run, once for each number."""
        run = self.writer.run
        site = self._worker.site
        if (task := site.tasks.get(request.task)) is None:
            message = f"there is no task {request.task!r} to spawn"
            raise TerminalError(message, because=f"the site has: {', '.join(sorted(site.tasks))}")
        target = await self._one_target(request.on)
        run_id = child_id(run.id, number)
        record = requested(
            request.with_params(**task.validated(request.params)),
            target=target,
            cause=Cause(kind="run", id=run.id),
            by=run.by,
            parent=run.id,
            start_within=task.start_within,
            approve=run.task != RUN and needs_approval(request, site.tasks),
        )
        if run.task == RUN:  # it does what its caller asked for, and may no more than that
            record = record.model_copy(update={"role": run.role})
        with contextlib.suppress(ConflictError):  # a step that changed its mind keeps the child that it has
            await self._worker.journal.create(f"run.{run_id}", record, content=record.content)
        return run_id

    def child_runs(self) -> ChildrenOf:
        """Give what knows this run's children."""
        return ChildrenOf(self._worker.journal, self.writer.run)

    async def _one_target(self, on: str | None) -> str | None:
        """Find the one target of a child run."""
        if on is None:
            return None
        targets = await self._worker.site.targets()
        chosen = [targets[on]] if on in targets else select(on, targets.values())
        if not chosen and (agent := await self._target(on)) is not None:
            chosen = [agent]
        if len(chosen) != 1:
            message = f"{on!r} chooses {len(chosen)} targets, and a child run acts on one"
            raise TerminalError(message, cure="spawn one child for each target, by its name")
        return chosen[0].name

    def log(self, level: str, text: str, fields: Mapping[str, Any]) -> None:
        """Write to the run's log."""
        self._worker.logs.put(f"log.run.{self.writer.run.id}", level, text, fields)

    def progress(self, done: float, total: float | None, text: str) -> None:
        """Show how far the run is."""
        self._worker.logs.progress(self.writer.run.id, done, total, text)


def _blocking(handle: StepAgent | FleetHandle, call: Callable[..., Any]) -> Any:
    from labwright.agents.blocking_handles import BlockingAgentHandle

    return BlockingFleetHandle(handle, call) if isinstance(handle, FleetHandle) else BlockingAgentHandle(handle, call)


def _check_status(status: str, message: Msg) -> None:
    """Go on after a pull that has run out; anything else means that the consumer must be made again."""
    if status not in {"404", "408"}:
        text = "the work cannot be taken"
        raise UnreachableError(text, because=f"{status} {(message.headers or {}).get('Description', '')}")
