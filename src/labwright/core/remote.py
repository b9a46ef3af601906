"""Errors that come over the wire, from a lab or from an agent, as errors that can be raised here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labwright.core.errors import (
    ClaimedError,
    ConflictError,
    LabwrightError,
    LockedError,
    NotAllowedError,
    NotFoundError,
    NotRunningError,
    ParameterError,
    RefusedError,
    SiteError,
    UnreachableError,
    UsageError,
    WaitTimeoutError,
)
from labwright.core.model import ErrorRecord

_ERRORS: dict[str, type[LabwrightError]] = {
    cls.kind: cls
    for cls in (
        UsageError,
        NotFoundError,
        NotAllowedError,
        ConflictError,
        LockedError,
        ClaimedError,
        NotRunningError,
        RefusedError,
        UnreachableError,
        WaitTimeoutError,
    )
}


def error_of(answer: Mapping[str, Any]) -> LabwrightError:
    """Make the error that an answer tells, of the same kind and exit code."""
    error = raised(ErrorRecord.model_validate(answer["error"]), int(answer.get("exit_code", 1)))
    if answer.get("findings"):
        kind = SiteError if answer["error"]["kind"] == SiteError.kind else ParameterError
        return kind(error.message, findings=tuple(answer["findings"]), because=error.because, cure=error.cure)
    return error


def raised(record: ErrorRecord, exit_code: int = 1) -> LabwrightError:
    """Turn an error that came over the wire into one that can be raised here, of the same kind and exit code."""
    known = _ERRORS.get(record.kind)
    cls = known or type("RemoteError", (RemoteError,), {"kind": record.kind, "exit_code": exit_code})
    return cls(record.message, because=record.because, cure=record.cure)


class RemoteError(LabwrightError):
    """A lab or an agent reports an error of a kind that has no class here; `kind` and `exit_code` are as it says."""
