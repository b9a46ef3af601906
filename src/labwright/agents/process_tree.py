"""Everything that runs below a process, or carries the mark of a script in its environment.

Read from `/proc`; where there is none, only process groups are known. Standard library only, since the keeper uses it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Collection, Iterable
from typing import NamedTuple

CHILD_SUBREAPER = 36
PARENT_DEATH_SIGNAL = 1


class Entry(NamedTuple):
    """One living process."""

    pid: int
    parent: int
    group: int
    name: str


def adopt_orphans() -> None:
    """Become the parent of whatever our children leave behind (Linux, PR_SET_CHILD_SUBREAPER)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(CHILD_SUBREAPER, 1)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux, PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, int(signal.SIGKILL))
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def living() -> list[Entry]:
    """List every process that has not ended."""
    found: list[Entry] = []
    for pid in _pids():
        with contextlib.suppress(OSError, ValueError):
            name, state, parent, group = _status(pid)
            if state not in b"ZX":
                found.append(Entry(pid, parent, group, name))
    return found


def descendants(root: int) -> list[Entry]:
    """List what runs below a process, at any depth."""
    below: dict[int, list[Entry]] = {}
    for entry in living():
        below.setdefault(entry.parent, []).append(entry)
    found: list[Entry] = []
    ask = [root]
    while ask:
        children = below.get(ask.pop(), [])
        found += children
        ask += [child.pid for child in children]
    return found


def marked(marks: Collection[bytes]) -> list[int]:
    """List the processes in whose environment one of these texts stands, such as `b"NAME=value"`; never ourselves."""
    found: list[int] = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if pid != os.getpid() and any(mark in _read(f"/proc/{pid}/environ") for mark in marks):
                found.append(pid)
    return found


def terminate(entries: Iterable[Entry]) -> None:
    """Ask processes to end, also those that are stopped."""
    for entry in entries:
        for number in (signal.SIGTERM, signal.SIGCONT):
            with contextlib.suppress(OSError):
                os.kill(entry.pid, number)


def kill(entries: Collection[Entry]) -> None:
    """Kill processes with their groups; a group at once, so that none of it can fork away meanwhile."""
    mine = os.getpgrp()
    for group in {entry.group for entry in entries} - {mine, 0}:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    for entry in entries:
        with contextlib.suppress(OSError):
            os.kill(entry.pid, signal.SIGKILL)


def command_of(pid: int) -> list[str]:
    """Give the command line of a process; empty where it is gone."""
    try:
        return [os.fsdecode(word) for word in _read(f"/proc/{pid}/cmdline").split(b"\0")]
    except OSError:
        return []


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - pathlib is not light
    except OSError:
        return []


def _status(pid: int) -> tuple[str, bytes, int, int]:
    before, _, after = _read(f"/proc/{pid}/stat").rpartition(b")")
    state, parent, group, *_ = after.split()
    return os.fsdecode(before.partition(b"(")[2]), state, int(parent), int(group)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts: list[bytes] = []
        while part := os.read(descriptor, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)
