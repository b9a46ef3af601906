"""One operation on one target of a fleet: started once, waited for, looked for where it went away, and never in vain.

A session's id is known before the first command, so that whoever repeats the call finds the session that it began, and
never takes an older one for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labwright.agents.following import Hearing, recorded
from labwright.agents.handle import AgentHandle
from labwright.agents.session_handle import SessionHandle
from labwright.core.clock import lasting
from labwright.core.errors import AgentGoneError, LabwrightError, NotFoundError, UnreachableError
from labwright.core.fleet import FleetRow, Outcome
from labwright.core.model import ErrorRecord, OperationKind
from labwright.journal.journal import Journal
from labwright.plan.fan_out import FanOut

MARGIN_S = 0.5
"""By so much later than the agent its caller gives up: the agent is to say itself that it ended a session."""
PATIENCE_S = 10.0
"""How long a target that is here may take to answer a command."""
LOOK_S = 1.0
"""How long the journal is asked for a session whose agent does not answer."""
ABORT_S = 10.0
"""How long a session that is to end early is waited for."""
AGAIN = frozenset({Outcome.FAILED, Outcome.TIMEOUT, Outcome.UNREACHABLE})
"""What is tried again where that is wanted; who refuses would refuse again."""
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading an answer raises that is none: it is to cost its target the row, and nobody else theirs."""


def unreadable(name: str, error: BaseException) -> LabwrightError:
    """Make the error for a target whose answer is none."""
    return LabwrightError(
        f"the answer of {name} cannot be read",
        because=f"{type(error).__name__}: {str(error)[:500]}",
        cure="see its log; use the same version of labwright on both sides",
    )


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How the targets of one call are reached: as whom, and under which ids of sessions.

    `session_id` gives the id for a target's try of that number, from 0; `options` go with every start: `run`, `step`,
    `token` and `valid_for_s`, as `OperationHandle.with_options` has them.
    """

    journal: Journal
    sender: str
    session_id: Callable[[str, int], str]
    by: str = ""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def agent(self, name: str, patience_s: float) -> AgentHandle:
        """Give the handle of one target."""
        return AgentHandle(self.journal, name, sender=self.sender, by=self.by, patience_s=patience_s)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of each target; with `to_the_end` a process is waited for too, until somebody stops it."""

    operation: str
    params: Mapping[str, Any]
    how: FanOut
    to_the_end: bool = False


