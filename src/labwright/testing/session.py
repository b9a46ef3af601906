"""A session for tests of operations: it keeps what the operation says, and can ask it to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from labwright.agents.script_folder import ScriptEnd
from labwright.agents.session import NOW, Said, ScriptEars, Session
from labwright.core.errors import NotProvidedError
from labwright.core.ids import new_id
from labwright.core.model import SessionSnapshot, SessionState, utc_now

if TYPE_CHECKING:
    from labwright.agents.script import Script


@dataclass(frozen=True)
class ScriptCall:
    """A script that an operation has run in a fake session."""

    path: str
    args: tuple[object, ...]
    options: Mapping[str, Any]


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

    Scripts are not run: `scripts` says with which exit code each ends, by its path or its file's name.
    """

    def __init__(
        self,
        operation: str = "operation",
        params: Mapping[str, Any] | None = None,
        *,
        agent: str = "agent",
        scripts: Mapping[str, int] | None = None,
    ) -> None:
        self.lines: list[str] = []
        """What it has logged, oldest first."""
        self.scripts: list[ScriptCall] = []
        """Which scripts it has run, in their order."""
        snapshot = SessionSnapshot(
            id=new_id("ses"),
            agent=agent,
            operation=operation,
            state=SessionState.RUNNING,
            params=dict(params or {}),
            started_at=utc_now(),
        )
        super().__init__(snapshot, _NoAgent(self.lines, self.scripts, scripts or {}))

    def ask_to_stop(self, reason: str = "the test asked for it") -> None:
        """Ask the operation to end, as a stop or an abort does."""
        self.ask_to_end(reason)


class _NoAgent:
    """Stands for the agent of a fake session."""

    def __init__(self, lines: list[str], called: list[ScriptCall], codes: Mapping[str, int]) -> None:
        self._lines = lines
        self._called = called
        self._codes = codes

    def changed(self, session: Session) -> None:
        """Nobody watches."""

    def keep(self, session: Session) -> None:
        """Do nothing: the session has it."""

    def say(self, session: Session, level: str, text: str, fields: Mapping[str, Any], said: Said = NOW) -> None:  # noqa: ARG002 - protocol
        """Keep a line."""
        self._lines.append(text)

    async def start_script(
        self,
        session: Session,  # noqa: ARG002 - the protocol's
        number: int,  # noqa: ARG002 - the protocol's
        path: str,
        args: Sequence[object],
        options: Mapping[str, Any],
    ) -> Script:
        """Note that a script was called; it has ended already."""
        known = next((name for name in (path, Path(path).name) if name in self._codes), None)
        if known is None:
            raise NotProvidedError(
                f"the fake session does not know the script {path}",
                because="provided are: " + (", ".join(sorted(self._codes)) or "none"),
                cure=f'FakeSession(scripts={{"{Path(path).name}": 0}}) has it end with exit code 0',
            )
        self._called.append(ScriptCall(path, tuple(args), dict(options)))
        return cast("Script", _EndedScript(ScriptEnd(reason="exited", exit_code=self._codes[known])))

    async def follow_script(self, session: Session, script: Script, heard: ScriptEars) -> ScriptEnd:  # noqa: ARG002 - protocol
        """Give a script's end."""
        return await script.wait()


class _EndedScript:
    """Stands for a script: it has ended."""

    pid = None
    has_ended = True

    def __init__(self, end: ScriptEnd) -> None:
        self._end = end

    async def wait(self) -> ScriptEnd:
        """Give its end."""
        return self._end

    async def end(self, grace_s: float | None = None, reason: str = "") -> None:
        """Do nothing: it has ended."""

    def forget(self) -> None:
        """Do nothing: nothing is kept of it."""
