"""The file that keeps a schedule's rows: one JSON line for each thing that happened, written as it happens.

What was written survives the death of the process, so that the next start knows what has been done. A line that a crash
has cut short is passed over.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from labwright.core.errors import LockedError

Line = dict[str, Any]


def beside_the_script(name: str) -> Path:
    """Give the path of the rows beside the script that runs, or in the current folder in a notebook."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    if script is None:
        return Path.cwd() / f"{safe}.rows.jsonl"
    return Path(script).resolve().with_name(f"{Path(script).stem}.{safe}.rows.jsonl")


class RowFile:
    """An open file of rows, which no other schedule can have open.

    Raises:
        LockedError: another schedule has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("a+b")
        try:
            _lock(self._file)
        except OSError:
            self._file.close()
            raise LockedError(
                f"{path} is in use",
                because="another schedule writes its rows there",
                cure="give this one a name or a journal=PATH of its own",
            ) from None

    def last_run(self) -> list[Line]:
        """Read the lines since the last start; none if that has come to its end."""
        lines: list[Line] = []
        for line in self._lines():
            if line.get("record") == "started":
                lines.clear()
            lines.append(line)
        return [] if lines and lines[-1].get("record") == "over" else lines

    def write(self, line: Line) -> None:
        """Append a line; the death of this process does not undo it."""
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def make_lasting(self) -> None:
        """Have the disk keep what was written, so that a loss of power does not undo it either."""
        with self._guard:
            if not self._file.closed:
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        with self._guard:
            self._file.close()

    def _lines(self) -> Iterator[Line]:
        self._file.seek(0)
        text = self._file.read()
        if text and not text.endswith(b"\n"):
            self._file.write(b"\n")
        for line in text.splitlines():
            try:
                read = json.loads(line)
            except ValueError:
                continue
            if isinstance(read, dict):
                yield read


def _lock(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
