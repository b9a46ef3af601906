"""What becomes of the sessions that an agent's predecessor left open: taken up again, or ended, and never both."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from labwright.agents.agent import Leftovers
from labwright.agents.book import Book
from labwright.agents.desk import Desk
from labwright.agents.execution import Limits, holder_of
from labwright.agents.ledger import Ledger
from labwright.agents.operation import AnyOperation
from labwright.agents.script import ScriptRunner
from labwright.agents.session import Session
from labwright.agents.session_scripts import SessionScripts
from labwright.core.errors import LabwrightError
from labwright.core.logs import get_logger
from labwright.core.model import ErrorRecord, SessionSnapshot, SessionState

CHILD = 0
"""The script number of the child process in which a blocking operation runs."""

log = get_logger(__name__)


class Adoption:
    """Looks through what a predecessor left: first `clear`, then, when the agent is open, `adopt`."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        book: Book,
        runner: ScriptRunner,
        scripts: SessionScripts,
        operations: dict[str, AnyOperation],
        policy: Leftovers,
    ) -> None:
        self._ledger = ledger
        self._book = book
        self._runner = runner
        self._scripts = scripts
        self._operations = operations
        self._policy: Leftovers = policy
        self._adoptable: list[tuple[SessionSnapshot, dict[str, Any]]] = []

    async def clear(self) -> None:
        """End what is not taken up again, scripts that belong to nothing included."""
        left = self._ledger.open_sessions()
        self._adoptable = [each for each in left if await self._is_adoptable(*each)]
        kept = {session.id for session, _ in self._adoptable}
        found = {each.session_id for each in self._runner.leftovers()} - kept
        await asyncio.gather(*(self._kill(name) for name in found))
        for session, _ in left:
            if session.id not in kept:
                self._lose(session, "its agent ended while it ran, and did not take it up again")

    async def adopt(self, desk: Desk) -> None:
        """Go on with what is taken up again, the oldest first; the scripts of what cannot be are ended."""
        for session, standing in self._adoptable:
            try:
                self._take_up(desk, session, standing, await self._book.logged(session.id))
            except LabwrightError as error:
                log.error("a session is not taken up again", session=session.id, because=error.message)  # noqa: TRY400 - said, not traced
                await self._kill(session.id)
                self._lose(session, f"it could not be taken up again: {error.message}")

    async def give_up(self) -> None:
        """End everything that a predecessor left: this process was told to end before it could take it up."""
        found = {each.session_id for each in self._runner.leftovers()}
        await asyncio.gather(*(self._kill(name) for name in found))
        for session, _ in self._ledger.open_sessions():
            self._lose(session.model_copy(update={"state": SessionState.STOPPING}))

    async def _is_adoptable(self, session: SessionSnapshot, standing: Mapping[str, Any]) -> bool:
        operation = self._operations.get(session.operation)
        if self._policy != "adopt" or operation is None or not operation.is_adoptable:
            return False
        if session.state is SessionState.STOPPING or not standing.get("has_begun"):
            return False
        if not operation.in_child:
            return True
        return await self._runner.find(session.id, CHILD) is not None

    def _take_up(self, desk: Desk, known: SessionSnapshot, standing: dict[str, Any], logged: dict[int, int]) -> None:
        operation = self._operations[known.operation]
        known = known.model_copy(update={"state": SessionState.RUNNING})
        session = Session(known, self._scripts.host, timeout_s=standing.get("timeout_s"))
        session.heard = {int(number): int(offset) for number, offset in standing.get("heard", {}).items()}
        session.logged = logged
        session.kept = standing.get("kept", {})
        session.has_begun = True
        operation.parameters.typed(known.params)
        desk.locks.take(operation.options.locks, holder_of(session))
        try:
            self._book.adopt(session, "its agent came back")
            desk.execute(session, operation, Limits(timeout_s=session.left_s), None)
        except LabwrightError:
            desk.locks.release(known.id)
            raise

    def _lose(self, session: SessionSnapshot, because: str = "") -> None:
        was_aborted = session.state is SessionState.STOPPING
        if was_aborted:
            because = "it was being ended when its agent died; what was left of it has been ended"
        text = f"{session.operation} was {'aborted' if was_aborted else 'lost'}"
        cure = "" if was_aborted else "see what it did, then start it again"
        error = ErrorRecord.of(
            LabwrightError(text, because=because, cure=cure), kind="aborted" if was_aborted else "lost"
        )
        self._book.lose(session, error, was_aborted=was_aborted)

    async def _kill(self, session_id: str) -> None:
        count = await self._runner.kill_leftovers(session_id)
        if count:
            log.warning("what a predecessor left was ended", session=session_id, scripts=count)
        for leftover in self._runner.leftovers():
            if leftover.session_id == session_id:
                script = await self._runner.find(session_id, leftover.number)
                if script is not None and script.has_ended:
                    script.forget()
