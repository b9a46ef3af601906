"""What a run's end, or its abort, means to the runs beside it: the one that made it, and those that it has made."""

from __future__ import annotations

from collections.abc import Iterator

from labwright.core.model import Run, RunState
from labwright.journal.journal import Journal
from labwright.journal.records import Aborting
from labwright.journal.state import Present, RunEntry
from labwright.run.effects import RUNS
from labwright.run.writer import RunWriter


class Kin:
    """Knows who waits for whose end, and passes an abort on from a run to its children."""

    def __init__(self, journal: Journal, present: Present) -> None:
        self._journal = journal
        self._present = present
        self._ended: dict[str, int] = {}
        """The sequence at which a child of a run has ended last, by the run's id."""

    def forget(self, run_id: str) -> None:
        """Forget a run that has ended."""
        self._ended.pop(run_id, None)

    def has_news(self, run: Run) -> bool:
        """Tell whether a child of a run that waits for children has ended since the run has looked."""
        waiting = run.waiting_for
        return waiting is not None and waiting.kind == RUNS and self._ended.get(run.id, 0) > waiting.seen

    def begin(self, run: Run) -> None:
        """Take up a run without knowing what was before: one that waits for children is to look once more."""
        waiting = run.waiting_for
        if waiting is not None and waiting.kind == RUNS:
            self._ended[run.id] = max(self._ended.get(run.id, 0), waiting.seen + 1)

    def note_end(self, entry: RunEntry) -> RunEntry | None:
        """Take up that a run has ended; gives the one that waits for it."""
        parent = self._present.runs.get(entry.run.parent or "")
        if parent is None:
            return None
        self._ended[parent.run.id] = entry.seq
        return parent if parent.run.state is RunState.WAITING else None

    def to_abort(self, entry: RunEntry) -> Iterator[RunEntry]:
        """Give the runs that must end early since the one that made them does: this one, or its children."""
        if self._is_left(entry):
            yield entry
        if entry.run.aborting is not None and not entry.run.state.is_final:
            children = [child for child in self._present.runs.values() if child.run.parent == entry.run.id]
            yield from (child for child in children if self._is_left(child))

    async def abort(self, entry: RunEntry) -> None:
        """Have a run ended early because the one that made it is, if that still holds."""
        if not self._is_left(entry):
            return  # both were opened again, and this was heard in what came before
        writer = RunWriter(self._journal, entry.run, entry.seq)
        record = Aborting(by=entry.run.by, reason=f"{entry.run.parent}, which made it, was aborted")
        await writer.append(record, while_=lambda run: not run.state.is_final and run.aborting is None)

    def _is_left(self, entry: RunEntry) -> bool:
        """Tell whether a run goes on although the one that made it was aborted."""
        run = entry.run
        if run.parent is None or run.state.is_final or run.aborting is not None:
            return False
        parent = self._present.runs.get(run.parent) or self._present.recall.run(run.parent)
        if parent is None or (run.alone and parent.run.state.is_final):
            return False
        return parent.run.aborting is not None or parent.run.state is RunState.ABORTED
