"""What a running lab answers about durable schedules: which there are, what became of their points, what comes next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from labwright.core.clock import to_text
from labwright.core.errors import NotFoundError
from labwright.core.model import Run, RunState
from labwright.plan.durable import ScheduleSnapshot, ScheduleState
from labwright.plan.point_forms import words
from labwright.plan.ticking import preview
from labwright.run.folding import Folding

MOST_ROWS = 50
HIDDEN = {"definition", "rows", "waiting", "fires", "pauses", "generation", "counted_to"}


class ScheduleAnswers:
    """Answers questions about durable schedules."""

    def __init__(self, folding: Folding) -> None:
        self._folding = folding

    async def ask_schedules(self) -> list[dict[str, Any]]:
        """List the durable schedules by name."""
        return [self._summary(schedule) for schedule in self._known()]

    async def ask_schedule(self, name: str, limit: int = MOST_ROWS) -> dict[str, Any]:
        """Give one schedule with its newest rows: one for each point, newest first."""
        schedule = self._named(name)
        return {
            **self._summary(schedule),
            "definition": schedule.definition.model_dump(mode="json"),
            "waiting": [to_text(point.planned_at) for point in schedule.waiting],
            "rows": self._rows(schedule, limit),
        }

    async def ask_schedule_preview(self, name: str, count: int = 10) -> dict[str, Any]:
        """Give the moments at which a schedule is due next."""
        schedule = self._named(name)
        points = preview(schedule, count)
        return {"zone": schedule.definition.zone, "due_at": [to_text(point.due_at) for point in points]}

    def _known(self) -> list[ScheduleSnapshot]:
        entries = sorted(self._folding.present.schedules.items())
        return [entry.schedule for _, entry in entries if entry.schedule.state is not ScheduleState.REMOVED]

    def _named(self, name: str) -> ScheduleSnapshot:
        known = {schedule.name: schedule for schedule in self._known()}
        if name not in known:
            raise no_schedule(name, known)
        return known[name]

    def _summary(self, schedule: ScheduleSnapshot) -> dict[str, Any]:
        """Give what a list shows of a schedule."""
        definition = schedule.definition
        coming = preview(schedule, 1)

        return {
            **schedule.model_dump(mode="json", exclude=HIDDEN),
            "task": definition.task,
            "on": definition.on,
            "when": words(definition.points),
            "zone": definition.zone,
            "next_at": to_text(coming[0].due_at) if coming and schedule.is_active else None,
            "open": sum(_is_of(entry.run, schedule.name) for entry in self._folding.present.runs.values()),
        }

    def _rows(self, schedule: ScheduleSnapshot, limit: int) -> list[dict[str, Any]]:
        runs, _ = self._folding.view.runs({"cause": schedule.name}, limit=limit)
        made: dict[datetime, list[Run]] = {}
        for run in runs:
            if _is_of(run, schedule.name) and run.cause.point is not None:
                made.setdefault(run.cause.point, []).append(run)
        rows = [_row_of(point, of_point) for point, of_point in made.items()]
        rows += [{**missed.model_dump(mode="json", exclude={"fired", "name"}), "runs": []} for missed in schedule.rows]
        return sorted(rows, key=lambda row: datetime.fromisoformat(row["planned_at"]), reverse=True)[:limit]


def no_schedule(name: str, known: Iterable[str]) -> NotFoundError:
    """Give the error that there is no schedule of that name."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return NotFoundError(
        f"there is no schedule {name!r}",
        because=f"the schedules are: {', '.join(names) or 'none'}",
        cure=f"did you mean {near[0]!r}?" if near else "see labwright schedules list",
    )


def _is_of(run: Run, name: str) -> bool:
    return run.cause.kind == "schedule" and run.cause.id == name


def _row_of(point: datetime, runs: list[Run]) -> dict[str, Any]:
    """Give the row of a point that has runs; they are what becomes of it."""
    states = {run.state for run in runs}
    unfinished = [state for state in RunState if state in states and not state.is_final]
    bad = [state for state in (RunState.FAILED, RunState.EXPIRED, RunState.ABORTED) if state in states]
    outcome = (unfinished or bad or [RunState.SUCCEEDED])[0]
    error = next((run.error for run in runs if run.error is not None), None)
    return {
        "planned_at": to_text(point),
        "due_at": to_text(point),
        "outcome": outcome.value,
        "reason": error.message if error else "",
        "runs": [run.id for run in runs],
    }
