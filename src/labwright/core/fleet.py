"""The answer of a fleet: one honest row for each target, and whether enough of them succeeded."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from pydantic import Field
from pydantic_core import to_json

from labwright.core.errors import FleetFailedError
from labwright.core.model import ErrorRecord, Model, OperationKind, SessionSnapshot, SessionState

MOST_NAMED = 10
ROW_BYTES = 16 * 1024
LEFT_OUT = "$left_out"
"""The one key of what stands for a value that is too large for its place; its value is the size in bytes."""


class Outcome(StrEnum):
    """What became of an operation on one target.

    `timeout`: its deadline passed while it ran. `unreachable`: it never answered, or went away. `refused`: it answered
    that it does not do it (a lock, a role, a parameter). `skipped`: it was never started.
    """

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    ABORTED = "aborted"
    SKIPPED = "skipped"


OUTCOMES = {
    SessionState.SUCCEEDED: Outcome.SUCCEEDED,
    SessionState.ABORTED: Outcome.ABORTED,
    SessionState.LOST: Outcome.UNREACHABLE,
}


class FleetRow(Model):
    """What became of one target, in a session of its agent, or in a run on it.

    `duration_s` is from the command to the end, in seconds, None if it never began. In place of a large `result` its
    size stands, as `{"$left_out": bytes}`: the session, or the run, has all of it.
    """

    outcome: Outcome
    session: str | None = None
    run: str | None = None
    result: Any = None
    error: ErrorRecord | None = None
    duration_s: float | None = None

    @classmethod
    def of(cls, session: SessionSnapshot, duration_s: float | None = None) -> Self:
        """Give the row of a session: of one that has ended, or of a process, which has succeeded once it runs."""
        took = session.ended_at - session.started_at if session.ended_at is not None else None
        return cls(
            outcome=outcome_of(session),
            session=session.id,
            result=light(session.result),
            error=session.error,
            duration_s=duration_s if took is None else took.total_seconds(),
        )


class FleetResult(Model):
    """What became of an operation on a fleet: `targets` has a row for each, `quorum` is how many had to succeed."""

    operation: str
    selector: str
    succeeded: bool
    quorum: int
    targets: dict[str, FleetRow] = Field(default_factory=dict[str, FleetRow])

    @classmethod
    def of(cls, operation: str, selector: str, quorum: int, targets: Mapping[str, FleetRow]) -> Self:
        """Sum up the rows."""
        good = sum(row.outcome is Outcome.SUCCEEDED for row in targets.values())
        return cls(
            operation=operation, selector=selector, succeeded=good >= quorum, quorum=quorum, targets=dict(targets)
        )

    @property
    def rows(self) -> dict[str, FleetRow]:
        """The rows by target, sorted by name."""
        return dict(sorted(self.targets.items()))

    @property
    def counts(self) -> dict[str, int]:
        """How many targets had which outcome; what nobody had is left out."""
        found = [row.outcome for row in self.targets.values()]
        return {outcome.value: count for outcome in Outcome if (count := found.count(outcome))}

    def raise_if_failed(self) -> None:
        """Insist on success.

        Raises:
            FleetFailedError: fewer targets than the quorum have succeeded.
        """
        if self.succeeded:
            return
        good = self.counts.get("succeeded", 0)
        bad = [_reason(name, row) for name, row in self.rows.items() if row.outcome is not Outcome.SUCCEEDED]
        more = f", and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else ""
        raise FleetFailedError(
            f"{self.operation} succeeded on {good} of {len(self.targets)} targets; {self.quorum} had to succeed",
            because="; ".join(bad[:MOST_NAMED]) + more,
            cure="see each row's error; what has not succeeded can be tried again",
            result=self,
        )


def _reason(name: str, row: FleetRow) -> str:
    because = f" ({row.error.message[:120]})" if row.error is not None else ""
    return f"{name} {row.outcome}{because}"


def light(result: Any) -> Any:
    """Give a result as it stands in a row: its size where it is large."""
    size = len(to_json(result))
    return result if size <= ROW_BYTES else {LEFT_OUT: size}


def outcome_of(session: SessionSnapshot) -> Outcome:
    """Tell what a session came to, as the outcome of its target."""
    if not session.state.is_final:
        return Outcome.SUCCEEDED if session.kind is OperationKind.PROCESS else Outcome.TIMEOUT
    by_kind = {"timeout": Outcome.TIMEOUT, "refused": Outcome.REFUSED}
    kind = session.error.kind if session.error is not None else ""
    return OUTCOMES.get(session.state) or by_kind.get(kind, Outcome.FAILED)
