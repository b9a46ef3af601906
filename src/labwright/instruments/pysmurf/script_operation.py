"""The operation `run`: a script of the user as a process of its own, and its end told honestly."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labwright.agents.session import Session
from labwright.core.errors import TerminalError, UsageError
from labwright.instruments.pysmurf.catalogue import Catalogue
from labwright.instruments.pysmurf.published import deliver
from labwright.instruments.pysmurf.setting import Setting

if TYPE_CHECKING:
    from labwright.agents.script_folder import ScriptEnd

LAST_WORDS = 8
"""Lines of standard error that a failure shows."""
NOWHERE = ("", 0)
"""In place of the host and port of a monitor: what is published reaches the session only."""


class LastWords:
    """The last lines of a script's standard error."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LAST_WORDS)

    def hear(self, line: Any) -> None:
        """Keep a line, if it is one of standard error."""
        if line.stream == "err":
            self._lines.append(line.text[:500])

    def __str__(self) -> str:
        return "\n".join(self._lines).strip()


class ScriptOperation:
    """Runs scripts in a setting."""

    def __init__(self, setting: Setting, files: Catalogue) -> None:
        self._setting = setting
        self._files = files

    async def run(self, session: Session, script: str, args: Sequence[Any], log: bool | str) -> dict[str, Any]:  # noqa: FBT001 - OCS's parameter
        """Run a script to its end.

        Raises:
            UsageError: there is no such script, or the log file cannot be written.
            TerminalError: the script failed.
        """
        path = self._setting.script_path(script)
        words = LastWords()
        if log == "":
            raise UsageError("the path of the log file is empty", cure="log=true for the session's log, false for none")
        end = await session.script(
            str(path),
            [str(arg) for arg in args],
            log=log is True,
            log_file=log if isinstance(log, str) else None,
            env=self._setting.variables,
            relay=self._setting.onward or NOWHERE,
            on_line=words.hear,
            on_datagram=lambda datagram: deliver(session, datagram, self._files),
        )
        tell_losses(session, end)
        if not end.is_success:
            raise TerminalError(
                f"{Path(path).name} {end.summary}",
                because=str(words) or end.detail or "it wrote nothing to standard error",
                cure=f"see all of its output: labwright sessions log {session.id}",
            )
        session.note(f"Script has finished with exit code {end.exit_code}")
        return {"exit_code": end.exit_code, "duration_s": round(end.duration_s, 3)}


def tell_losses(session: Session, end: ScriptEnd) -> None:
    """Say in the session what of a script's words was lost on the way."""
    losses = {
        f"{end.lines_dropped} lines ({end.bytes_dropped} bytes) of its output were dropped": end.bytes_dropped,
        f"{end.messages_dropped} of its messages were dropped": end.messages_dropped,
        f"{end.datagrams_lost} published packets came too fast and were lost": end.datagrams_lost,
        f"the log file could not be written {end.log_failures} times": end.log_failures,
        f"it left {end.leftovers_killed} processes behind, which were ended": end.leftovers_killed,
    }
    for text, count in losses.items():
        if count:
            session.log(text, level="warning")
