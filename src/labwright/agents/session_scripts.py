"""Scripts in sessions: started once, heard to the end, ended with their session, taken up again after a restart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from labwright.agents.script import Script, ScriptRunner
from labwright.agents.script_folder import ScriptEnd
from labwright.agents.script_output import Datagram, Item, Line, SideMessage
from labwright.agents.session import Said, ScriptEars, Session, SessionHost
from labwright.agents.side_words import follow_word
from labwright.core.errors import LabwrightError
from labwright.core.logs import get_logger

END_S = 5.0
"""How much longer than its grace a script's end is waited for before its session goes on without it."""

log = get_logger(__name__)


class SessionScripts:
    """The scripts of all sessions of an agent."""

    def __init__(self, runner: ScriptRunner, grace_of: Callable[[str], float]) -> None:
        self.host: SessionHost
        self._runner = runner
        self._grace_of = grace_of
        self._live: dict[str, dict[int, Script]] = {}

    async def start(
        self, session: Session, number: int, path: str, args: Sequence[object], options: Mapping[str, Any]
    ) -> Script:
        """Start a session's script of that number, or find it."""
        given: dict[str, Any] = {"grace_s": self._grace_of(session.operation), **options}
        return await self._started(session, number, self._runner.start(session.id, number, path, args, **given))

    async def start_command(
        self, session: Session, number: int, command: Sequence[str], options: Mapping[str, Any]
    ) -> Script:
        """Start a session's program of that number by its whole command line, or find it."""
        given = {"grace_s": self._grace_of(session.operation), **options}
        return await self._started(session, number, self._runner.start_command(session.id, number, command, **given))

    async def find(self, session: Session, number: int) -> Script | None:
        """Find a script that was started before."""
        script = await self._runner.find(session.id, number)
        if script is not None:
            self._live.setdefault(session.id, {})[number] = script
        return script

    async def follow(self, session: Session, script: Script, ears: ScriptEars) -> ScriptEnd:
        """Bring what a script says to its session until it has ended; a cancellation ends it first."""
        try:
            async for item in script.output(session.heard.get(script.number, 0)):
                _hear(session, script.number, item, ears)
                session.heard[script.number] = item.offset
            return await script.wait()
        except asyncio.CancelledError:
            if not session.is_left:
                await self._end(script, script.grace_s, session.reason or "its session has ended")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):  # what it said in its last moments
                        async for item in script.output(session.heard.get(script.number, 0)):
                            _hear(session, script.number, item, ears)
                            session.heard[script.number] = item.offset
            raise

    async def end_all(self, session: Session, grace_s: float, reason: str) -> None:
        """End what still runs for a session, and everything below it."""
        scripts = [script for script in self._live.get(session.id, {}).values() if not script.has_ended]
        if scripts:
            await asyncio.gather(*(self._end(script, grace_s, reason) for script in scripts))

    def forget(self, session_id: str) -> None:
        """Remove what is kept of an ended session's scripts."""
        for script in self._live.pop(session_id, {}).values():
            if script.has_ended:
                with contextlib.suppress(OSError):
                    script.forget()

    async def _started(self, session: Session, number: int, work: Coroutine[Any, Any, Script]) -> Script:
        """Remember a script that is started, also where the session is cancelled meanwhile: it has to be ended, too."""
        starting = asyncio.create_task(work)
        try:
            script = await asyncio.shield(starting)
        except asyncio.CancelledError:
            with contextlib.suppress(LabwrightError):
                self._live.setdefault(session.id, {})[number] = await starting
            raise
        self._live.setdefault(session.id, {})[number] = script
        return script

    @staticmethod
    async def _end(script: Script, grace_s: float, reason: str) -> None:
        try:
            async with asyncio.timeout(grace_s + END_S):
                await script.end(grace_s, reason)
                await script.wait()
        except TimeoutError:
            log.error("a script does not end", session=script.session_id, number=script.number, pid=script.pid)  # noqa: TRY400 - said, not traced


def _hear(session: Session, number: int, item: Item, ears: ScriptEars) -> None:
    """Do with one item of a script's output what is to be done; a listener that raises ends the session."""
    match item:
        case Line():
            if ears.log and item.offset > session.logged.get(number, 0):
                level = "info" if item.stream == "out" else "warning"
                said = Said(at=item.at, place=f"{number}:{item.offset}")
                more = {"continued": True} if item.is_continued else {}
                session.logged[number] = item.offset
                session.output(item.text, level, said, stream=item.stream, **more)
            if ears.on_line is not None:
                ears.on_line(item)
        case SideMessage():
            follow_word(session, item.message)
            if ears.on_message is not None:
                ears.on_message(item.message)
        case Datagram():
            if ears.on_datagram is not None:
                ears.on_datagram(item.data)
