"""The asynchronous handle on a running lab: events, runs, agents and their sessions.

Commands go to the journal or straight to an agent, so they hold even while `serve` is away; questions go to the lab
that runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from nats.aio.msg import Msg

from labwright.access.audit import audit_shown
from labwright.access.claim_watch import read_claims
from labwright.access.claiming import Claiming
from labwright.access.claims import claim_on, refusal
from labwright.agents.asking import origin
from labwright.agents.fleet import Tell
from labwright.agents.fleet_handle import FleetAsked, FleetHandle
from labwright.agents.members import members
from labwright.client.fleets import FleetClient, fan_out_of
from labwright.client.ids import checked_id
from labwright.client.instruments import Instruments
from labwright.client.logs import closing, logged
from labwright.client.results import Emitted, RequestedRuns
from labwright.client.schedules import ScheduleActs
from labwright.core.clock import SystemClock, to_text
from labwright.core.errors import (
    ConflictError,
    FateUnknownError,
    NotFoundError,
    UnreachableError,
    WaitTimeoutError,
)
from labwright.core.event import event_content, event_key, parse_event
from labwright.core.fleet import FleetResult
from labwright.core.model import Cause, Event, Run, RunState, Target, utc_now
from labwright.core.remote import raised
from labwright.core.request import Request
from labwright.core.roles import Role
from labwright.core.selectors import parse_selector
from labwright.journal.connection import Connection
from labwright.journal.fold import apply, fold
from labwright.journal.records import (
    Aborting,
    Approved,
    PoolChanged,
    Received,
    Record,
    Released,
    Reopened,
)
from labwright.plan.durable import ScheduleDefinition
from labwright.run.children import run_of
from labwright.run.engine import who
from labwright.run.following import Following, Update
from labwright.run.requesting import requested, run_id_for
from labwright.run.room import refuse_if_full
from labwright.run.settings import Settings
from labwright.run.signals import ABORTING
from labwright.run.writer import RunWriter

PATIENCE_S = 10.0


class AsyncLab(Instruments):
    """A running lab; made by `connect_async`."""

    def __init__(
        self, connection: Connection, settings: Settings, *, by: str = "", from_: str = "", role: str = ""
    ) -> None:
        super().__init__(connection, by or connection.identity or who())
        self.settings = settings
        self.origin = from_ or origin()
        self._role = role

    # --- questions ---------------------------------------------------------------------------------------------------

    async def runs(self, *, limit: int = 50, cursor: str | None = None, seq: int = 0, **filters: Any) -> dict[str, Any]:
        """List runs, newest first: `{"items": [run], "next_cursor": ...}`.

        Filters: `state` (several by comma), `task`, `target`, `on` (a selector), `cause`, `tree` (caused by that, also
        through other runs), `parent`, `since`.
        """
        chosen = {name: value for name, value in filters.items() if value is not None}
        return await self.ask("runs", filters=chosen, limit=limit, cursor=cursor, seq=seq)

    async def run_shown(self, run_id: str, *, full: bool = False, seq: int = 0) -> dict[str, Any]:
        """Give one run; `full` brings the values that were too large for a record."""
        run = await self.ask("run", run_id=run_id, seq=seq)
        return await self.journal.restore(run) if full else run

    async def why(self, run_id: str, *, seq: int = 0) -> list[dict[str, Any]]:
        """Tell the story of a run, from its root cause to what followed."""
        return await self.ask("why", run_id=run_id, seq=seq)

    # --- events ------------------------------------------------------------------------------------------------------

    async def emit(self, event: Event | Mapping[str, Any] | str | bytes) -> Emitted:
        """Put an event into the journal; repeating the same event is safe.

        Raises:
            UsageError: it is no event.
            ConflictError: the same source and id exist with other content.
            FateUnknownError: the journal does not say whether it was written; repeat it with the same id.
        """
        parsed = event if isinstance(event, Event) else parse_event(event, clock=SystemClock())
        self._check_room()
        key = event_key(parsed)
        content = event_content(parsed)
        record = Received(event=parsed, content=content, by=self.by)
        seq, is_new = await self._create(f"event.{key}", record, content, f"the event {parsed.id} of {parsed.source}")
        return Emitted(id=parsed.id, source=parsed.source, key=key, seq=seq, is_new=is_new)

    async def decide_again(self, event_id: str) -> dict[str, Any]:
        """Decide a past event with the rules of now; nothing is run."""
        return await self.ask("decide_again", event_id=event_id, at=to_text(utc_now()))

    async def release(self, event_id: str) -> int:
        """Have an event that was set aside decided once more; gives the sequence of that."""
        event = await self.ask("event", event_id=event_id)
        if event["state"] != "set_aside":
            message = f"the event {event_id} is {event['state']}"
            raise ConflictError(
                message,
                because="only one that was set aside can be decided again for good",
                cure=f"labwright events decide {event_id} --dry-run shows what the rules of now would do",
            )
        return await self.journal.append(
            f"event.{event['key']}", Released(by=self.by), after=event["seq"], patience_s=PATIENCE_S
        )

    # --- runs --------------------------------------------------------------------------------------------------------

    async def prepare(self, request: Request) -> tuple[Request, tuple[str | None, ...], float | None]:
        """Check a request against the site; gives it with all parameters, its targets and the task's latest start.

        It comes back as one for approval where its task always needs that.

        Raises:
            NotFoundError: no such task, or no target is chosen.
            ParameterError, SelectorError: something cannot be read.
        """
        answer = await self.ask("prepare", task=request.task, params=dict(request.params), on=request.on)
        checked = request.with_params(**answer["params"])
        if answer["approve"]:
            checked = checked.for_approval()
        return checked, tuple(answer["targets"]), answer["start_within"]

    async def request(self, request: Request) -> RequestedRuns:
        """Ask for runs: one per target that the request chooses.

        Raises:
            ConflictError: the same key was used with other parameters.
        """
        checked, targets, start_within = await self.prepare(request)
        self._check_room()
        made = [await self._request(checked, target, start_within) for target in targets]
        return RequestedRuns(
            runs=tuple(run_id for run_id, _, _ in made),
            targets=targets,
            seq=min(seq for _, seq, _ in made),
            is_new=any(is_new for _, _, is_new in made),
        )

    async def targets(self) -> dict[str, Target]:
        """Give the site's targets by name: of the lab that is served, or else of the file alone."""
        return await FleetClient(self).targets()

    # --- fleets ------------------------------------------------------------------------------------------------------

    def fleet(self, selector: str, **options: Any) -> FleetHandle:
        """Give the handle on all targets that a selector chooses: `await lab.fleet("crate=1").uxm_setup(bands=[0])`.

        Options are those of `FanOut`: `timeout_s` (or `timeout`), `quorum`, `serial`, `settle_s`, `waves`,
        `failure_budget`, `on_failure`, `retries`, `return_within_s`. A call is a run, which goes on if this
        client is killed. Where nobody serves, the client makes the call itself, and only its sessions are kept.

        Raises:
            UsageError: an option is not valid.
        """
        return FleetHandle(selector, fan_out_of(options), self.ask_fleet)

    async def ask_fleet(
        self, asked: FleetAsked, *, began: Callable[[str], None] | None = None, tell: Tell | None = None
    ) -> FleetResult:
        """Ask something of a fleet; `began` is told the id of a call's run, `tell` each row of a call as it is known.

        Raises:
            NotFoundError: nobody is chosen, or somebody who is named is not known.
            UsageError: the quorum cannot be reached.
        """
        return await FleetClient(self).ask(asked, began=began, tell=tell)

    async def _request(self, request: Request, target: str | None, start_within: float | None) -> tuple[str, int, bool]:
        run_id = run_id_for(request, target)
        record = requested(
            request,
            target=target,
            cause=Cause(kind="operator", id=self.by),
            by=self.by,
            start_within=start_within,
            approve=request.approve,
        )
        record = record.model_copy(update={"origin": self.origin, "role": self._role})
        seq, is_new = await self._create(f"run.{run_id}", record, record.content, run_id)
        return run_id, seq, is_new

    async def _create(self, subject: str, record: Record, content: str, name: str) -> tuple[int, bool]:
        try:
            return await self.journal.create(subject, record, content=content, patience_s=PATIENCE_S)
        except FateUnknownError as error:
            message = f"it is not known whether {name} was written"
            raise FateUnknownError(message, because=error.because, cure=error.cure) from error
        except ConflictError as error:
            message = f"{name} exists already with other content"
            raise ConflictError(message, because=error.because, cure=error.cure) from error

    async def abort(self, run_id: str, *, reason: str = "") -> Run:
        """Have a run end early, whatever it does now; one that has ended stays as it is.

        Raises:
            NotFoundError: there is no such run.
        """
        record = Aborting(by=self.by, reason=reason or f"aborted by {self.by}")
        writer = await self._writer(run_id)
        if await writer.append(
            record, while_=lambda run: not run.state.is_final and run.aborting is None, patience_s=PATIENCE_S
        ):
            data = json.dumps({"run": writer.run.id, "reason": record.reason}).encode()
            await self._connection.publish(ABORTING, data)
        return writer.run

    async def retry(self, run_id: str, *, from_start: bool = False) -> Run:
        """Have an ended run tried again, from the step that failed or from its start.

        Raises:
            NotFoundError: there is no such run.
            ConflictError: it has not ended, or has succeeded, or the run that made it is being aborted.
        """
        writer = await self._writer(run_id)
        state = writer.run.state
        if not state.is_final or (state is RunState.SUCCEEDED and not from_start):
            message = f"{writer.run.id} is {state}"
            raise ConflictError(
                message,
                because="what is retried has failed, or was aborted, or has expired",
                cure="wait until it has ended; --from-start runs a success once more",
            )
        alone = await self._is_alone(writer.run)
        while writer.run.state.is_final:  # each end that somebody else has written in between is reopened anew
            seq = writer.seq
            record = Reopened(token=seq, by=self.by, from_start=from_start, alone=alone)
            still = functools.partial(_is_end_at, writer, seq)
            if await writer.append(record, while_=still, patience_s=PATIENCE_S):
                break
        return writer.run

    async def approve(self, run_id: str, *, reason: str = "") -> Run:
        """Let a run start that waits for a person's approval; one that is approved already stays as it is.

        Raises:
            NotFoundError: there is no such run.
            ConflictError: it needs no approval, or has ended without one.
        """
        writer = await self._writer(run_id)
        record = Approved(by=self.by, role=self._role, reason=reason)
        await writer.append(
            record, while_=lambda run: run.awaits_approval and not run.state.is_final, patience_s=PATIENCE_S
        )
        if (run := writer.run).approved is not None:
            return run
        raise ConflictError(
            f"{run.id} cannot be approved: it is {run.state}",
            because="it has ended without approval" if run.approve else "it does not need approval",
            cure=f"labwright runs retry {run.id} has it wait for approval again" if run.approve else "",
        )

    async def _is_alone(self, run: Run) -> bool:
        """Tell whether the run that made one has ended, and waits for it no more."""
        parent = await run_of(self.journal, run.parent) if run.parent else None
        if parent is not None and parent.aborting is not None and not parent.state.is_final:
            raise ConflictError(
                f"{run.id} would be aborted again at once",
                because=f"{parent.id}, which made it, is being aborted",
                cure="wait until that has ended",
            )
        return parent is not None and parent.state.is_final

    async def _writer(self, run_id: str) -> RunWriter:
        entries = await self.journal.read(f"run.{checked_id(run_id, 'run')}")
        run = fold((entry.record for entry in entries), run_id)
        if run is None:
            shown = await self.ask("run", run_id=run_id)
            if shown["id"] != run_id:
                return await self._writer(shown["id"])
            message = f"the records of {run_id} are gone"
            raise NotFoundError(message, because="they are older than the retention")
        return RunWriter(self.journal, run, entries[-1].seq)

    async def change_pool(self, pool: str, state: str) -> int:
        """Pause, drain or resume a pool (`state`: paused, draining, active); gives the sequence of that.

        Raises:
            NotFoundError: the site has no such pool.
        """
        known = [item["name"] for item in await self.ask("pools")]
        if pool not in known:
            message = f"there is no pool {pool!r}"
            raise NotFoundError(message, because=f"the pools are: {', '.join(known)}")
        record = PoolChanged.model_validate({"pool": pool, "state": state, "by": self.by})
        subject = f"pool.{pool.replace('.', '%2E')}"
        entries = await self.journal.read(subject)
        return await self.journal.append(
            subject, record, after=entries[-1].seq if entries else 0, patience_s=PATIENCE_S
        )

    # --- schedules ---------------------------------------------------------------------------------------------------

    async def add_schedule(self, name: str, definition: ScheduleDefinition) -> int:
        """Add a durable schedule; gives the sequence of that. Adding the same again changes nothing.

        Raises:
            UsageError: the name, or what it says, will not do.
            NotFoundError, ParameterError: the site has no such task, or the task no such parameters.
            ConflictError: there is another schedule of that name.
        """
        await self.ask("prepare", task=definition.task, params=dict(definition.params))
        return await self._schedules.add(name, definition)

    async def change_schedule(self, name: str, change: str, *, count: int = 1) -> int:
        """Change a durable schedule: `pause`, `resume`, `fire` a point now, `skip` so many, or `remove` it.

        Gives the sequence of that.

        Raises:
            NotFoundError: there is no such schedule.
            ConflictError: it is paused already, or is not, or belongs to the site.
        """
        return await self._schedules.change(name, change, count=count)

    @property
    def _schedules(self) -> ScheduleActs:
        return ScheduleActs(journal=self.journal, by=self.by, role=self._role)

    # --- claims ------------------------------------------------------------------------------------------------------

    async def claim(self, selector: str, seconds: float, *, reason: str = "") -> dict[str, Any]:
        """Have targets for oneself for a time, or renew one's own claim of the same selector; gives the claim.

        Raises:
            ClaimedError: somebody else has claimed one of them.
            NotFoundError: the selector chooses no target that is known.
        """
        targets = await self._labels()
        if not any(parse_selector(selector).matches(name, labels) for name, labels in targets.items()):
            raise NotFoundError(
                f"{selector!r} chooses no target",
                because=f"known are: {', '.join(sorted(targets)) or 'none'}",
                cure="see labwright agents list and labwright targets list",
            )
        claim = await self._claiming.claim(selector, seconds, targets=targets, reason=reason)
        return claim.shown(time.monotonic())

    async def claims(self) -> list[dict[str, Any]]:
        """List the claims in force; needs no `serve`."""
        _, known = await read_claims(self.journal)
        return [claim.shown(time.monotonic()) for claim in known]

    async def release_claim(self, claim_id: str, *, reason: str = "") -> dict[str, Any]:
        """Give a claim back before its time; with the lab's own credential, or as an admin, also that of another.

        Raises:
            NotFoundError: no such claim is in force.
            NotAllowedError: somebody else holds it.
        """
        return (await self._claiming.release(claim_id, reason=reason)).shown(time.monotonic())

    async def audit(self, *, since: datetime | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """List refusals and claims, newest first; needs no `serve`."""
        return await audit_shown(self.journal, since=since, limit=limit)

    async def check_claim(self, *targets: str) -> None:
        """Refuse what is done to targets of which somebody else has claimed one.

        Raises:
            ClaimedError: somebody else has.
        """
        _, known = await read_claims(self.journal)
        if not targets or not known:
            return
        now, labels = time.monotonic(), await self._labels()
        for target in targets:
            claim = claim_on(known, target, labels.get(target, {}), now)
            if claim is not None and claim.entry.by != self.by:
                raise refusal(claim, target, now)

    @property
    def _claiming(self) -> Claiming:
        return Claiming(journal=self.journal, by=self.by, is_admin=self._role in {"", Role.ADMIN})

    async def _labels(self) -> dict[str, dict[str, str]]:
        """Give the labels of all targets that are known now, by name: of the site, and of agents that are here."""
        targets: list[dict[str, Any]] = []
        with contextlib.suppress(UnreachableError):
            targets = await self.ask("targets")
        of_site = {each["name"]: Target(name=each["name"], labels=each["labels"]) for each in targets}
        known = members(of_site, {agent["name"]: agent for agent in await self.agents()})
        return {name: dict(target.labels) for name, target in known.items()}

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def follow_event(self, emitted: Emitted) -> AsyncIterator[Update]:
        """Give what happens to an event and to all that follows from it, until all of it has ended."""
        async with closing(self._follow(Following(event=emitted.key), emitted.seq)) as updates:
            async for update in updates:
                yield update

    async def follow_runs(self, runs: RequestedRuns) -> AsyncIterator[Update]:
        """Give what happens to runs and to their children, until all of them have ended."""
        async with closing(self._follow(Following(open=set(runs.runs)), runs.seq)) as updates:
            async for update in updates:
                yield update

    async def _follow(self, what: Following, seq: int) -> AsyncIterator[Update]:
        if what.has_ended:
            return
        subjects = ["run.>", f"event.{what.event}"] if what.event else ["run.>"]
        async with closing(self.journal.follow(subjects, after=seq - 1)) as batches:
            async for entries in batches:
                for entry in entries:
                    for update in what.take(entry):
                        yield update
                    if what.has_ended:
                        return

    async def watch(self, run_ids: Sequence[str] = ()) -> AsyncGenerator[dict[str, Any]]:
        """Give runs as `run_shown` does, now and at each change, until all have ended; none named: all, for ever.

        Raises:
            NotFoundError: there is no such run.
        """
        seq = await self.journal.last_seq()
        still_open: set[str] = set()
        for run_id in run_ids:
            shown = await self.run_shown(run_id, seq=seq)
            if not RunState(shown["state"]).is_final:
                still_open.add(shown["id"])
            yield shown
        if run_ids and not still_open:
            return
        subjects = [f"run.{run_id}" for run_id in still_open] or ["run.>"]
        async with closing(self.journal.follow(subjects, after=seq)) as batches:
            async for entries in batches:
                for run_id in dict.fromkeys(entry.key for entry in entries):
                    shown = await self.run_shown(run_id, seq=entries[-1].seq)
                    yield shown
                    if RunState(shown["state"]).is_final:
                        still_open.discard(run_id)
                if run_ids and not still_open:
                    return

    async def wait(self, updates: AsyncIterator[Update], *, timeout_s: float | None = None) -> dict[str, Run]:
        """Wait until all has ended; gives the runs by id.

        Raises:
            WaitTimeoutError: not all had ended in that many seconds; what runs goes on.
        """
        runs: dict[str, Run] = {}
        try:
            async with asyncio.timeout(timeout_s), closing(updates):
                async for update in updates:
                    if update.run is not None:
                        runs[update.run.id] = update.run
                    if update.set_aside is not None:
                        raise raised(update.set_aside)
        except TimeoutError as error:
            message = f"not all had ended within {timeout_s:g} s"
            raise WaitTimeoutError(message, because="the runs go on", cure="see labwright runs list") from error
        return runs

    async def log(self, run_id: str, *, follow: bool = False) -> AsyncGenerator[dict[str, Any]]:
        """Give the lines of a run's log: `{"at", "level", "text", "fields"}`; with `follow`, also those to its end."""
        subject = f"log.run.{checked_id(run_id, 'run')}"
        async with closing(logged(self._connection, subject, self._run_ended(run_id) if follow else None)) as lines:
            async for line in lines:
                yield line

    async def _run_ended(self, run_id: str) -> None:
        subject = f"run.{run_id}"
        entries = await self.journal.read(subject)
        run = fold((entry.record for entry in entries), run_id)
        if run is None or run.state.is_final:
            return
        async with closing(self.journal.follow([subject], after=entries[-1].seq)) as batches:
            async for batch in batches:
                for entry in batch:
                    run = apply(run, entry.record, run_id)
                if run is None or run.state.is_final:
                    return

    @contextlib.asynccontextmanager
    async def progress(self, show: Callable[[dict[str, Any]], None]) -> AsyncGenerator[None]:
        """Have each word of progress of any run shown: `{"run", "done", "total", "text"}`."""

        async def heard(message: Msg) -> None:
            show(json.loads(message.data))

        end = await self._connection.listen("progress.run.*", heard)
        try:
            yield
        finally:
            await end()

    def _check_room(self) -> None:
        if not self.settings.nats.url and self.settings.state_dir.exists():
            usage = shutil.disk_usage(self.settings.state_dir)
            refuse_if_full(usage.free, usage.total, self.settings.state_dir)


def _is_end_at(writer: RunWriter, seq: int, run: Run) -> bool:
    return run.state.is_final and writer.seq == seq
