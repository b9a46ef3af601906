"""How what the view holds is written as rows and read back, and how filters of questions become conditions. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from labwright.core.errors import UsageError
from labwright.core.model import AgentStay, ErrorRecord, Event, FileEntry, Run, RunState, SessionSnapshot, SessionState
from labwright.journal.records import PlannedRunRecord
from labwright.journal.schedule_fold import ScheduleEntry
from labwright.journal.state import EventEntry, FileSeen, RunEntry, SessionEntry
from labwright.journal.stay_fold import StayEntry
from labwright.plan.durable import ScheduleSnapshot

RUNS = "SELECT body, first_seq, seq FROM runs"
EVENTS = "SELECT key, first_seq, seq, state, received_at, event, decision, runs, error FROM events"
SESSIONS = "SELECT key, body, first_seq, seq FROM sessions"
FILES = "SELECT body, first_seq, seq FROM files"
STAYS = "SELECT body, owner, first_seq, seq FROM stays"
SCHEDULES = "SELECT body, first_seq, seq FROM schedules"
_PLANNED = TypeAdapter(tuple[PlannedRunRecord, ...])


# --- rows ------------------------------------------------------------------------------------------------------------


def run_row(entry: RunEntry) -> tuple[Any, ...]:
    """Write a run."""
    run = entry.run
    return (
        run.id,
        entry.first_seq,
        entry.seq,
        run.task,
        run.target,
        run.state.value,
        run.cause.kind,
        run.cause.id,
        run.parent,
        _sortable(run.requested_at),
        int(not run.state.is_final),
        run.model_dump_json(by_alias=True, exclude_defaults=True),
    )


def run_entry(row: Sequence[Any]) -> RunEntry:
    """Read a run."""
    return RunEntry(run=Run.model_validate_json(row[0]), first_seq=row[1], seq=row[2])


def event_row(entry: EventEntry) -> tuple[Any, ...]:
    """Write an event."""
    return (
        entry.key,
        entry.first_seq,
        entry.seq,
        entry.event.id,
        entry.event.source,
        entry.event.type,
        entry.event.subject,
        entry.state,
        entry.received_at,
        int(entry.is_unreacted),
        json.dumps({"event": entry.event.model_dump(mode="json"), "content": entry.content}),
        entry.decision_json,
        _PLANNED.dump_json(entry.runs, by_alias=True, exclude_defaults=True).decode(),
        None if entry.error is None else entry.error.model_dump_json(by_alias=True),
    )


def event_entry(row: Sequence[Any]) -> EventEntry:
    """Read an event."""
    stored = json.loads(row[5])
    return EventEntry(
        key=row[0],
        first_seq=row[1],
        seq=row[2],
        state=row[3],
        received_at=row[4],
        event=Event.model_validate(stored["event"]),
        content=stored["content"],
        decision_json=row[6],
        runs=_PLANNED.validate_json(row[7]) if row[7] else (),
        error=ErrorRecord.model_validate_json(row[8]) if row[8] else None,
    )


def session_row(entry: SessionEntry) -> tuple[Any, ...]:
    """Write a session."""
    session = entry.session
    return (
        entry.key,
        session.id,
        entry.first_seq,
        entry.seq,
        session.agent,
        session.operation,
        session.run,
        session.state.value,
        _sortable(session.started_at),
        int(not session.state.is_final),
        session.model_dump_json(by_alias=True, exclude_defaults=True),
    )


def session_entry(row: Sequence[Any]) -> SessionEntry:
    """Read a session."""
    session = SessionSnapshot.model_validate_json(row[1])
    return SessionEntry(key=row[0], session=session, first_seq=row[2], seq=row[3])


def file_row(entry: FileSeen) -> tuple[Any, ...]:
    """Write a file."""
    file = entry.file
    return (
        file.id,
        entry.first_seq,
        entry.seq,
        file.agent,
        file.session,
        file.action,
        file.kind,
        file.path,
        _sortable(file.registered_at),
        file.model_dump_json(exclude_defaults=True),
    )


def file_seen(row: Sequence[Any]) -> FileSeen:
    """Read a file."""
    return FileSeen(file=FileEntry.model_validate_json(row[0]), first_seq=row[1], seq=row[2])


def stay_row(entry: StayEntry) -> tuple[Any, ...]:
    """Write a stay."""
    stay = entry.stay
    return (
        entry.first_seq,
        entry.seq,
        stay.agent,
        entry.owner,
        _sortable(stay.gone_at) if stay.gone_at else None,
        stay.model_dump_json(by_alias=True, exclude_defaults=True),
    )


def stay_entry(row: Sequence[Any]) -> StayEntry:
    """Read a stay."""
    return StayEntry(stay=AgentStay.model_validate_json(row[0]), owner=row[1], first_seq=row[2], seq=row[3])


def schedule_row(entry: ScheduleEntry) -> tuple[Any, ...]:
    """Write a durable schedule."""
    body = entry.schedule.model_dump_json(exclude_defaults=True)
    return (entry.schedule.name, entry.first_seq, entry.seq, body)


def schedule_entry(row: Sequence[Any]) -> ScheduleEntry:
    """Read a durable schedule."""
    return ScheduleEntry(schedule=ScheduleSnapshot.model_validate_json(row[0]), first_seq=row[1], seq=row[2])


# --- filters ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Filters:
    """By what a kind of thing can be filtered: columns (or conditions) by the filter's name, its states, its moment."""

    things: str
    thing: str
    columns: Mapping[str, str]
    states: type[StrEnum] | None = None
    moment: str

    def conditions(self, given: Mapping[str, Any]) -> Where:
        """Give what rows must fulfil; a filter that is None is none.

        Raises:
            UsageError: an unknown filter or state, or no moment.
        """
        where = Where()
        for name, value in given.items():
            if value is None:
                continue
            if name == "state" and self.states is not None:
                self._add_state(where, [self._state(text.strip()) for text in str(value).split(",")])
            elif name == "since":
                where.add(f"{self.moment} >= ?", _moment(str(value)))
            elif name in self.columns:
                column = self.columns[name]
                where.add(column if "?" in column else f"{column} = ?", value)
            else:
                known = [*self.columns, *(["state"] if self.states else []), "since"]
                message = f"{self.things} cannot be filtered by {name!r}"
                raise UsageError(message, because=f"the filters are {', '.join(known)}")
        return where

    def _add_state(self, where: Where, states: Sequence[str]) -> None:
        where.add(f"state IN ({', '.join('?' * len(states))})", *states)

    def _state(self, text: str) -> str:
        states = self.states or StrEnum
        try:
            return states(text).value
        except ValueError as error:
            message = f"{text!r} is no state of a {self.thing}"
            raise UsageError(message, because=f"the states are {', '.join(states)}", cure="use one of them") from error


