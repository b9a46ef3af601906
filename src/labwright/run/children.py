"""What has become of child runs, as the run that waits for them asks the journal."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence

from labwright.core.ids import hashed_id
from labwright.core.model import Run, RunState
from labwright.journal.fold import fold
from labwright.journal.journal import Journal
from labwright.journal.records import Aborting, Finished, Record, Reopened
from labwright.run.writer import RunWriter

SURE = frozenset(
    {
        "requested",
        "approved",
        "started",
        "step_started",
        "step_ended",
        "waiting",
        "retrying",
        "aborting",
        "reopened",
    }
)
"""Records after which a run is open, whatever came before."""
AT_ONCE = 16


async def states_of(journal: Journal, ids: Sequence[str]) -> tuple[dict[str, RunState], int]:
    """Tell where those of these runs stand that exist, and the sequence up to which that holds at least.

    Raises:
        UnreachableError, TimeoutError: the journal does not answer.
    """
    newest, seen = await journal.newest([f"run.{run_id}" for run_id in ids])
    states = {entry.key: state for entry in newest if (state := _state_after(entry.record)) is not None}
    unsure = [entry.key for entry in newest if entry.key not in states]
    for start in range(0, len(unsure), AT_ONCE):
        found = await asyncio.gather(*(run_of(journal, run_id) for run_id in unsure[start : start + AT_ONCE]))
        states |= {run.id: run.state for run in found if run is not None}
    return states, seen


async def run_of(journal: Journal, run_id: str) -> Run | None:
    """Give one run as its records tell it; None where there are none."""
    entries = await journal.read(f"run.{run_id}")
    return fold((entry.record for entry in entries), run_id)


def _state_after(record: Record) -> RunState | None:
    """Tell the state of a run by its newest record alone, where that can be told: how it ended, or open, as running."""
    if isinstance(record, Finished):
        return RunState(record.state)
    return RunState.RUNNING if record.type in SURE else None


class ChildrenOf:
    """The children of one run."""

    def __init__(self, journal: Journal, parent: Run) -> None:
        self._journal = journal
        self._parent = parent

    async def states(self, ids: Sequence[str]) -> tuple[dict[str, RunState], int]:
        """Tell where those of these runs stand that exist, and the sequence up to which that holds at least."""
        return await states_of(self._journal, ids)

    async def run(self, run_id: str) -> Run | None:
        """Give one run as it is now, large values included; None where it does not exist."""
        run = await run_of(self._journal, run_id)
        return run and run.model_copy(update={"result": await self._journal.restore(run.result)})

    async def is_tried_again(self, run_id: str, number: int) -> bool:
        """Tell whether a child was opened again, for the opening of its parent of that number."""
        mark = self._mark(run_id, number)
        return any(entry.record.record_id == mark for entry in await self._journal.read(f"run.{run_id}"))

    async def try_again(self, run_id: str, number: int) -> bool:
        """Open a child again that has ended without success; tells whether it is there."""
        writer = await self._writer(run_id)
        while writer is not None and writer.run.state.is_final and writer.run.state is not RunState.SUCCEEDED:
            end = writer.seq
            record = Reopened(record_id=self._mark(run_id, number), token=end, by=self._parent.by)
            if await writer.append(record, while_=functools.partial(_is_end_at, writer, end)):
                break
        return writer is not None

    async def abort(self, run_id: str, reason: str) -> None:
        """Have a child end early that has not ended, unless it was told so before."""
        writer = await self._writer(run_id)
        if writer is not None:
            record = Aborting(by=self._parent.by, reason=reason)
            await writer.append(record, while_=lambda run: not run.state.is_final and run.aborting is None)

    def _mark(self, run_id: str, number: int) -> str:
        """Give the id of the record by which a child is opened again."""
        return hashed_id("rec", self._parent.id, run_id, number)

    async def _writer(self, run_id: str) -> RunWriter | None:
        entries = await self._journal.read(f"run.{run_id}")
        run = fold((entry.record for entry in entries), run_id)
        return RunWriter(self._journal, run, entries[-1].seq) if run is not None else None


def _is_end_at(writer: RunWriter, seq: int, run: Run) -> bool:
    return run.state.is_final and writer.seq == seq
