"""One operation on many targets: in waves, within a failure budget, one honest row for each, and an end in any case.

Whoever repeats a call with the same ids of sessions, after a crash of the first caller, say, goes on with what that
began: an agent that has ended a session answers with its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from labwright.agents.fleet_target import Asked, Reach, TargetCall
from labwright.agents.following import Hearing, presence_of
from labwright.core.errors import LabwrightError, UnreachableError
from labwright.core.fleet import FleetResult, FleetRow, Outcome
from labwright.core.model import ErrorRecord
from labwright.plan.rollout import Rollout

__all__ = ["Asked", "FleetCall", "Reach"]

AT_ONCE = 8
"""So many are asked in one go."""

Tell = Callable[[str, FleetRow], None]


def _nobody(_name: str, _row: FleetRow) -> None:
    """Nobody is told of rows."""


class FleetCall:
    """One call of an operation on targets, which are names of agents, here or not.

    `before` are the rows of an earlier try of the whole: who succeeded then is left alone. `tell` is told each row as
    soon as it is known.

    Raises:
        UsageError: the quorum cannot be reached, or a target stands twice.
    """

    def __init__(
        self,
        reach: Reach,
        targets: Sequence[str],
        asked: Asked,
        *,
        selector: str = "",
        before: Mapping[str, FleetRow] | None = None,
        tell: Tell = _nobody,
    ) -> None:
        self.rows: dict[str, FleetRow] = {
            name: row for name, row in (before or {}).items() if row.outcome is Outcome.SUCCEEDED and name in targets
        }
        self._targets = tuple(targets)
        self._quorum = asked.how.needed(len(targets))
        self._rollout = Rollout([name for name in targets if name not in self.rows], asked.how)
        self._reach = reach
        self._asked = asked
        self._selector = selector
        self._tell = tell
        self._calls: dict[str, TargetCall] = {}
        self._pauses = False
        self._is_ending = False
        self._away: set[str] = set()
        """Who did not answer at all in this wave, and is looked for once more at its end."""
        self._taken_up: set[str] = set()
        self._ends: asyncio.Queue[tuple[str, FleetRow]] = asyncio.Queue()
        self._untaken: dict[str, FleetRow] = {}
        """The rows in that queue, by target."""

    @property
    def result(self) -> FleetResult:
        """What is known by now; who was started and has no row yet is left, who was not is skipped."""
        rows = {name: self._row_of(name) for name in self._targets}
        return FleetResult.of(self._asked.operation, self._selector, self._quorum, rows)

    def _row_of(self, name: str) -> FleetRow:
        if (call := self._calls.get(name)) is not None:
            return call.unfinished
        return self._untaken.get(name) or self.rows.get(name) or self._skipped()

    async def run(self) -> FleetResult:
        """Do it on every target, and give the rows of all."""
        async with Hearing(self._reach.journal.connection) as hearing, asyncio.TaskGroup() as group:
            while not self._rollout.is_done:
                for number, name in enumerate(self._rollout.due(), start=1):
                    group.create_task(self._one(name, hearing))
                    if number % AT_ONCE == 0:
                        await asyncio.sleep(0)  # so that the first are at work while the others are asked
                if self._rollout.running:
                    await self._take(*await self._ends.get())
                    await self._look_again()
        return self.result

    async def abort(self, reason: str) -> None:
        """Start nothing more, and have what runs aborted; `run` then gives the rows."""
        self._is_ending = True
        self._rollout.stop(reason)
        self._away.clear()
        await asyncio.gather(*(call.abort(reason) for call in list(self._calls.values())))

    async def _one(self, name: str, hearing: Hearing) -> None:
        if self._pauses and self._asked.how.settle_s:
            await asyncio.sleep(self._asked.how.settle_s)
        if self._rollout.over:
            self._ends.put_nowait((name, self._skipped()))
            return
        self._pauses = True
        call = self._calls[name] = TargetCall(self._reach, name, self._asked, hearing)
        try:
            row = self._untaken[name] = await call.run()
            self._ends.put_nowait((name, row))
        finally:
            self._calls.pop(name, None)

    async def _take(self, name: str, row: FleetRow) -> None:
        """Take a row up; too many failures end the rest, as far as the policy says."""
        self._untaken.pop(name, None)
        self.rows[name] = row
        self._tell(name, row)
        if row.outcome is Outcome.UNREACHABLE and row.session is None:
            self._away.add(name)
        self._rollout.ended(name, succeeded=row.outcome is Outcome.SUCCEEDED)
        if self._rollout.aborts and not self._is_ending:
            await self.abort(self._rollout.over)

    async def _look_again(self) -> None:
        """At the end of a wave, take up again, once, who was away at its beginning and has come back."""
        if not self._rollout.is_between_waves:
            return
        for name in sorted(self._away - self._taken_up):
            if await self._is_here(name):
                self._taken_up.add(name)
                self._rollout.again(name)
        self._away.clear()

    async def _is_here(self, name: str) -> bool:
        try:
            return await presence_of(self._reach.journal.connection, name) is not None
        except (UnreachableError, TimeoutError):
            return False

    def _skipped(self) -> FleetRow:
        why = self._rollout.over or "its turn has not come"
        error = LabwrightError("it was not started", because=why, cure="try again what has not succeeded")
        return FleetRow(outcome=Outcome.SKIPPED, error=ErrorRecord.of(error, kind="skipped"))
