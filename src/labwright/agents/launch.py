"""How the keeper starts the script: a fork of its own, since no thread runs there and nothing heavy may be imported."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from labwright.agents.process_tree import die_with

GIVEN_BACK = tuple(
    number
    for number in (
        getattr(signal, name, None) for name in ("SIGPIPE", "SIGXFSZ", "SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD")
    )
    if number is not None
)
"""Signals that the keeper treats in its own way, and the script as usual."""


class Program(NamedTuple):
    """What is to run, and how; `streams` are its standard input, output and error."""

    command: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    streams: tuple[int, int, int]
    memory_bytes: int | None = None
    """The most address space of each of its processes."""


def launch(program: Program) -> int:
    """Start a program in a session and a process group of its own; gives its pid.

    It dies with the process that called this.

    Raises:
        OSError: the folder cannot be entered, or the program cannot be executed.
    """
    told, tell = os.pipe()
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(program, keeper, tell)
    os.close(tell)
    with os.fdopen(told, "rb") as answer:
        failure = answer.read()
    if failure:
        os.waitpid(pid, 0)
        number, _, name = failure.decode(errors="backslashreplace").partition(" ")
        raise OSError(int(number), os.strerror(int(number)) if int(number) else "it failed", name)
    return pid


def _become(program: Program, keeper: int, tell: int) -> NoReturn:
    """Turn this fork into the program; whatever fails is told to the keeper."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in GIVEN_BACK:
            signal.signal(number, signal.SIG_DFL)
        for place, descriptor in enumerate(program.streams):
            os.dup2(descriptor, place)
        die_with(keeper)
        os.chdir(program.cwd)
        if program.memory_bytes is not None:
            resource.setrlimit(resource.RLIMIT_AS, (program.memory_bytes, program.memory_bytes))
        os.execve(program.command[0], list(program.command), dict(program.env))  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(tell, f"{error.errno or 0} {error.filename or program.command[0]}".encode(errors="backslashreplace"))
    except BaseException as error:  # noqa: BLE001 - a fork may never return into the keeper's code
        os.write(tell, f"0 {error!r}".encode(errors="backslashreplace"))
    finally:
        os._exit(127)
