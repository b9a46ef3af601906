"""How the loops start other processes of ours, and how these learn that their parent is gone."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import threading
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

SET_SIGNAL = 10
"""F_SETSIG of Linux, which the module `fcntl` does not name."""


async def start_python(
    module: str,
    args: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int | None = DEVNULL,
    stdout: int | None = None,
    stderr: int | None = None,
    pass_fds: Sequence[int] = (),
    new_group: bool = True,
) -> Process:
    """Start one of our modules as a process with the same interpreter; `env` is added to our own environment.

    It leads a process group of its own, so that Ctrl-C at the terminal reaches only us, and so that it can be killed
    together with what it has started. The current folder is not put on its `sys.path`.
    """
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-u",
        "-m",
        module,
        *args,
        env={**os.environ, **env} if env else None,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=tuple(pass_fds),
        process_group=0 if new_group else None,
    )


def die_with_parent(life: int) -> None:
    """Kill the own process group, hard, as soon as the other end of this pipe is closed.

    The parent holds that end and never writes; its death closes it, however it dies. The signal set on Linux comes from
    the kernel, even while C code keeps the interpreter's lock; the thread does the same on other systems.
    """
    os.set_inheritable(life, False)  # noqa: FBT003 - the function takes it by position only
    if sys.platform == "linux":
        _ask_the_kernel(life)
    threading.Thread(target=_wait_for_end, args=(life,), name="die-with-parent", daemon=True).start()


def _ask_the_kernel(life: int) -> None:
    with contextlib.suppress(OSError):  # a kernel without it: the thread remains
        fcntl.fcntl(life, SET_SIGNAL, signal.SIGKILL)
        fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)


def _wait_for_end(life: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(life, 1):
            pass
    os.killpg(0, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of what our children leave behind, wherever it has gone (Linux, PR_SET_CHILD_SUBREAPER)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1)


def kill_adopted() -> None:
    """Kill everything below this process; called when it has no child of its own left."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def hold_lock(path: Path) -> int | None:
    """Take a lock file for as long as this process lives, and write our pid there; None where another has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def lock_holder(path: Path) -> int | None:
    """Tell the pid that holds a lock file, or None where nobody does."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else 0
    else:
        return None
    finally:
        os.close(descriptor)


async def lock_released(path: Path) -> None:
    """Wait until nobody holds a lock file; the kernel wakes us."""
    loop = asyncio.get_running_loop()
    released = asyncio.Event()

    def block() -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.close(descriptor)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(released.set)

    threading.Thread(target=block, daemon=True, name="lock").start()
    await released.wait()
