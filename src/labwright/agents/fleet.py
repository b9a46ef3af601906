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
from labwright.plan.fan_out import OnFailure

__all__ = ["Asked", "FleetCall", "Reach"]

Told = Callable[[str, FleetRow], None]


def _nobody(_name: str, _row: FleetRow) -> None:
    """Nobody is told of rows."""


class FleetCall:
    """One call of an operation on targets, which are names of agents, here or not.

    `before` are the rows of an earlier try of the whole: who succeeded then is left alone. `tell` is told each row as
    soon as it is known.

    Raises:
        UsageError: the quorum cannot be reached.
    """

    def __init__(
        self,
        reach: Reach,
        targets: Sequence[str],
        asked: Asked,
        *,
        selector: str = "",
        before: Mapping[str, FleetRow] | None = None,
        tell: Told = _nobody,
    ) -> None:
        self.rows: dict[str, FleetRow] = {
            name: row for name, row in (before or {}).items() if row.outcome is Outcome.SUCCEEDED and name in targets
        }
        self._targets = tuple(dict.fromkeys(targets))
        self._how = asked.how
        self._quorum = self._how.needed(len(self._targets))
        self._allowed = self._how.allowed_failures(len(self._targets))
        self._reach = reach
        self._asked = asked
        self._selector = selector
        self._tell = tell
        self._running: dict[str, TargetCall] = {}
        self._failed = 0
        self._over = ""
        """Why nothing more is started, once that is so."""

    @property
    def result(self) -> FleetResult:
        """What is known by now; who has no row yet is skipped."""
        rows = {name: self.rows.get(name) or self._skipped() for name in self._targets}
        return FleetResult.of(self._asked.operation, self._selector, self._quorum, rows)

    async def run(self) -> FleetResult:
        """Do it on every target, and give the rows of all."""
        open_targets = [name for name in self._targets if name not in self.rows]
        async with Hearing(self._reach.journal.connection) as hearing:
            for wave in self._how.in_waves(open_targets):
                if not self._over:
                    await self._wave(wave, hearing)
        return self.result

    async def abort(self, reason: str) -> None:
        """Start nothing more, and have what runs aborted; `run` then gives the rows."""
        self._over = self._over or reason
        await asyncio.gather(*(call.abort(reason) for call in list(self._running.values())))

    async def _wave(self, wave: Sequence[str], hearing: Hearing) -> None:
        """Do one wave; who was away at its beginning and has come back by its end is taken up again."""
        await self._each(wave, hearing)
        away = [name for name in wave if self._was_away(name)]
        back = [name for name in away if await self._is_back(name)] if len(away) < len(wave) else []
        self._failed -= len(back)
        await self._each(back, hearing)

    async def _each(self, names: Sequence[str], hearing: Hearing) -> None:
        limit = asyncio.Semaphore(self._how.at_once or max(1, len(names)))
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(self._one(name, hearing, limit, settles=name != names[-1]))

    async def _one(self, name: str, hearing: Hearing, limit: asyncio.Semaphore, *, settles: bool) -> None:
        async with limit:
            if self._over:
                return
            call = TargetCall(self._reach, name, self._asked, hearing)
            self._running[name] = call
            try:
                row = await call.run()
            finally:
                del self._running[name]
            await self._take(name, row)
            if settles and self._how.settle_s and not self._over:
                await asyncio.sleep(self._how.settle_s)

    async def _take(self, name: str, row: FleetRow) -> None:
        """Take a row up; too many failures end the rest, as far as the policy says."""
        self.rows[name] = row
        self._tell(name, row)
        if row.outcome is Outcome.SUCCEEDED:
            return
        self._failed += 1
        if self._failed <= self._allowed or self._over:
            return
        why = f"{self._failed} had not succeeded, and the failure budget is {self._allowed}"
        self._over = why
        if self._how.on_failure is OnFailure.ABORT:
            await self.abort(why)

    def _was_away(self, name: str) -> bool:
        row = self.rows.get(name)
        return row is not None and row.outcome is Outcome.UNREACHABLE and row.session is None

    async def _is_back(self, name: str) -> bool:
        try:
            return await presence_of(self._reach.journal.connection, name) is not None
        except (UnreachableError, TimeoutError):
            return False

    def _skipped(self) -> FleetRow:
        why = self._over or "its turn has not come"
        error = LabwrightError("it was not started", because=why, cure="try again what has not succeeded")
        return FleetRow(outcome=Outcome.SKIPPED, error=ErrorRecord.of(error, kind="skipped"))