class TargetCall:
    """One operation on one target; `run` gives its row, whatever happens."""

    def __init__(self, reach: Reach, name: str, asked: Asked, hearing: Hearing) -> None:
        self.name = name
        self._reach = reach
        self._asked = asked
        self._how = asked.how
        self._hearing = hearing
        self._agent = reach.agent(name, min(PATIENCE_S, asked.how.timeout_s or PATIENCE_S))
        self._loop = asyncio.get_running_loop()
        self._session: SessionHandle | None = None
        self._limit: asyncio.Timeout | None = None
        self._told = asyncio.Event()
        self._reason = ""
        self._begun = 0.0
        self._number = 0

    async def run(self) -> FleetRow:
        """Do it, and again if it fails and that is wanted."""
        row = await self._tried()
        for _ in range(self._how.retries):
            if row.outcome not in AGAIN or self._told.is_set():
                break
            self._number += self._session is not None  # else a command that is heard late would be followed twice
            row = await self._tried()
        return row

    @property
    def unfinished(self) -> FleetRow:
        """The row of one that was started and is left before it has ended."""
        left = LabwrightError(
            "it was left before its end was known", because=self._reason or "its caller has ended", cure=self._see()
        )
        return self._row(Outcome.ABORTED, left, kind="aborted", session=self._session_id)

    async def abort(self, reason: str) -> None:
        """Have it end early, whatever it is doing; `run` gives its row soon after."""
        self._reason = self._reason or reason
        self._told.set()
        if self._limit is not None and not self._limit.expired():
            latest, limit = self._loop.time() + ABORT_S, self._limit.when()
            self._limit.reschedule(latest if limit is None else min(limit, latest))
        await self._end_session()

    async def _end_session(self) -> None:
        if self._session is not None:
            with contextlib.suppress(LabwrightError, TimeoutError, *UNREADABLE):
                async with asyncio.timeout(ABORT_S):
                    await self._session.abort(self._reason)

    async def _tried(self) -> FleetRow:
        """Try once. The agent itself ends what has passed its deadline; it is not waited for."""
        self._session = None
        self._begun = self._loop.time()
        limit_s = None if self._how.timeout_s is None else self._how.timeout_s + MARGIN_S
        try:
            async with asyncio.timeout(limit_s) as self._limit:
                return await self._done()
        except TimeoutError:
            return await self._late()
        finally:
            self._limit = None

    async def _done(self) -> FleetRow:
        while True:
            try:
                self._session = self._session or await self._start()
                return await self._ended(self._session)
            except UnreachableError as error:
                if not await self._comes_back():
                    return self._row(Outcome.UNREACHABLE, error)
            except NotFoundError as error:
                outcome = Outcome.REFUSED if self._session is None else Outcome.UNREACHABLE
                return self._row(outcome, error)
            except LabwrightError as error:
                return self._row(Outcome.REFUSED, error)
            except UNREADABLE as error:
                return self._row(Outcome.FAILED, unreadable(self.name, error))

    async def _start(self) -> SessionHandle:
        options = {**self._reach.options, "timeout_s": self._how.timeout_s, "session": self._session_id}
        operation = self._agent.operation(self._asked.operation).with_options(**options)
        try:
            return await operation.begin(self._asked.params, brings_whole=False)
        except UnreachableError as error:
            begun = await self._begun_untold()
            if begun is None:
                if isinstance(error, AgentGoneError):  # the nearest name is another's
                    error.reword(cure="start it, or see who is here: labwright agents list")
                raise
            return begun

    async def _begun_untold(self) -> SessionHandle | None:
        """Find the session whose agent fell silent before it could tell that it began: then the journal has it."""
        with contextlib.suppress(LabwrightError, TimeoutError):
            async with asyncio.timeout(LOOK_S):
                known = await recorded(self._reach.journal, self.name, self._session_id)
            if known is not None:
                session = self._agent.session(known.id, known)
                session.brings_whole = False
                return session
        return None

    async def _ended(self, session: SessionHandle) -> FleetRow:
        if self._told.is_set():
            await self._end_session()
        known = session.snapshot
        is_over = known.kind is OperationKind.PROCESS and not self._asked.to_the_end
        if not is_over and not known.state.is_final:
            known = await session.wait(hearing=self._hearing)
        return FleetRow.of(known, self._took_s)

    async def _comes_back(self) -> bool:
        """Wait for an agent that went away with a session of ours, as long as it may take to come back."""
        if self._session is None:
            return False
        came = asyncio.create_task(self._hearing.came(self.name))
        told = asyncio.create_task(self._told.wait())
        try:
            waited: set[asyncio.Task[Any]] = {came, told}
            await asyncio.wait(waited, timeout=self._how.return_within_s, return_when=asyncio.FIRST_COMPLETED)
            return came.done()
        finally:
            came.cancel()
            told.cancel()

    async def _late(self) -> FleetRow:
        """Tell that its time is over, and what is known."""
        if self._session is None:
            self._session = await self._begun_untold()
            if self._session is not None and self._session.snapshot.state.is_final:
                return FleetRow.of(self._session.snapshot, self._took_s)
            silent = UnreachableError(f"{self.name} did not answer", because="its time is over", cure=self._see())
            return self._row(Outcome.UNREACHABLE, silent)
        if self._told.is_set():
            aborted = LabwrightError("it was told to end", because=self._reason, cure=self._see())
            return self._row(Outcome.ABORTED, aborted, kind="aborted")
        late = LabwrightError(
            f"it has not ended within {lasting(self._how.timeout_s or 0)}",
            because="its deadline has passed, so its agent ends it",
            cure=self._see(),
        )
        return self._row(Outcome.TIMEOUT, late, kind="timeout")

    def _row(
        self, outcome: Outcome, error: LabwrightError, *, kind: str | None = None, session: str | None = None
    ) -> FleetRow:
        return FleetRow(
            outcome=outcome,
            session=self._session.id if self._session is not None else session,
            error=ErrorRecord.of(error, kind=kind),
            duration_s=self._took_s,
        )

    @property
    def _session_id(self) -> str:
        return self._reach.session_id(self.name, self._number)

    @property
    def _took_s(self) -> float:
        return self._loop.time() - self._begun

    def _see(self) -> str:
        return f"see what became of it: labwright sessions show {self._session_id}"
