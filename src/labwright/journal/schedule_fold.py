"""The fold of durable schedules: where one stands after a record of its subject. Pure.

A record that does not fit, such as a tick for a definition that has been replaced, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from labwright.journal.records import (
    Record,
    ScheduleDefined,
    ScheduleFired,
    SchedulePaused,
    ScheduleRemoved,
    ScheduleResumed,
    ScheduleSkipped,
    ScheduleTicked,
)
from labwright.journal.session_fold import decoded, encoded
from labwright.plan.durable import DuePoint, PauseSpan, ScheduleSnapshot, ScheduleState, before

MOST_ROWS = 200
"""How many rows of points without runs are kept; the journal has all of them."""
MOST_FIRES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleEntry:
    """A schedule with the sequences of its first and newest record."""

    schedule: ScheduleSnapshot
    first_seq: int
    seq: int


def schedule_subject(name: str) -> str:
    """Give the subject under which the records of a schedule stand."""
    return f"schedule.{encoded(name)}"


def schedule_name(subject: str) -> str:
    """Give the name of the schedule whose records stand under a subject."""
    return decoded(subject.partition(".")[2])


def fold_schedule(records: Iterable[Record], name: str) -> ScheduleSnapshot | None:
    """Give where a schedule stands after all these records, in their order."""
    schedule: ScheduleSnapshot | None = None
    for record in records:
        schedule = apply_schedule(schedule, record, name)
    return schedule


def apply_schedule(schedule: ScheduleSnapshot | None, record: Record, name: str) -> ScheduleSnapshot | None:
    """Give where a schedule stands after one more record; only `schedule_defined` may be the first."""
    if isinstance(record, ScheduleDefined):
        return _defined(schedule, record, name)
    if schedule is None or schedule.state is ScheduleState.REMOVED:
        return schedule
    match record:
        case SchedulePaused() if schedule.is_active:
            changes: dict[str, Any] = {
                "state": ScheduleState.PAUSED,
                "paused_at": record.at,
                "reason": record.reason,
            }
        case ScheduleResumed() if schedule.paused_at is not None:
            changes = _resumed(schedule, record)
        case ScheduleSkipped():
            changes = {"skips": schedule.skips + record.count}
        case ScheduleFired() if len(schedule.fires) < MOST_FIRES:
            point = DuePoint(planned_at=record.at, due_at=record.at, fired=record.record_id)
            changes = {"fires": (*schedule.fires, point)}
        case ScheduleRemoved():
            changes = {"state": ScheduleState.REMOVED, "waiting": (), "fires": (), "paused_at": None, "pauses": ()}
        case ScheduleTicked() if record.generation == schedule.generation:
            changes = _ticked(schedule, record)
        case _:
            return schedule
    return schedule.model_copy(update=changes)


def _defined(former: ScheduleSnapshot | None, record: ScheduleDefined, name: str) -> ScheduleSnapshot:
    """Begin anew; one that was paused stays so, whatever else has changed."""
    stays_paused = former is not None and former.state is ScheduleState.PAUSED
    return ScheduleSnapshot(
        name=name,
        generation=record.record_id,
        definition=record.definition,
        origin=record.origin,
        by=record.by,
        role=record.role,
        state=ScheduleState.PAUSED if stays_paused else ScheduleState.ACTIVE,
        reason=former.reason if stays_paused and former else "",
        defined_at=record.at,
        watermark=before(record.at),
        counted_to=before(record.at),
        paused_at=record.at if stays_paused else None,
        rows=former.rows if former and former.state is not ScheduleState.REMOVED else (),
    )


def _resumed(schedule: ScheduleSnapshot, record: ScheduleResumed) -> dict[str, Any]:
    began = schedule.paused_at or record.at
    span = PauseSpan(from_at=began, to_at=max(began, record.at))
    return {
        "state": ScheduleState.ACTIVE,
        "paused_at": None,
        "reason": "",
        "pauses": (*schedule.pauses, span),
        "moved_s": schedule.moved_s + (span.to_at - span.from_at).total_seconds(),
    }


def _ticked(schedule: ScheduleSnapshot, record: ScheduleTicked) -> dict[str, Any]:
    watermark = max(schedule.watermark, record.watermark)
    counted_to = schedule.counted_to
    if watermark > schedule.watermark:
        counted_to = max(counted_to, watermark - timedelta(seconds=schedule.moved_s))
    return {
        "watermark": watermark,
        "counted_to": counted_to,
        "waiting": record.waiting,
        "skips": record.skips,
        "fires": tuple(point for point in schedule.fires if point.fired not in record.fired),
        "pauses": tuple(span for span in schedule.pauses if span.to_at > watermark),
        "rows": (*schedule.rows, *record.missed)[-MOST_ROWS:],
    }
