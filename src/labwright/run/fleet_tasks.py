"""The built-in tasks that do something on many targets: call an operation of their agents, or run a task on each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from labwright.agents.fleet import Asked, FleetCall
from labwright.core.errors import LabwrightError
from labwright.core.fleet import FleetResult, FleetRow, Outcome, light
from labwright.core.model import ErrorRecord, Run, RunState
from labwright.core.request import Request
from labwright.plan.fan_out import FanOut
from labwright.plan.rollout import Rollout
from labwright.plan.tasks import Task, output_of, step
from labwright.run.clients import not_provided
from labwright.run.context import TaskContext, effects_of, services_of
from labwright.run.effects import RunEffects
from labwright.run.fleets import CALL, RUN, RunFleets
from labwright.run.views import RunInfo

POOL = "fleets"
"""Fleets have a pool of their own: what waits for many must not take the places of those that it waits for."""
LONGEST_S = 366 * 86_400.0
ABORT_S = 3.0
"""How long the ends of what is aborted are waited for; a step has little more time to end itself."""
OUTCOMES = {
    RunState.SUCCEEDED: Outcome.SUCCEEDED,
    RunState.ABORTED: Outcome.ABORTED,
    RunState.EXPIRED: Outcome.SKIPPED,
}


@step
async def choose(ctx: TaskContext, selector: str) -> list[str]:
    """Choose the targets, once: a call that is repeated after a crash acts on the same ones."""
    return list(await _fleets(ctx).chosen(selector))


# --- an operation on each --------------------------------------------------------------------------------------------


@step
async def call_each(
    ctx: TaskContext,
    *,
    operation: str,
    selector: str,
    params: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    targets: Sequence[str] = output_of("choose"),
) -> None:
    """Call the operation on each target, and judge by the quorum."""
    asked = Asked(operation=operation, params=params or {}, how=FanOut.given(**(options or {})))
    effects, fleets = effects_of(ctx), _fleets(ctx)
    before = _rows(effects.result_before)
    if ctx.run.reopened:  # a call that was killed and aborted has no rows, and its sessions have their records
        others = [name for name in targets if name not in before or before[name].outcome is not Outcome.SUCCEEDED]
        before |= await fleets.succeeded(others, asked, effects.calls_before(ctx.run.reopened))

    def tell(name: str, row: FleetRow) -> None:
        ctx.progress(len(call.rows), len(targets), f"{name} {row.outcome}")

    call = fleets.call(targets, asked, effects, selector=selector, before=before, tell=tell)
    result = await _result(ctx, call)
    ctx.set_result(result.model_dump(mode="json", by_alias=True))
    result.raise_if_failed()


async def _result(ctx: TaskContext, call: FleetCall) -> FleetResult:
    """Wait for a call; when the run is aborted, so is everything that it has started."""
    running = asyncio.create_task(call.run())
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if ctx.cancelled:
            with contextlib.suppress(LabwrightError, TimeoutError):
                async with asyncio.timeout(ABORT_S):
                    await call.abort("the run was told to end")
                    await asyncio.wait({running})
            ctx.set_result(call.result.model_dump(mode="json", by_alias=True))
        raise
    finally:
        running.cancel()
        await asyncio.wait({running})


# --- a task on each --------------------------------------------------------------------------------------------------


@step
async def run_each(
    ctx: TaskContext,
    *,
    task: str,
    selector: str,
    params: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    priority: int = 0,
    targets: Sequence[str] = output_of("choose"),
) -> None:
    """Run the task on each target: make the runs that are due, and leave until one of them has ended."""
    how = FanOut.given(**(options or {}))
    rollout = Rollout(targets, how)
    children = Children(effects_of(ctx), ctx.run, targets)
    await children.look()
    while due := rollout.due():
        for name in due:
            if (state := children.state(name)) is None:
                await children.start(name, Request(task, on=name, params=params, priority=priority))
            elif state.is_final:
                rollout.ended(name, succeeded=state is RunState.SUCCEEDED)
    if children.open_ones:
        if rollout.aborts:
            await children.abort(rollout.over)
        ctx.progress(len(children.ended), len(targets), task)
        children.leave(task)
    rows = {name: await _row(children, name, rollout.over) for name in targets}
    result = FleetResult.of(task, selector, how.needed(len(targets)), rows)
    ctx.set_result(result.model_dump(mode="json", by_alias=True))
    result.raise_if_failed()


class Children:
    """The runs of a task on its targets, one for each; those that failed are tried again if the whole is."""

    def __init__(self, effects: RunEffects, run: RunInfo, targets: Sequence[str]) -> None:
        self._effects = effects
        self._known = effects.child_runs()
        self._run = run
        self._targets = tuple(targets)
        self._states: dict[str, RunState] = {}
        self._seen = 0

    async def look(self) -> None:
        """Find out where they stand; one that failed before the whole was tried again counts as not begun."""
        ids = {self._effects.child_id(self._run.id, name): name for name in self._targets}
        states, self._seen = await self._known.states(list(ids))
        self._states = {ids[run_id]: state for run_id, state in states.items()}
        failed = [name for name, state in self._states.items() if state.is_final and state is not RunState.SUCCEEDED]
        for name in failed if self._run.reopened else ():
            if not await self._known.is_tried_again(self._id(name), self._run.reopened):
                del self._states[name]

    def state(self, name: str) -> RunState | None:
        """Tell where the run on a target stands; None where it is still to be begun."""
        return self._states.get(name)

    @property
    def open_ones(self) -> list[str]:
        """The targets whose runs have begun and not ended."""
        return [name for name, state in self._states.items() if not state.is_final]

    @property
    def ended(self) -> list[str]:
        """The targets whose runs have ended."""
        return [name for name, state in self._states.items() if state.is_final]

    async def start(self, name: str, request: Request) -> None:
        """Begin the run on a target: make it, or have the one that failed tried again."""
        if not (self._run.reopened and await self._known.try_again(self._id(name), self._run.reopened)):
            await self._effects.child(request, name)
        self._states[name] = RunState.PENDING

    async def abort(self, reason: str) -> None:
        """Have those that go on ended early."""
        for name in self.open_ones:
            await self._known.abort(self._id(name), reason)

    def leave(self, task: str) -> NoReturn:
        """Leave the step until one of them ends."""
        to_come = len(self._targets) - len(self.ended)
        self._effects.leave_for_runs(self._seen, f"{to_come} of {len(self._targets)} runs of {task} to end")

    async def run_of(self, name: str) -> Run | None:
        """Give the run on a target as it is now."""
        return await self._known.run(self._id(name)) if name in self._states else None

    def _id(self, name: str) -> str:
        return self._effects.child_id(self._run.id, name)


async def _row(children: Children, name: str, over: str) -> FleetRow:
    run = await children.run_of(name)
    if run is None:
        error = LabwrightError("it was not run", because=over, cure="labwright runs retry, of the whole")
        return FleetRow(outcome=Outcome.SKIPPED, error=ErrorRecord.of(error, kind="skipped"))
    took = run.ended_at - run.started_at if run.ended_at and run.started_at else None
    return FleetRow(
        outcome=_outcome(run),
        run=run.id,
        result=light(run.result),
        error=run.error,
        duration_s=took.total_seconds() if took is not None else None,
    )


def _outcome(run: Run) -> Outcome:
    if run.error is not None and run.error.kind == "timeout" and run.state is RunState.FAILED:
        return Outcome.TIMEOUT
    return OUTCOMES.get(run.state, Outcome.FAILED)


# --- both ------------------------------------------------------------------------------------------------------------


def _fleets(ctx: TaskContext) -> RunFleets:
    fleets = services_of(ctx).fleets
    if fleets is None:
        raise not_provided("the fleets", {}, "start its agents", ".with_fleet(...) for ctx.fleet")
    return fleets


def _rows(result: Any) -> dict[str, FleetRow]:
    """Read the rows of an earlier try."""
    return FleetResult.model_validate(result).targets if isinstance(result, Mapping) else {}


FLEET_TASKS = (
    Task(
        CALL,
        steps=[choose, call_each],
        pool=POOL,
        timeout=LONGEST_S,
        doc="Call an operation of all agents that a selector chooses.",
    ),
    Task(
        RUN,
        steps=[choose, run_each],
        pool=POOL,
        timeout=LONGEST_S,
        doc="Run a task on each target that a selector chooses, in waves and within a failure budget.",
    ),
)
