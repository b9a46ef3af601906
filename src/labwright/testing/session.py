"""A session for tests of operations: it keeps what the operation says, and can ask it to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from labwright.agents.session import NOW, Said, ScriptEars, Session
from labwright.core.errors import NotProvidedError
from labwright.core.ids import new_id
from labwright.core.model import SessionSnapshot, SessionState, utc_now

if TYPE_CHECKING:
    from labwright.agents.script import Script


class FakeSession(Session):
    """A session that belongs to no agent: call an operation with it, then look at what it has said.

    >>> import asyncio
    >>> async def dispense(session: Session, volume_ml: float) -> float:
    ...     session.update(dispensed_ml=volume_ml)
    ...     session.log("done")
    ...     return volume_ml
    >>> session = FakeSession()
    >>> asyncio.run(dispense(session, 2.5)), session.data, session.lines
    (2.5, {'dispensed_ml': 2.5}, ['done'])
    """

    def __init__(
        self, operation: str = "operation", params: Mapping[str, Any] | None = None, *, agent: str = "agent"
    ) -> None:
        self.lines: list[str] = []
        """What it has logged, oldest first."""
        snapshot = SessionSnapshot(
            id=new_id("ses"),
            agent=agent,
            operation=operation,
            state=SessionState.RUNNING,
            params=dict(params or {}),
            started_at=utc_now(),
        )
        super().__init__(snapshot, _NoAgent(self.lines))

    def ask_to_stop(self, reason: str = "the test asked for it") -> None:
        """Ask the operation to end, as a stop or an abort does."""
        self.ask_to_end(reason)


class _NoAgent:
    """Stands for the agent of a fake session."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def changed(self, session: Session) -> None:
        """Nobody watches."""

    def say(self, session: Session, level: str, text: str, fields: Mapping[str, Any], said: Said = NOW) -> None:  # noqa: ARG002 - protocol
        """Keep a line."""
        self._lines.append(text)

    async def start_script(
        self,
        session: Session,  # noqa: ARG002 - the protocol's
        number: int,  # noqa: ARG002 - the protocol's
        path: str,
        args: Sequence[object],  # noqa: ARG002 - the protocol's
        options: Mapping[str, Any],  # noqa: ARG002 - the protocol's
    ) -> Script:
        """Refuse: scripts are run by agents."""
        _refuse(path)

    async def follow_script(self, session: Session, script: Script, heard: ScriptEars) -> NoReturn:  # noqa: ARG002 - protocol
        """Refuse: scripts are run by agents."""
        _refuse("a script")


def _refuse(path: str) -> NoReturn:
    raise NotProvidedError(
        f"a fake session runs no scripts, and {path} was asked for",
        because="scripts are run by the agent's keeper",
        cure="start the agent in the test: labwright agent start",
    )
