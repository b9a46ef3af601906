"""From a request to the record that makes a run of it: the same for rules, parents and operators."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import timedelta

from labwright.core.ids import content_hash, hashed_id, new_id
from labwright.core.model import Cause, ErrorRecord, utc_now
from labwright.core.request import Request
from labwright.journal.records import Requested
from labwright.plan.tasks import Task, TaskDescription
from labwright.run.fleets import inner_tasks


def event_subject(source: str, event_id: str) -> str:
    """Name the subject of an event's records."""
    return f"event.{hashed_id('evt', source, event_id)}"


def run_id_for(request: Request, target: str | None) -> str:
    """Make the id of a run that somebody asks for: always the same where the request has a key."""
    if request.key is not None:
        return hashed_id("run", "key", request.task, target, request.key)
    return new_id("run")


def needs_approval(request: Request, tasks: Mapping[str, Task | TaskDescription]) -> bool:
    """Tell whether a person has to approve what is asked for: the request says so, or a task that it runs.

    Raises:
        UsageError: what it is to run on a fleet is not said.
    """
    named = (request.task, *inner_tasks(request.task, request.params))
    return request.approve or any(tasks[name].approve for name in named if name in tasks)


def requested(
    request: Request,
    *,
    target: str | None,
    cause: Cause,
    by: str,
    parent: str | None = None,
    start_within: float | None = None,
    approve: bool = False,
    error: ErrorRecord | None = None,
) -> Requested:
    """Write a request as the first record of a run; `start_within` is the task's, in seconds.

    With `approve` the run waits for a person, as `needs_approval` tells.
    """
    latest = request.not_after
    if start_within is not None:
        with contextlib.suppress(OverflowError):  # at the end of all time there is no latest start
            bound = (request.not_before or utc_now()) + timedelta(seconds=start_within)
            latest = bound if latest is None else min(latest, bound)
    return Requested(
        task=request.task,
        target=target,
        params=dict(request.params),
        priority=request.priority,
        not_before=request.not_before,
        not_after=latest,
        key=request.key,
        by=by,
        cause=cause,
        parent=parent,
        approve=approve,
        content=content_hash([request.task, target, dict(request.params), request.key]),
        error=error,
    )
