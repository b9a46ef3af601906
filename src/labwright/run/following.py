"""Waiting for all that follows: an event with its runs, or runs with their children, folded as their records come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from labwright.core.model import ErrorRecord, Run
from labwright.journal.fold import apply
from labwright.journal.journal import Entry
from labwright.journal.records import Decided, Requested, SetAside


@dataclass(frozen=True, kw_only=True)
class Update:
    """Something happened to what is waited for: an event was decided or set aside, or a run has a new state."""

    run: Run | None = None
    decided: dict[str, Any] | None = None
    set_aside: ErrorRecord | None = None


@dataclass(kw_only=True)
class Following:
    """What is waited for, as far as it has come."""

    event: str | None = None
    open: set[str] = field(default_factory=set[str])
    runs: dict[str, Run] = field(default_factory=dict[str, Run])

    @property
    def has_ended(self) -> bool:
        """Tell whether all of it has ended."""
        return self.event is None and not self.open

    def take(self, entry: Entry) -> Iterator[Update]:
        """Take up a record, and tell what it changes of what is waited for."""
        record = entry.record
        if entry.subject == f"event.{self.event}":
            if isinstance(record, Decided):
                self.event = None
                self.open.update(planned.id for planned in record.runs)
                yield Update(decided=json.loads(record.decision_json))
            elif isinstance(record, SetAside):
                self.event = None
                yield Update(set_aside=record.error)
            return
        run_id = entry.key
        is_child = isinstance(record, Requested) and record.parent in self.runs
        if run_id not in self.open and not is_child:
            return
        run = apply(self.runs.get(run_id), record, run_id)
        if run is None:
            return
        self.runs[run_id] = run
        if run.state.is_final:
            self.open.discard(run_id)
        else:
            self.open.add(run_id)
        yield Update(run=run)
