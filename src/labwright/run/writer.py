"""How the records of one run are written by whoever may: fenced, and again after others have written in between."""

from __future__ import annotations

from collections.abc import Callable

from labwright.core.model import Run
from labwright.journal.fold import apply
from labwright.journal.journal import Entry, Journal, MovedError
from labwright.journal.records import Record


class RunWriter:
    """A run as far as its writer knows it; each refusal brings it up to date."""

    def __init__(self, journal: Journal, run: Run, seq: int) -> None:
        self.run = run
        self.seq = seq
        self._journal = journal

    @property
    def subject(self) -> str:
        """Where the run's records are."""
        return f"run.{self.run.id}"

    async def append(self, record: Record, *, while_: Callable[[Run], bool], patience_s: float | None = None) -> bool:
        """Write a record as long as the run is such that it may be written; tells whether it was.

        Raises:
            FateUnknownError: the server did not answer within `patience_s` (None: wait for ever).
        """
        while while_(self.run):
            try:
                seq = await self._journal.append(self.subject, record, after=self.seq, patience_s=patience_s)
            except MovedError as error:
                for entry in error.entries:
                    self.take(entry)
            else:
                self._fold(record, seq)
                return True
        return False

    def take(self, entry: Entry) -> None:
        """Fold a record that somebody else has written."""
        if entry.seq > self.seq:
            self._fold(entry.record, entry.seq)

    def _fold(self, record: Record, seq: int) -> None:
        run = apply(self.run, record, self.run.id)
        if run is not None:
            self.run = run
        self.seq = seq
