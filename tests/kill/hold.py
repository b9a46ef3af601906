"""What holds the hardware in the kill tests of agents: a script, and the body of an operation in a child process.

It takes the lock's file without waiting, looks whether its predecessor's descendant is dead, and writes both down.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

SESSION = "LABWRIGHT_SESSION"
STUBBORN = "trap '' TERM; exec sleep 600"


def hold(place: Path, agent: str, number: int, seconds: float, ways: list[str]) -> None:
    """Hold the hardware of an agent; `ways` are `binary` output, and to `leave` what was started behind."""
    with taken(place, agent, number):
        if any(_is_alive(word) for word in _read(place / f"{agent}.left").split()):
            note(place, "ORPHAN", agent, number)
        note(place, "begin", agent, number)
        child = subprocess.Popen(["/bin/sh", "-c", STUBBORN], start_new_session=True)
        made = place / f"{agent}.left.{os.getpid()}"
        made.write_text(f"{child.pid}:{_start_of(child.pid)}")
        made.replace(place / f"{agent}.left")
        _talk(seconds, ways)
        if "leave" not in ways:
            child.kill()
            child.wait()
        note(place, "end", agent, number)


@contextlib.contextmanager
def taken(place: Path, agent: str, number: int) -> Generator[None]:
    """Hold the lock's file, and write it down if another does."""
    with (place / f"{agent}.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(place, "OVERLAP", agent, number)
        yield


def note(place: Path, word: str, agent: str, number: int) -> None:
    """Write one line that no crash can tear."""
    line = f"{time.time_ns()} {word} {agent} {os.environ.get(SESSION)} {number} {os.getpid()}\n"
    descriptor = os.open(place / "ledger.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def _talk(seconds: float, ways: list[str]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if "binary" in ways:
            os.write(1, os.urandom(4000))
        print("holding on", "{", flush=True)  # noqa: T201 - a script prints
        time.sleep(0.1)


def _is_alive(word: str) -> bool:
    pid, _, start = word.partition(":")
    return bool(start) and _start_of(int(pid)) == start


def _start_of(pid: int) -> str:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[19] if fields and fields[0] not in "ZX" else ""


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


if __name__ == "__main__":
    hold(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5:])
