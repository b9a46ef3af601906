"""How the execution of one attempt can end: one frozen class each, which the worker turns into a record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from labwright.core.errors import LabwrightError
from labwright.core.model import ErrorRecord, Step, WaitingFor


@dataclass(frozen=True, kw_only=True)
class Succeeded:
    """The task is done. `step`, here and below, is the step that ended just now and is not recorded yet, if any."""

    result: Any = None
    note: str | None = None
    finding: bool = False
    step: Step | None = None


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The run is over without success."""

    error: ErrorRecord
    step: Step | None = None


@dataclass(frozen=True, kw_only=True)
class RetryLater:
    """The attempt failed with what may pass; the next one is due at a moment."""

    error: ErrorRecord
    at: datetime
    step: Step | None = None


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """The run gives its worker back until a moment; `position` and `number` say which of its waits it is."""

    until: datetime
    waiting_for: WaitingFor
    position: int
    number: int
    step: Step | None = None


@dataclass(frozen=True, kw_only=True)
class Aborted:
    """Somebody asked for an early end, and the step heard it."""

    reason: str
    step: Step | None = None


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """A step did not end after it was told to; its process must end hard."""

    reason: Literal["timeout", "aborted"]
    error: ErrorRecord
    step: Step | None = None


def changed(task: str, step: Step, now: str | None) -> Failed:
    """Fail because the code of the task no longer fits what the run has done."""
    error = LabwrightError(
        f"the steps of task {task!r} have changed under the run",
        because=f"it has done {step.name!r} as number {step.position + 1}, which is now {now or 'not there'}",
        cure="retry the run from its start, or bring the old steps back and retry it",
    )
    return Failed(error=ErrorRecord.of(error, kind="changed"))


End = Succeeded | Failed | RetryLater | Waiting | Aborted | Stuck
"""Any end of an attempt."""
