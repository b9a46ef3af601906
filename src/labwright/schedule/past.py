"""What the lines of a row file tell about a schedule whose process died."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from labwright.schedule.line_checks import Line
from labwright.schedule.orders import FIRED, Key, Past, Reached
from labwright.schedule.rows import MOMENTS, Outcome, Row, row_from_dict


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """A schedule as a dead process left it."""

    started_at: datetime
    plan: str
    past: Past
    rows: list[Row]
    fired: dict[Key, Row]
    """Rows for points that were fired or inserted and ran when the process died: no course reaches them again."""


def remembered(lines: list[Line], wall: datetime) -> Remembered:
    """Fold the lines of one run, for a process that starts at that time."""
    first = lines[0]
    started_at = datetime.fromisoformat(first["at"])
    rows = {_key(line): line for line in lines if line["record"] == "row"}
    begun = {_key(line): line for line in lines if line["record"] == "begun" and _key(line) not in rows}
    strands = [key[0] for key in (*rows, *begun)]
    numbers = [line["point"] or 0 for line in (*rows.values(), *begun.values())]
    past = Past(
        done={key: _reached(line, started_at) for key, line in rows.items() if key[0] >= 0},
        interrupted={key: line["point"] for key, line in begun.items() if key[0] >= 0},
        count=max(numbers, default=0),
        fired=max((key[1] for key in (*rows, *begun) if key[0] == FIRED), default=0),
        inserted=max(0, FIRED - min(strands, default=0)),
        now_s=(wall - started_at).total_seconds(),
        **_pauses(lines),
    )
    return Remembered(
        started_at=started_at,
        plan=first["plan"],
        past=past,
        rows=[row_from_dict(line["row"]) for line in rows.values()],
        fired=dict(_fired(begun)),
    )


def _key(line: Line) -> Key:
    return line["key"][0], line["key"][1]


def _reached(line: Line, started_at: datetime) -> Reached:
    due_at = line["row"]["due_at"]
    planned_s = (datetime.fromisoformat(due_at) - started_at).total_seconds() if due_at else 0.0
    return Reached(planned_s, line["started_s"], line["ended_s"], line["paused_s"])


def _pauses(lines: list[Line]) -> dict[str, Any]:
    total, since = 0.0, None
    for line in lines:
        if line["record"] == "paused":
            since = line["elapsed_s"]
        elif line["record"] == "resumed" and since is not None:
            total, since = total + line["elapsed_s"] - since, None
    return {"paused_s": total, "paused_since_s": since}


def _fired(begun: dict[Key, Line]) -> Iterator[tuple[Key, Row]]:
    for key, line in begun.items():
        if key[0] < 0:
            moments: dict[str, Any] = {name: line[name] and datetime.fromisoformat(line[name]) for name in MOMENTS[:2]}
            reason = "the process died while the point ran"
            yield (
                key,
                Row(point=line["point"], name=line["name"], outcome=Outcome.INTERRUPTED, reason=reason, **moments),
            )
