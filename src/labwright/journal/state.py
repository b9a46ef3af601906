"""What one process knows of the present: open runs and sessions, hand-outs, events that still cause work, pools.

Folded in memory from batches of the journal; each batch tells its changes, which the dispatcher acts on and the view
writes down.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from labwright.core.model import ErrorRecord, Event, FileEntry, Run, RunState, SessionSnapshot
from labwright.journal.file_fold import completed_file
from labwright.journal.fold import apply
from labwright.journal.journal import Entry
from labwright.journal.records import (
    Decided,
    FileRegistered,
    HandedOut,
    HandOut,
    PlannedRunRecord,
    PoolChanged,
    Received,
    Released,
    SessionStarted,
    SetAside,
)
from labwright.journal.schedule_fold import ScheduleEntry, apply_schedule, schedule_name
from labwright.journal.session_fold import apply_session, decoded, encoded
from labwright.journal.stay_fold import StayEntry, apply_stay


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEntry:
    """A run with the sequences of its first and newest record."""

    run: Run
    first_seq: int
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventEntry:
    """An event and how far it has come; `missing` are the runs that it must still get."""

    key: str
    event: Event
    content: str
    state: str
    first_seq: int
    seq: int
    received_at: str
    decision_json: str | None = None
    runs: tuple[PlannedRunRecord, ...] = ()
    missing: frozenset[str] = frozenset()
    error: ErrorRecord | None = None

    @property
    def decision(self) -> dict[str, Any] | None:
        """Read the decision; values that were too large for its record are marks."""
        return None if self.decision_json is None else json.loads(self.decision_json)

    @property
    def is_unreacted(self) -> bool:
        """Tell whether it still has to be decided, or its runs still have to be made."""
        return self.state in {"received", "released"} or bool(self.missing)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEntry:
    """A session with the sequences of its first and newest record; `key` is its agent and id, as in its subject."""

    key: str
    session: SessionSnapshot
    first_seq: int
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSeen:
    """A file as it was announced last, with the sequences of its first and newest record."""

    file: FileEntry
    first_seq: int
    seq: int


@dataclass(slots=True, kw_only=True)
class Changes:
    """What a batch of records has changed; `freed` are runs whose hand-outs before do not count any more."""

    seq: int = 0
    freed: set[str] = field(default_factory=set[str])
    runs: dict[str, RunEntry] = field(default_factory=dict[str, RunEntry])
    events: dict[str, EventEntry] = field(default_factory=dict[str, EventEntry])
    hand_outs: dict[str, tuple[int, HandOut]] = field(default_factory=dict[str, tuple[int, HandOut]])
    pools: dict[str, str] = field(default_factory=dict[str, str])
    sessions: dict[str, SessionEntry] = field(default_factory=dict[str, SessionEntry])
    files: dict[str, FileSeen] = field(default_factory=dict[str, FileSeen])
    stays: dict[int, StayEntry] = field(default_factory=dict[int, StayEntry])
    schedules: dict[str, ScheduleEntry] = field(default_factory=dict[str, ScheduleEntry])

    @property
    def size(self) -> int:
        """Tell how many things have changed, save the few small ones."""
        return len(self.runs) + len(self.events) + len(self.sessions) + len(self.files) + len(self.stays)


class Recall(Protocol):
    """What the present asks for what has ended, or is not kept in memory."""

    def run(self, run_id: str) -> RunEntry | None:
        """Give one run."""
        ...

    def event(self, key: str) -> EventEntry | None:
        """Give one event."""
        ...

    def session_entry(self, key: str) -> SessionEntry | None:
        """Give one session, by its agent and id as they stand in its subject."""
        ...

    def file(self, file_id: str) -> FileSeen | None:
        """Give one file."""
        ...


@dataclass(slots=True, kw_only=True)
class Present:
    """The present, as far as it is open; what has ended is asked of `recall`."""

    recall: Recall
    runs: dict[str, RunEntry] = field(default_factory=dict[str, RunEntry])
    events: dict[str, EventEntry] = field(default_factory=dict[str, EventEntry])
    hand_outs: dict[str, tuple[int, HandOut]] = field(default_factory=dict[str, tuple[int, HandOut]])
    pools: dict[str, str] = field(default_factory=dict[str, str])
    sessions: dict[str, SessionEntry] = field(default_factory=dict[str, SessionEntry])
    stays: dict[str, StayEntry] = field(default_factory=dict[str, StayEntry])
    """The newest stay of every agent that is known, by its name."""
    schedules: dict[str, ScheduleEntry] = field(default_factory=dict[str, ScheduleEntry])
    """Every durable schedule that is known, also the removed ones, by its name."""
    seq: int = 0
    _awaited: dict[str, str] = field(default_factory=dict[str, str])

    def take(self, entries: Iterable[Entry]) -> Changes:
        """Fold a batch, and tell what it has changed."""
        changes = Changes()
        takers = {
            "run": self._take_run,
            "event": self._take_event,
            "session": self._take_session,
            "agent": self._take_stay,
            "file": self._take_file,
            "dispatch": self._take_hand_outs,
            "pool": self._take_pool,
            "schedule": self._take_schedule,
        }
        for entry in entries:  # the subject tells what it may be about: an agent's key writes under some
            if (taker := takers.get(entry.subject.partition(".")[0])) is not None:
                taker(entry, changes)
            self.seq = changes.seq = entry.seq
        return changes

    def load(
        self, runs: Iterable[RunEntry], events: Iterable[EventEntry], sessions: Iterable[SessionEntry] = ()
    ) -> None:
        """Start from what the view had written down as open."""
        self.runs.update((entry.run.id, entry) for entry in runs)
        self.sessions.update((entry.key, entry) for entry in sessions)
        for entry in events:
            missing = frozenset(run.id for run in entry.runs if self._find_run(run.id) is None)
            self._keep_event(replace(entry, missing=missing))

    def clear(self) -> None:
        """Forget everything."""
        for known in (self.runs, self.events, self.hand_outs, self.pools, self.sessions, self.stays, self._awaited):
            known.clear()
        self.schedules.clear()
        self.seq = 0

    def _find_run(self, run_id: str) -> RunEntry | None:
        return self.runs.get(run_id) or self.recall.run(run_id)

    def _take_hand_outs(self, entry: Entry, changes: Changes) -> None:
        for item in entry.record.items if isinstance(entry.record, HandedOut) else ():
            if item.run in self.runs:  # else it has ended meanwhile
                self.hand_outs[item.run] = changes.hand_outs[item.run] = (entry.seq, item)

    def _take_pool(self, entry: Entry, changes: Changes) -> None:
        if isinstance(entry.record, PoolChanged):
            self.pools[entry.record.pool] = changes.pools[entry.record.pool] = entry.record.state

    def _take_run(self, entry: Entry, changes: Changes) -> None:
        run_id = entry.key
        known = changes.runs.get(run_id) or self.runs.get(run_id)
        if known is None and entry.record.type != "requested":
            known = self.recall.run(run_id)
        run = apply(known.run if known else None, entry.record, run_id)
        if run is None:
            return
        new = RunEntry(run=run, first_seq=known.first_seq if known else entry.seq, seq=entry.seq)
        changes.runs[run_id] = new
        if run.state.is_final:
            self.runs.pop(run_id, None)
            self.hand_outs.pop(run_id, None)
            changes.hand_outs.pop(run_id, None)
            changes.freed.add(run_id)
        else:
            self.runs[run_id] = new
        if known is None:
            self._seen(run_id, changes)

    def _take_session(self, entry: Entry, changes: Changes) -> None:
        key = entry.subject.partition(".")[2]
        if isinstance(entry.record, SessionStarted) and encoded(entry.record.agent) != key.partition(".")[0]:
            return  # the subject tells which agent speaks
        known = changes.sessions.get(key) or self.sessions.get(key) or self.recall.session_entry(key)
        session = apply_session(known.session if known else None, entry.record, entry.key)
        if session is None:
            return
        new = SessionEntry(key=key, session=session, first_seq=known.first_seq if known else entry.seq, seq=entry.seq)
        changes.sessions[key] = new
        if session.state.is_final:
            self.sessions.pop(key, None)
        else:
            self.sessions[key] = new

    def _take_stay(self, entry: Entry, changes: Changes) -> None:
        agent = decoded(entry.subject.partition(".")[2])
        new = apply_stay(self.stays.get(agent), entry.record, subject=entry.subject, seq=entry.seq)
        if new is not None:
            self.stays[agent] = changes.stays[new.first_seq] = new

    def _take_schedule(self, entry: Entry, changes: Changes) -> None:
        name = schedule_name(entry.subject)
        known = self.schedules.get(name)
        schedule = apply_schedule(known.schedule if known else None, entry.record, name)
        if schedule is not None:
            new = ScheduleEntry(schedule=schedule, first_seq=known.first_seq if known else entry.seq, seq=entry.seq)
            self.schedules[name] = changes.schedules[name] = new

    def _take_file(self, entry: Entry, changes: Changes) -> None:
        if not isinstance(entry.record, FileRegistered):
            return
        file = entry.record.file
        known = changes.files.get(file.id) or self.recall.file(file.id)
        first_seq = known.first_seq if known else entry.seq
        whole = completed_file(known.file, file) if known else file
        changes.files[file.id] = FileSeen(file=whole, first_seq=first_seq, seq=entry.seq)

    def _seen(self, run_id: str, changes: Changes) -> None:
        """Cross a run off the list of its event."""
        key = self._awaited.pop(run_id, None)
        known = self.events.get(key) if key else None
        if known is not None:
            new = replace(known, missing=known.missing - {run_id})
            changes.events[known.key] = new
            self._keep_event(new)

    def _take_event(self, entry: Entry, changes: Changes) -> None:
        record = entry.record
        known = changes.events.get(entry.key) or self.events.get(entry.key)
        if isinstance(record, Received):
            if known is not None or self.recall.event(entry.key) is not None:
                return
            new = EventEntry(
                key=entry.key,
                event=record.event,
                content=record.content,
                state="received",
                first_seq=entry.seq,
                seq=entry.seq,
                received_at=record.model_dump(mode="json", include={"at"})["at"],
            )
        else:
            known = known or self.recall.event(entry.key)
            if known is None:
                return
            new = self._event_after(known, entry, changes)
        changes.events[entry.key] = new
        self._keep_event(new)

    def _event_after(self, known: EventEntry, entry: Entry, changes: Changes) -> EventEntry:
        fields: dict[str, Any] = {"seq": entry.seq}
        match entry.record:
            case Decided() as decided if known.state != "decided":
                missing = frozenset(
                    run.id for run in decided.runs if run.id not in changes.runs and self._find_run(run.id) is None
                )
                fields |= {
                    "state": "decided",
                    "decision_json": decided.decision_json,
                    "runs": decided.runs,
                    "missing": missing,
                    "error": None,
                }
            case SetAside() as aside if known.state in {"received", "released"}:
                fields |= {"state": "set_aside", "error": aside.error}
            case Released() if known.state == "set_aside":
                fields |= {"state": "released", "error": None}
            case _:
                pass
        return replace(known, **fields)

    def _keep_event(self, entry: EventEntry) -> None:
        if entry.is_unreacted:
            self.events[entry.key] = entry
            self._awaited.update(dict.fromkeys(entry.missing, entry.key))
        else:
            self.events.pop(entry.key, None)


def is_handed_out(run: Run, token: int) -> bool:
    """Tell whether the hand-out with that token waits to be started or is the attempt that runs."""
    return not run.state.is_final and (token > run.token or (token == run.token and run.state is RunState.RUNNING))
