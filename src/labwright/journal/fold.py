"""The one fold: what state a run is in after a record. Pure; shared by dispatcher, worker, view, clients and tests.

A record that does not fit the state (a late word from an attempt that was closed, a second end) changes nothing: the
state comes back as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from labwright.core.model import Run, RunState, Step, StepState
from labwright.journal.records import (
    Aborting,
    AttemptLost,
    Finished,
    Record,
    Reopened,
    Requested,
    Retrying,
    Snapshot,
    Started,
    StepEnded,
    StepStarted,
    Stuck,
    Waiting,
)

R = TypeVar("R", bound=Record)


def apply(run: Run | None, record: Record, run_id: str) -> Run | None:
    """Give the state of a run after one more record of its subject.

    Only `requested` and `snapshot` may be the first; anything else about an unknown run is dropped.
    """
    if run is None:
        if isinstance(record, Requested):
            return _requested(run_id, record)
        return record.run if isinstance(record, Snapshot) else None
    change = _CHANGES.get(type(record))
    return run if change is None else change(run, record)


def fold(records: Iterable[Record], run_id: str, run: Run | None = None) -> Run | None:
    """Give the state of a run after all these records, in their order."""
    for record in records:
        run = apply(run, record, run_id)
    return run


def is_open_attempt(run: Run, token: int) -> bool:
    """Tell whether the attempt with that token is the one that may still write."""
    return run.token == token and run.state is RunState.RUNNING


def _requested(run_id: str, record: Requested) -> Run:
    return Run(
        id=run_id,
        task=record.task,
        target=record.target,
        params=record.params,
        priority=record.priority,
        key=record.key,
        by=record.by,
        role=record.role,
        cause=record.cause,
        parent=record.parent,
        requested_at=record.at,
        not_before=record.not_before,
        not_after=record.not_after,
        content=record.content,
        refused=record.error,
    )


def _started(run: Run, record: Started) -> Run:
    if run.state.is_final or run.state is RunState.RUNNING or record.token <= run.token:
        return run
    steps = run.steps
    if record.steps is not None:
        steps = tuple(Step(name=name, position=position) for position, name in enumerate(record.steps))
    return _with(
        run,
        state=RunState.RUNNING,
        token=record.token,
        attempt=record.attempt,
        worker=record.worker,
        started_at=run.started_at or record.at,
        error=None,
        next_attempt_at=None,
        waiting_for=None,
        steps=steps,
    )


def _step_started(run: Run, record: StepStarted) -> Run:
    if not is_open_attempt(run, record.token):
        return run
    return _with(run, steps=_put(run.steps, record.step))


def _step_ended(run: Run, record: StepEnded) -> Run:
    if not is_open_attempt(run, record.token):
        return run
    return _with(run, steps=_put(run.steps, record.step), lost_in_step=0)


def _waiting(run: Run, record: Waiting) -> Run:
    if not is_open_attempt(run, record.token):
        return run
    return _with(
        run,
        state=RunState.WAITING,
        worker=None,
        next_attempt_at=record.until,
        waiting_for=record.waiting_for,
        waits={**run.waits, f"{record.position}:{record.number}": record.until},
        steps=_put(run.steps, record.step),
        lost_in_step=0,
    )


def _retrying(run: Run, record: Retrying) -> Run:
    if not is_open_attempt(run, record.token):
        return run
    return _with(
        run,
        state=RunState.RETRYING,
        worker=None,
        error=record.error,
        failures=run.failures + 1,
        next_attempt_at=record.next_attempt_at,
        steps=_put(run.steps, record.step),
        lost_in_step=0,
    )


def _aborting(run: Run, record: Aborting) -> Run:
    if run.state.is_final:
        return run
    return _with(run, aborting=record.reason or f"aborted by {record.by or 'an operator'}")


def _stuck(run: Run, record: Stuck) -> Run:
    if not is_open_attempt(run, record.token):
        return run
    return _with(run, stuck=RunState(record.state), error=record.error, steps=_put(run.steps, record.step))


def _attempt_lost(run: Run, record: AttemptLost) -> Run:
    """Close an attempt that is running, or one that was handed out and never started."""
    if run.state.is_final or record.token < run.token:
        return run
    if run.state is not RunState.RUNNING:
        return _with(run, token=record.token)
    if run.stuck is not None:
        return _with(
            run, state=run.stuck, token=record.token, ended_at=record.at, stuck=None, worker=None, waiting_for=None
        )
    return _with(
        run,
        state=RunState.PENDING,
        token=record.token,
        worker=None,
        lost_in_step=run.lost_in_step + int(record.counts),
        note=record.reason or run.note,
    )


def _finished(run: Run, record: Finished) -> Run:
    if run.state.is_final or (record.token and not is_open_attempt(run, record.token)):
        return run
    return _with(
        run,
        state=RunState(record.state),
        ended_at=record.at,
        result=record.result,
        error=record.error,
        note=record.note if record.note is not None else run.note if record.state != "succeeded" else None,
        finding=record.finding,
        steps=_ended_steps(_put(run.steps, record.step), record),
        worker=run.worker if record.token else None,
        next_attempt_at=None,
        waiting_for=None,
        stuck=None,
    )


def _ended_steps(steps: tuple[Step, ...], record: Finished) -> tuple[Step, ...]:
    """Of a run that has succeeded nothing is to come: where a step skipped the whole task, the others are skipped."""
    if record.state != RunState.SUCCEEDED or all(step.state is not StepState.PENDING for step in steps):
        return steps
    return tuple(
        step.model_copy(update={"state": StepState.SKIPPED}) if step.state is StepState.PENDING else step
        for step in steps
    )


def _reopened(run: Run, record: Reopened) -> Run:
    if not run.state.is_final:
        return run
    steps = () if record.from_start else tuple(_fresh(step) for step in run.steps)
    return _with(
        run,
        state=RunState.PENDING,
        token=max(run.token, record.token),
        ended_at=None,
        not_after=None,
        error=None,
        note=None,
        result=None,
        finding=False,
        failures=0,
        reopened=run.reopened + 1,
        alone=record.alone,
        lost_in_step=0,
        aborting=None,
        waits={},
        started_at=None,
        steps=steps,
    )


def _snapshot(run: Run, record: Snapshot) -> Run:
    return run if run.state.is_final else record.run


def _fresh(step: Step) -> Step:
    if step.state in {StepState.SUCCEEDED, StepState.SKIPPED}:
        return step
    return Step(name=step.name, position=step.position, attempts=step.attempts, result=step.result)


def _put(steps: tuple[Step, ...], step: Step | None) -> tuple[Step, ...]:
    """Put a step's new state in its place; a function with durable steps grows its list as it goes."""
    if step is None:
        return steps
    before = steps[: step.position]
    before += tuple(Step(name="?", position=position) for position in range(len(before), step.position))
    return (*before, step, *steps[step.position + 1 :])


def _with(run: Run, **changes: Any) -> Run:
    return run.model_copy(update=changes)


def _change(kind: type[R], function: Callable[[Run, R], Run]) -> tuple[type[Record], Callable[[Run, Record], Run]]:
    return kind, cast("Callable[[Run, Record], Run]", function)


_CHANGES: dict[type[Record], Callable[[Run, Record], Run]] = dict(
    (
        _change(Started, _started),
        _change(StepStarted, _step_started),
        _change(StepEnded, _step_ended),
        _change(Waiting, _waiting),
        _change(Retrying, _retrying),
        _change(Aborting, _aborting),
        _change(Stuck, _stuck),
        _change(AttemptLost, _attempt_lost),
        _change(Finished, _finished),
        _change(Reopened, _reopened),
        _change(Snapshot, _snapshot),
    )
)
