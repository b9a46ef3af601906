"""One session of a manager: its operation passed on to controllers, their sessions shown as they go, one honest end.

The sessions' ids follow from the id of the manager's own, so that a manager that was killed finds, in the same session
again, what it has started, and ends as that does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from labwright.agents.fleet import Asked, FleetCall, Reach
from labwright.agents.fleet_target import PATIENCE_S
from labwright.agents.session import Session
from labwright.agents.session_handle import SessionHandle
from labwright.core.errors import LabwrightError
from labwright.core.fleet import FleetResult, FleetRow
from labwright.core.model import SessionSnapshot, SessionState
from labwright.instruments.pysmurf.controller_watch import ControllerWatch
from labwright.instruments.pysmurf.shown_session import shown, shown_in_call

SHOW_S = 0.1
"""What comes within so many seconds is shown together."""
ALL_BYTES = 256 * 1024
"""So large are the data of all sessions together, at most about."""
LAST_S = 5.0
"""How long the end of a session that has ended may take to be told."""
ABORT_S = 8.0
"""How long the ends of what is aborted are waited for."""


class Passing:
    """One operation on controllers, whose addresses `targets` gives by the names under which they are shown."""

    def __init__(
        self, session: Session, watch: ControllerWatch, reach: Reach, asked: Asked, targets: Mapping[str, str]
    ) -> None:
        self._session = session
        self._watch = watch
        self._reach = reach
        self._asked = asked
        self._names = {address: name for name, address in targets.items()}
        self._rows: dict[str, FleetRow] = {}
        self._known: dict[str, SessionSnapshot] = {}
        self._shown: dict[str, dict[str, Any]] = {}
        self._changed = asyncio.Event()
        self._asked_to_stop: set[str] = set()
        self._is_stopping = False
        self._stops: set[asyncio.Task[None]] = set()
        """Words to stop that are on their way."""

    async def run(self) -> FleetResult:
        """Do it on all of them and give their rows, by name; when cancelled, what was started is aborted, too."""
        call = FleetCall(self._reach, list(self._names), self._asked, tell=self._tell)
        running = asyncio.create_task(call.run())
        showing = asyncio.create_task(self._show_changes())
        for address in self._names:
            self._watch.listen(self._reach.session_id(address, 0), self._hear)
        try:
            await self._until_end(call, running)
            await self._hear_last_words()
        finally:
            for address in self._names:
                self._watch.unlisten(self._reach.session_id(address, 0))
            tasks = {running, showing, *self._stops}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._show()
        return self._result

    async def _until_end(self, call: FleetCall, running: asyncio.Task[FleetResult]) -> None:
        asked = asyncio.create_task(self._session.asked())
        try:
            await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done() and self._asked.to_the_end:
                self._is_stopping = True
                for address in self._names:
                    self._stop(address)
            await asyncio.shield(running)
        except asyncio.CancelledError:
            if not self._session.is_left:
                await self._abort(call, running)
            raise
        finally:
            asked.cancel()

    async def _abort(self, call: FleetCall, running: asyncio.Task[FleetResult]) -> None:
        """Have everything that was started ended; what has not ended in time is left to its own agent's deadline."""
        with contextlib.suppress(LabwrightError, TimeoutError):
            async with asyncio.timeout(ABORT_S):
                await call.abort(self._session.reason or "the manager's session was told to end")
                await asyncio.wait({running})
        await self._hear_last_words()

    # --- stop --------------------------------------------------------------------------------------------------------

    def _stop(self, address: str) -> None:
        """Tell one to end well; one that has not begun yet is told when it does."""
        row = self._rows.get(address)
        has_ended = row is not None and row.session is not None
        if not self._is_stopping or has_ended or address in self._asked_to_stop:
            return
        self._asked_to_stop.add(address)
        stop = asyncio.create_task(self._told_to_stop(address))
        self._stops.add(stop)
        stop.add_done_callback(self._stops.discard)

    async def _told_to_stop(self, address: str) -> None:
        try:
            await self._handle(address).stop(self._session.reason)
        except (LabwrightError, TimeoutError):
            self._asked_to_stop.discard(address)

    # --- what they say -----------------------------------------------------------------------------------------------

    def _tell(self, address: str, row: FleetRow) -> None:
        self._rows[address] = row
        self._session.progress(len(self._rows), len(self._names), f"{self._names[address]} {row.outcome}")
        self._session.log(f"{self._names[address]} {row.outcome}" + (f": {row.error.message}" if row.error else ""))
        self._changed.set()

    def _hear(self, session: SessionSnapshot) -> None:
        known = self._known.get(session.agent)
        if known is not None and known.state.is_final and not session.state.is_final:
            return
        self._known[session.agent] = session
        self._shown[session.agent] = shown(session, ALL_BYTES // len(self._names))
        self._changed.set()
        if session.state is SessionState.RUNNING:
            self._stop(session.agent)

    async def _hear_last_words(self) -> None:
        """Ask for the end of sessions that have ended and whose last push is still on its way."""
        addresses = [name for name, row in self._rows.items() if row.session is not None and not self._has_ended(name)]
        await asyncio.gather(*(self._hear_from(address) for address in addresses))

    async def _hear_from(self, address: str) -> None:
        with contextlib.suppress(LabwrightError, TimeoutError):
            async with asyncio.timeout(LAST_S):
                self._hear(await self._handle(address).status())

    def _has_ended(self, address: str) -> bool:
        known = self._known.get(address)
        return known is not None and known.state.is_final

    def _handle(self, address: str) -> SessionHandle:
        return self._reach.agent(address, PATIENCE_S).session(self._reach.session_id(address, 0))

    # --- what is shown -----------------------------------------------------------------------------------------------

    async def _show_changes(self) -> None:
        while True:
            self._show()
            await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(SHOW_S)

    def _show(self) -> None:
        self._session.replace(
            {
                name: shown_in_call(self._asked.operation, address, self._shown.get(address), self._rows.get(address))
                for address, name in self._names.items()
            }
        )

    @property
    def _result(self) -> FleetResult:
        rows: dict[str, FleetRow] = {self._names[address]: row for address, row in self._rows.items()}
        quorum = self._asked.how.needed(len(self._names))
        return FleetResult.of(self._asked.operation, ", ".join(self._names.values()), quorum, rows)


def summary(result: FleetResult) -> Any:
    """Give rows without the results of the sessions, which stand in the session's data."""
    return result.model_dump(mode="json", by_alias=True, exclude={"targets": {"__all__": {"result", "run"}}})
