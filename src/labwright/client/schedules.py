"""What people do to durable schedules: each act is a record, fenced by what was known of them."""

from __future__ import annotations

from dataclasses import dataclass

from labwright.core.errors import ConflictError, NotFoundError, UsageError
from labwright.core.ids import checked_name
from labwright.journal.journal import Journal, MovedError
from labwright.journal.records import (
    Record,
    ScheduleDefined,
    ScheduleFired,
    SchedulePaused,
    ScheduleRemoved,
    ScheduleResumed,
    ScheduleSkipped,
)
from labwright.journal.schedule_fold import fold_schedule, schedule_subject
from labwright.plan.durable import ScheduleDefinition, ScheduleSnapshot, ScheduleState

PATIENCE_S = 10.0
CHANGES = ("pause", "resume", "fire", "skip", "remove")
MOST_SKIPPED = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ScheduleActs:
    """Writes what somebody does to schedules, under their name and role."""

    journal: Journal
    by: str
    role: str

    async def add(self, name: str, definition: ScheduleDefinition) -> int:
        """Add a schedule; the same again is the one that is there. See `AsyncLab.add_schedule`."""
        checked_name(name, "schedule")
        record = ScheduleDefined(definition=definition, by=self.by, role=self.role)
        while True:
            known, seq = await self._read(name)
            if known is not None and known.state is not ScheduleState.REMOVED:
                if known.definition == definition:
                    return seq
                raise ConflictError(
                    f"there is another schedule {name!r}",
                    because=f"{known.by or known.origin} has added it, and it says something else",
                    cure=f"choose another name, or first: labwright schedules remove {name}",
                )
            try:
                return await self.journal.append(schedule_subject(name), record, after=seq, patience_s=PATIENCE_S)
            except MovedError:
                continue

    async def change(self, name: str, change: str, *, count: int = 1) -> int:
        """Do something to a schedule; see `AsyncLab.change_schedule`."""
        record = self._record(change, count)
        while True:
            known, seq = await self._read(name)
            if known is None or known.state is ScheduleState.REMOVED:
                raise NotFoundError(
                    f"there is no schedule {name!r}",
                    because="nobody has added it, or it has been removed",
                    cure="see labwright schedules list",
                )
            _check(known, change)
            try:
                return await self.journal.append(schedule_subject(name), record, after=seq, patience_s=PATIENCE_S)
            except MovedError:  # a tick, most likely
                continue

    def _record(self, change: str, count: int) -> Record:
        match change:
            case "pause":
                return SchedulePaused(by=self.by)
            case "resume":
                return ScheduleResumed(by=self.by)
            case "fire":
                return ScheduleFired(by=self.by)
            case "skip":
                if not 1 <= count <= MOST_SKIPPED:
                    raise UsageError(
                        f"{count} points cannot be skipped",
                        because=f"it is 1 to {MOST_SKIPPED} at a time",
                        cure="skip fewer, or pause the schedule",
                    )
                return ScheduleSkipped(by=self.by, count=count)
            case "remove":
                return ScheduleRemoved(by=self.by)
            case _:
                raise UsageError(
                    f"a schedule has no {change!r}",
                    because=f"what can be done is {', '.join(CHANGES)}",
                    cure="use one of these",
                )

    async def _read(self, name: str) -> tuple[ScheduleSnapshot | None, int]:
        entries = await self.journal.read(schedule_subject(name))
        return fold_schedule((entry.record for entry in entries), name), entries[-1].seq if entries else 0


def _check(known: ScheduleSnapshot, change: str) -> None:
    """Refuse what would change nothing, or what the next reload would undo."""
    if change == "pause" and not known.is_active:
        raise ConflictError(
            f"{known.name} is paused already",
            because=known.reason or "somebody has paused it",
            cure=f"nothing is to be done; to go on: labwright schedules resume {known.name}",
        )
    if change == "resume" and known.is_active:
        raise ConflictError(
            f"{known.name} is not paused",
            because="only a paused schedule can be resumed",
            cure=f"see when it is due: labwright schedules preview {known.name}",
        )
    if change == "remove" and known.origin == "site":
        raise ConflictError(
            f"{known.name} belongs to the site",
            because="its package holds it, and the next reload would bring it back",
            cure=f"delete it there, then labwright reload; or labwright schedules pause {known.name}",
        )
