"""The file that keeps a schedule's rows: one JSON line for each thing that happened, written as it happens.

What was written survives the death of the process, so that the next start knows what has been done. The last line may
have been cut short by that death, and is then dropped; any other line that cannot be read is refused, because the
points that it told of would be done again.
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

from labwright.core.errors import DamagedError, LockedError, UsageError
from labwright.schedule.line_checks import Line, what_is_wrong


def beside_the_script(name: str) -> Path:
    """Give the path of the rows beside the script that runs, or in the current folder where there is none of a user's.

    There is none in a notebook, or when the script comes from a pipe, or when a program runs that is installed, such as
    a test runner.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    path = Path(script or "").resolve()
    if not path.is_file() or _is_installed(path):
        return Path.cwd() / f"{safe}.rows.jsonl"
    return path.with_name(f"{path.stem}.{safe}.rows.jsonl")


def last_run_in(path: Path) -> list[Line]:
    """Read what `RowFile.last_run` would, without opening the file for writing; nothing where there is none.

    Raises:
        DamagedError: a line cannot be read.
    """
    return _last_run(path, path.read_bytes()) if path.is_file() else []


class RowFile:
    """An open file of rows, which no other schedule can have open.

    Raises:
        LockedError: another schedule has it open.
        UsageError: there can be no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        self._file = _opened(path)

    def last_run(self) -> list[Line]:
        """Read the lines since the last start; none if that has come to its end.

        Raises:
            DamagedError: a line cannot be read.
        """
        self._file.seek(0)
        content = self._file.read()
        lines = _last_run(self.path, content)
        self._mend_the_end(content)
        return lines

    def begin_anew(self) -> Path:
        """Keep the file aside under another name, which is given, and go on with an empty one."""
        aside = next(path for number in range(1, sys.maxsize) if not (path := _aside(self.path, number)).exists())
        self.path.rename(aside)
        self._file.close()
        self._file = _opened(self.path)
        return aside

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

    def _mend_the_end(self, content: bytes) -> None:
        """Drop a last line that was cut short, so that the next one does not run into it."""
        rest = content[content.rfind(b"\n") + 1 :]
        if rest and _read(rest) is None:
            self._file.truncate(len(content) - len(rest))
        elif rest:
            self._file.write(b"\n")


def _last_run(path: Path, content: bytes) -> list[Line]:
    lines: list[Line] = []
    for line in _lines(path, content):
        if line["record"] == "started":
            lines.clear()
        lines.append(line)
    return [] if lines and lines[-1]["record"] == "over" else lines


def _lines(path: Path, content: bytes) -> Iterator[Line]:
    *whole, rest = content.split(b"\n")
    record = ""
    for number, text in enumerate(whole, 1):
        line = _read(text)
        wrong = "it is not JSON" if line is None else what_is_wrong(line, follows=record)
        if line is None or wrong:
            raise _damaged(path, number, wrong)
        record = line["record"]
        yield line
    line = _read(rest)
    if line is not None:
        if wrong := what_is_wrong(line, follows=record):
            raise _damaged(path, len(whole) + 1, wrong)
        yield line


def _read(text: bytes) -> Any:
    """Read one line; None for one that is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _damaged(path: Path, number: int, wrong: str) -> DamagedError:
    return DamagedError(
        f"line {number} of {path} cannot be read",
        because=f"{wrong}, so what it tells of would be done again",
        cure="mend the line; or keep the file aside and begin anew with start(fresh=True)",
    )


def _is_installed(script: Path) -> bool:
    is_of_python = script.is_relative_to(Path(os.__file__).parent) or "site-packages" in script.parts
    return is_of_python or script.parent == Path(sys.executable).parent


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.damaged" + (f"-{number}" if number > 1 else ""))


def _opened(path: Path) -> IO[bytes]:
    if not path.parent.is_dir():
        raise UsageError(
            f"the rows cannot be written to {path}",
            because=f"there is no folder {path.parent}",
            cure="make the folder first, or name another file with journal=PATH",
        )
    try:
        file = path.open("a+b")
    except OSError as error:
        raise UsageError(
            f"the rows cannot be written to {path}",
            because="that is a folder" if path.is_dir() else error.strerror or str(error),
            cure="name a file that can be written with journal=PATH, or journal=None to write none",
        ) from None
    try:
        _lock(file)
    except OSError:
        file.close()
        raise LockedError(
            f"{path} is in use",
            because="another schedule writes its rows there",
            cure="give this one a name or a journal=PATH of its own",
        ) from None
    return file


def _lock(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