@dataclass(frozen=True, kw_only=True)
class SessionFilters(Filters):
    """The filters of sessions: one that is open while its agent is absent counts as lost.

    `present` are the agents that are here; None where that is not known.
    """

    present: Collection[str] | None = None

    def _add_state(self, where: Where, states: Sequence[str]) -> None:
        if self.present is None:
            super()._add_state(where, states)
            return
        marks = ", ".join("?" * len(states))
        is_lost = "is_open = 1 AND agent NOT IN (SELECT value FROM json_each(?))"
        where.add(
            f"(state IN ({marks}) OR is_open = 1) AND CASE WHEN {is_lost} THEN 'lost' ELSE state END IN ({marks})",
            *states,
            json.dumps(sorted(self.present)),
            *states,
        )


@dataclass(frozen=True)
class Where:
    """Conditions that rows must fulfil, and the values in them."""

    parts: list[str] = field(default_factory=list[str])
    values: list[Any] = field(default_factory=list[Any])

    def add(self, part: str, *values: Any) -> None:
        """Add a condition."""
        self.parts.append(part)
        self.values.extend(values)

    def before(self, cursor: str | None) -> None:
        """Begin where the page before has ended.

        Raises:
            UsageError: that is no cursor.
        """
        if cursor is not None:
            self.add("first_seq < ?", _cursor(cursor))

    def __str__(self) -> str:
        return " AND ".join(self.parts) or "1"


TREE = (
    "id IN (WITH RECURSIVE caused (run) AS (SELECT id FROM runs WHERE cause_id = ? "
    "UNION SELECT runs.id FROM runs JOIN caused ON runs.parent = caused.run) SELECT run FROM caused)"
)
"""What something has caused, and what followed from that."""
RUN_FILTERS = Filters(
    things="runs",
    thing="run",
    columns={"task": "task", "target": "target", "cause": "cause_id", "tree": TREE, "parent": "parent"},
    states=RunState,
    moment="requested_at",
)
FILE_FILTERS = Filters(
    things="files",
    thing="file",
    columns={"agent": "agent", "session": "session", "action": "action", "kind": "kind", "path": "path"},
    moment="registered_at",
)
STAY_FILTERS = Filters(things="stays", thing="stay", columns={"agent": "agent"}, moment="coalesce(gone_at, '9999')")


def session_filters(present: Collection[str] | None) -> SessionFilters:
    """Give the filters of sessions while these agents are here."""
    return SessionFilters(
        things="sessions",
        thing="session",
        columns={"agent": "agent", "operation": "operation", "run": "run"},
        states=SessionState,
        moment="started_at",
        present=present,
    )


def _moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{text!r} is no moment"
        raise UsageError(message, because="a moment is written like 2026-01-02T03:04:05Z", cure="mend it") from error
    return _sortable(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _sortable(moment: datetime) -> str:
    """Write a moment so that the order of the texts is that of the moments."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _cursor(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        message = f"{text!r} is no cursor"
        raise UsageError(message, because="a cursor is what next_cursor of the page before said") from error
