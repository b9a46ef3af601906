"""A script's folder: what is known of it on the disk. Its lock is held as long as anything of it may run.

`job.json` says what was asked, `spool` what came out, `end.json` how it ended; `control` and `side` are the keeper's
sockets, `stdin` is what the script reads.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from labwright.agents.process_tree import marked
from labwright.core.ids import checked_name

SOCKET = "LABWRIGHT_SCRIPT_SOCKET"
"""The variable by which a script finds its side channel, and by which what is left of it is found."""

EndReason = Literal["exited", "signalled", "deadline", "ended", "not_started", "lost"]

FolderState = Literal["running", "ended", "lost"]


@dataclass(frozen=True, kw_only=True)
class ScriptEnd:
    """How a script ended.

    `reason`: `exited` or `signalled` by itself, `deadline` or `ended` (asked to) early, `not_started`, or `lost`, where
    its keeper was killed and the script with it; `detail` says more. What is counted as dropped is not in the output.
    """

    exit_code: int | None = None
    signal: int | None = None
    reason: EndReason
    detail: str = ""
    duration_s: float = 0.0
    lines_dropped: int = 0
    bytes_dropped: int = 0
    messages_dropped: int = 0
    """Messages of the side channel and datagrams that found no room, a result perhaps."""
    leftovers_killed: int = 0
    """Processes that the script had left behind and that were ended."""
    log_failures: int = 0
    """How often the log file could not be written."""
    datagrams: int = 0
    datagrams_lost: int = 0
    """Datagrams that came faster than they were taken."""
    datagrams_not_forwarded: int = 0

    @property
    def is_success(self) -> bool:
        """Tell whether it ended by itself, with exit code 0."""
        return self.reason == "exited" and self.exit_code == 0

    @property
    def summary(self) -> str:
        """Say it in a few words.

        >>> ScriptEnd(reason="signalled", signal=11).summary
        'was ended by SIGSEGV'
        """
        match self.reason:
            case "exited":
                return f"ended with exit code {self.exit_code}"
            case "signalled":
                return f"was ended by {_signal_name(self.signal)}"
            case "deadline":
                return "was ended because its deadline had passed"
            case "ended":
                return "was ended on request" + (f": {self.detail}" if self.detail else "")
            case "not_started":
                return f"could not be started: {self.detail}"
            case "lost":
                return f"was lost: {self.detail}"


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A script whose folder is there: `running`, `ended`, or `lost` with its keeper."""

    session_id: str
    number: int
    state: FolderState


class ScriptFolder:
    """The folder of one script of a session.

    Raises:
        UsageError: the id cannot be part of a folder's name.
    """

    def __init__(self, parent: Path, session_id: str, number: int) -> None:
        self.session_id = checked_name(session_id, "session")
        self.number = number
        self.path = parent / f"{session_id}.{number}"

    @property
    def spool(self) -> Path:
        """The file that holds everything that came out."""
        return self.path / "spool"

    @property
    def grace_s(self) -> float:
        """How long the script may take to end when it is asked to, as its job says."""
        try:
            return float(json.loads((self.path / "job.json").read_bytes())["grace_s"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0

    @property
    def has_begun(self) -> bool:
        """Tell whether the script may have been started: the keeper makes the spool right before."""
        return self.spool.exists() or self.end() is not None

    @property
    def is_locked(self) -> bool:
        """Tell whether something of it may still run."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    @property
    def state(self) -> FolderState:
        """Tell where it stands."""
        if self.end() is not None:
            return "ended"
        return "running" if self.is_locked else "lost"

    @property
    def mark(self) -> bytes:
        """What stands in the environment of the script and of what it started."""
        return f"{SOCKET}={self.path / 'side'}".encode(errors="surrogateescape")

    def create(self, job: dict[str, Any], stdin: str | None) -> int:
        """Make the folder, whole or not at all; gives the lock, held.

        Raises:
            OSError: it exists, or there is no room.
        """
        made = self.path.with_name(f".new-{secrets.token_hex(8)}")
        made.mkdir(parents=True, mode=0o700)
        try:
            (made / "job.json").write_text(json.dumps(job))
            if stdin is not None:
                (made / "stdin").write_text(stdin)
            lock = os.open(made / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            made.rename(self.path)
        except OSError:
            shutil.rmtree(made, ignore_errors=True)
            raise
        return lock

    def end(self) -> ScriptEnd | None:
        """Read how it ended; None where that is not written (yet)."""
        try:
            told = cast("dict[str, Any]", json.loads((self.path / "end.json").read_bytes()))
        except (OSError, ValueError):
            return None
        return ScriptEnd(**{field.name: told[field.name] for field in fields(ScriptEnd) if field.name in told})

    def write_end(self, end: ScriptEnd) -> None:
        """Write down how it ended, where its keeper could not; a full disk only means that it is found out again."""
        made = self.path / "end.lost"
        with contextlib.suppress(OSError):
            made.write_text(json.dumps(asdict(end)))
            made.replace(self.path / "end.json")

    def failure(self) -> str:
        """Read why the keeper failed, where it said so."""
        try:
            return (self.path / "failure").read_text(errors="backslashreplace")[-2000:]
        except OSError:
            return ""

    def kill_survivors(self) -> bool:
        """Kill every process that carries the script's mark; tells whether there was any."""
        survivors = marked([self.mark + b"\0"])
        for pid in survivors:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return bool(survivors)

    def remove(self) -> None:
        """Forget everything about it."""
        shutil.rmtree(self.path, ignore_errors=True)


def folders_in(parent: Path) -> list[ScriptFolder]:
    """List the scripts whose folders are there."""
    found: list[ScriptFolder] = []
    for path in sorted(parent.glob("*.*")):
        session_id, _, number = path.name.rpartition(".")
        if session_id and number.isdigit():
            found.append(ScriptFolder(parent, session_id, int(number)))
    return found


def _signal_name(number: int | None) -> str:
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"
