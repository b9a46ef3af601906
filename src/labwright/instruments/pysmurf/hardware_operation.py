"""An operation on the hardware: sodetlib in a child process, whatever becomes of it, and its result in the session.

The child may crash, hang or be killed; the session then fails and says so. What it had told before stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from labwright.agents.session import Session
from labwright.core.errors import TerminalError
from labwright.instruments.pysmurf.catalogue import Catalogue
from labwright.instruments.pysmurf.published import deliver
from labwright.instruments.pysmurf.script_operation import NOWHERE, LastWords, tell_losses
from labwright.instruments.pysmurf.setting import Setting

if TYPE_CHECKING:
    from labwright.agents.script import Script
    from labwright.agents.script_folder import ScriptEnd

CHILD = Path(__file__).parent / "on_smurf" / "operation_script.py"
FOREVER_S = 1e9
FIRST_PAUSE_S = 10.0
LONGEST_PAUSE_S = 300.0
SILENCE_S = 120.0
"""After so long without a word, or three readings, a child that watches is taken to hang."""
HANGING_GRACE_S = 2.0


class HardwareOperation:
    """Runs the operations of `on_smurf.operations` in child processes."""

    def __init__(self, setting: Setting, files: Catalogue) -> None:
        self._setting = setting
        self._files = files

    async def do(self, session: Session, name: str, params: Mapping[str, Any]) -> Any:
        """Run an operation in a child process to its end and give its result; `stop` and abort reach it as SIGTERM.

        Raises:
            TerminalError: it failed, or its process ended without a result.
        """
        words = LastWords()
        script = await self._start(session, name, params)
        end = await self._followed(session, script, words)
        tell_losses(session, end)
        return _result(session, name, end, words)

    async def watch(
        self, session: Session, every_s: float, *, test_mode: bool, tell: Callable[[Mapping[str, Any]], None]
    ) -> None:
        """Have a child read the hardware's state until stopped, and start another one where it fails or hangs.

        Raises:
            TerminalError: in test mode, it failed.
        """
        pause_s = FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            failure = await self._watch_once(session, every_s, test_mode=test_mode, tell=tell)
            if session.is_stopping or failure is None:
                return
            if test_mode:
                raise failure
            if session.data.get("last_error") != failure.message:
                session.log(f"the SMuRF's state cannot be read: {failure.message}", level="warning")
            session.update(reachable=False, last_error=failure.message)
            pause_s = FIRST_PAUSE_S if time.monotonic() - began > LONGEST_PAUSE_S else pause_s
            if not await session.sleep(pause_s):
                return
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    # --- one child ---------------------------------------------------------------------------------------------------

    async def _start(self, session: Session, name: str, params: Mapping[str, Any]) -> Script:
        return await session.start_script(
            str(CHILD),
            env={"MPLBACKEND": "Agg", **self._setting.variables},
            relay=self._setting.onward or NOWHERE,
            stdin_json={"operation": name, "params": dict(params), "slot": self._setting.slot},
        )

    async def _followed(self, session: Session, script: Script, words: LastWords) -> ScriptEnd:
        """Follow a child to its end, and ask it to end when the session is asked to."""
        following = asyncio.create_task(
            session.follow_script(
                script, on_line=words.hear, on_datagram=lambda datagram: deliver(session, datagram, self._files)
            )
        )
        asked = asyncio.create_task(session.sleep(FOREVER_S))
        try:
            await asyncio.wait({following, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                await script.end(reason=session.reason)
            return await following
        finally:
            asked.cancel()
            following.cancel()
            await asyncio.gather(asked, following, return_exceptions=True)

    async def _watch_once(
        self, session: Session, every_s: float, *, test_mode: bool, tell: Callable[[Mapping[str, Any]], None]
    ) -> TerminalError | None:
        """Run one child that watches; gives why it ended, where nobody had asked it to."""
        words, heard = LastWords(), _Heard()

        def hear(message: Mapping[str, Any]) -> None:
            heard.at = time.monotonic()
            if message.get("do") == "update":
                tell(session.data)

        session.update(result=None)
        script = await self._start(session, "check_state", {"poll_interval": every_s, "test_mode": test_mode})
        following = asyncio.create_task(session.follow_script(script, on_line=words.hear, on_message=hear))
        asked = asyncio.create_task(session.sleep(FOREVER_S))
        hanging = asyncio.create_task(heard.silence(max(SILENCE_S, 3 * every_s)))
        try:
            await asyncio.wait({following, asked, hanging}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                reason = session.reason if asked.done() else "it has said nothing for too long"
                await script.end(HANGING_GRACE_S, reason)
            end = await following
            with contextlib.suppress(TerminalError):
                _result(session, "check_state", end, words)
                return None
            return _failure(session, "check_state", end, words)
        finally:
            for task in (asked, hanging, following):
                task.cancel()
            await asyncio.gather(asked, hanging, following, return_exceptions=True)
            if script.has_ended:
                script.forget()


class _Heard:
    """When a child last said something."""

    def __init__(self) -> None:
        self.at = time.monotonic()

    async def silence(self, limit_s: float) -> None:
        """Wait until nothing was heard for so long."""
        while (left_s := self.at + limit_s - time.monotonic()) > 0:  # noqa: ASYNC110 - what is awaited is nothing
            await asyncio.sleep(left_s)


def _result(session: Session, name: str, end: ScriptEnd, words: LastWords) -> Any:
    """Give what the child told as its result.

    Raises:
        TerminalError: it told a failure, or nothing.
    """
    told = _told(session)
    if not told.get("success"):
        raise _failure(session, name, end, words)
    if not end.is_success:
        session.log(f"its process had told its result, and then {end.summary}", level="warning")
    return told.get("return_val")


def _told(session: Session) -> Mapping[str, Any]:
    """Give what the child told as its result, if it did."""
    told: Any = session.data.get("result")
    return cast("Mapping[str, Any]", told) if isinstance(told, dict) else {}


def _failure(session: Session, name: str, end: ScriptEnd, words: LastWords) -> TerminalError:
    if error := _told(session).get("error"):
        cure = error.get("try") or f"see all of its output: labwright sessions log {session.id}"
        return TerminalError(error["message"], because=error.get("because", ""), cure=cure)
    message = f"the process of {name} {end.summary}, and told no result"
    session.update(result={"success": False, "return_val": None, "traceback": None, "error": {"message": message}})
    return TerminalError(
        message,
        because=str(words) or end.detail or "it wrote nothing to standard error",
        cure=f"see all of its output: labwright sessions log {session.id}",
    )
