"""What an exception that left a step means: tried again, never again, or a bug. The whole cause chain counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import cast

from labwright.core.errors import LabwrightError, TerminalError, TransientError, WaitTimeoutError
from labwright.core.model import ErrorRecord

LONGEST_PAUSE = 366 * 86400.0


class Severity(Enum):
    """What becomes of a run whose step raised."""

    TRANSIENT = "transient"
    TERMINAL = "terminal"
    OTHER = "other"


@dataclass(frozen=True)
class Judgement:
    """The meaning of one exception, as the run's record shows it."""

    severity: Severity
    error: ErrorRecord
    retry_after: float = 0.0

    @property
    def is_transient(self) -> bool:
        """Tell whether the run may be tried again."""
        return self.severity is Severity.TRANSIENT


def judge(error: BaseException) -> Judgement:
    """Say what an exception means for its run.

    A `TransientError` or `TerminalError` anywhere in its chain of causes decides (also in the exceptions of a group,
    which is transient when all of them are); terminal beats transient. An error that Labwright knows keeps its kind,
    anything else is a bug.
    """
    severity = _severity(error, set())
    if severity is Severity.TRANSIENT:
        return Judgement(severity, _record(error, TransientError.kind), _retry_after(error))
    if severity is Severity.TERMINAL:
        return Judgement(severity, _record(error, TerminalError.kind))
    kind = error.kind if isinstance(error, LabwrightError) else "bug"
    return Judgement(severity, ErrorRecord.of(error, kind=kind, with_traceback=not isinstance(error, WaitTimeoutError)))


def _severity(error: BaseException, seen: set[int]) -> Severity:
    seen.add(id(error))
    found = {_severity(cause, seen) for cause in _causes(error) if id(cause) not in seen}
    found.add(_own_severity(error, seen))
    if Severity.TERMINAL in found:
        return Severity.TERMINAL
    return Severity.TRANSIENT if Severity.TRANSIENT in found else Severity.OTHER


def _own_severity(error: BaseException, seen: set[int]) -> Severity:
    if isinstance(error, TerminalError):
        return Severity.TERMINAL
    if isinstance(error, TransientError):
        return Severity.TRANSIENT
    if members := {_severity(member, seen) for member in _members(error)}:
        if Severity.TERMINAL in members:
            return Severity.TERMINAL
        return Severity.TRANSIENT if members == {Severity.TRANSIENT} else Severity.OTHER
    return Severity.OTHER


def _causes(error: BaseException) -> Iterator[BaseException]:
    if error.__cause__ is not None:
        yield error.__cause__
    elif error.__context__ is not None and not error.__suppress_context__:
        yield error.__context__


def _members(error: BaseException) -> tuple[BaseException, ...]:
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).exceptions
    return ()


def _chain(error: BaseException) -> Iterator[BaseException]:
    waiting, seen = [error], {id(error)}
    while waiting:
        current = waiting.pop(0)
        yield current
        for following in (*_causes(current), *_members(current)):
            if id(following) not in seen:
                seen.add(id(following))
                waiting.append(following)


def _retry_after(error: BaseException) -> float:
    asked: list[object] = [link.retry_after for link in _chain(error) if isinstance(link, TransientError)]
    pauses = [float(pause) for pause in asked if isinstance(pause, int | float) and math.isfinite(pause)]
    return min(max(0.0, *pauses, 0.0), LONGEST_PAUSE)


def _record(error: BaseException, kind: str) -> ErrorRecord:
    record = ErrorRecord.of(error, kind=kind)
    if record.because:
        return record
    causes = "; ".join(_line(link) for link in list(_chain(error))[1:4])
    return record.model_copy(update={"because": causes})


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]
