"""Which record the end of an attempt becomes. Pure; shared by the worker and by the test kit."""

from __future__ import annotations

from typing import Any, assert_never

from labwright.core.errors import LabwrightError
from labwright.core.model import ErrorRecord, Step
from labwright.journal import records
from labwright.run.ends import Aborted, End, Failed, RetryLater, Stuck, Succeeded, Waiting


def record_of(end: End, token: int) -> records.Record:
    """Make the record of how the attempt with that token ended."""
    match end:
        case Succeeded(result=result, note=note, finding=finding, step=step):
            return records.Finished(
                token=token, state="succeeded", result=result, note=note, finding=finding, step=step
            )
        case Failed(error=error, step=step):
            return records.Finished(token=token, state="failed", result=_result(step), error=error, step=step)
        case Aborted(reason=reason, step=step):
            error = ErrorRecord.of(LabwrightError("the run was aborted", because=reason), kind="aborted")
            return records.Finished(token=token, state="aborted", result=_result(step), error=error, step=step)
        case RetryLater(error=error, at=at, step=step):
            return records.Retrying(token=token, error=error, next_attempt_at=at, step=step)
        case Waiting(until=until, waiting_for=waiting_for, position=position, number=number, step=step):
            return records.Waiting(
                token=token, until=until, waiting_for=waiting_for, position=position, number=number, step=step
            )
        case Stuck(reason=reason, error=error, step=step):
            return records.Stuck(
                token=token, state="aborted" if reason == "aborted" else "failed", error=error, step=step
            )
        case _:
            assert_never(end)


def _result(step: Step | None) -> Any:
    """Give what the step that ended the run without success has set as its result all the same."""
    return step.result if step is not None else None
