"""A row for every time point: when it was planned and when it ran, how it ended, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from labwright.core.clock import to_text
from labwright.core.errors import LabwrightError
from labwright.core.plain import to_plain


class Outcome(StrEnum):
    """What became of a time point."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED_BUSY = "skipped_busy"
    SKIPPED_LATE = "skipped_late"
    MISSED_PAUSED = "missed_paused"
    MISSED_DOWN = "missed_down"
    ABORTED = "aborted"
    INTERRUPTED = "interrupted"
    BYPASSED = "bypassed"


class Results:
    """What the actions of one point returned, by position or by label.

    >>> results = Results({"take_sample": 1.5, "inject": None})
    >>> results[0], results["take_sample"], results.labels
    (1.5, 1.5, ('take_sample', 'inject'))
    """

    def __init__(self, by_label: dict[str, Any]) -> None:
        self._by_label = dict(by_label)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the actions that returned, in their order."""
        return tuple(self._by_label)

    def as_dict(self) -> dict[str, Any]:
        """Give the results by label."""
        return dict(self._by_label)

    def __getitem__(self, which: int | str) -> Any:
        return self._by_label[which] if isinstance(which, str) else list(self._by_label.values())[which]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._by_label.values())

    def __len__(self) -> int:
        return len(self._by_label)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Results) and self._by_label == other._by_label

    __hash__ = None  # pyright: ignore[reportAssignmentType] - results may hold anything

    def __repr__(self) -> str:
        return f"Results({self._by_label!r})"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one time point; `point` counts the planned ones from 1 and is None for one fired by hand."""

    point: int | None
    name: str = ""
    planned_at: datetime | None = None
    due_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    lateness_s: float | None = None
    outcome: Outcome
    reason: str = ""
    args: dict[str, Any] = field(default_factory=dict[str, Any])
    result: Results = field(default_factory=lambda: Results({}))
    error: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Give the row in a form that JSON can say, whatever the actions returned."""
        plain = {each: getattr(self, each) for each in FIELDS}
        for name in MOMENTS:
            plain[name] = None if plain[name] is None else to_text(plain[name])
        return {**plain, "outcome": str(self.outcome), **_values(self)}


FIELDS = tuple(each.name for each in fields(Row))
MOMENTS = ("planned_at", "due_at", "started_at", "ended_at")


def row_from_dict(plain: dict[str, Any]) -> Row:
    """Read a row back from what `as_dict` gave."""
    moments = {name: plain[name] and datetime.fromisoformat(plain[name]) for name in MOMENTS}
    row = Row(point=plain["point"], outcome=Outcome(plain["outcome"]))
    others = {name: plain[name] for name in ("name", "lateness_s", "reason", "args", "error")}
    return replace(row, **moments, **others, result=Results(plain["result"]))


def error_of(error: BaseException) -> dict[str, Any]:
    """Describe what an action raised, in the one shape of errors."""
    known = error if isinstance(error, LabwrightError) else None
    return {
        "kind": known.kind if known else "bug",
        "message": _told(error),
        "because": (known.because if known else "") or type(error).__name__,
        "try": known.cure if known else "",
    }


def _told(error: BaseException) -> str:
    try:
        return str(error) or type(error).__name__
    except Exception:  # noqa: BLE001 - a stranger's __str__ may raise anything
        return type(error).__name__


def _values(row: Row) -> dict[str, Any]:
    return {"args": to_plain(row.args), "result": to_plain(row.result.as_dict()), "error": to_plain(row.error)}
