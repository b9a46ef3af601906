"""What exactly is started for a script: the command line that its file asks for, and the job of its keeper."""

from __future__ import annotations

import asyncio
import difflib
import json
import math
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from labwright.agents.script_folder import SOCKET, ScriptFolder
from labwright.core.errors import UsageError
from labwright.core.plain import to_plain

MEBIBYTE = 1024 * 1024
SESSION = "LABWRIGHT_SESSION"
RESOLVE_S = 2.0
GRACE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class ScriptOptions:
    """How a script is run.

    `env` is added to the agent's own environment, `cwd` is the agent's own folder unless given. After `deadline_s` it
    is ended; `grace_s` is how long it may take to end when it is asked to. `memory_bytes` limits the address space of
    each of its processes, `output_bytes` what is kept of both streams of its output. `relay` is the host and port
    to which datagrams go on that the script sends to `SMURFPUB_UDP_PORT`, a port of its own (an empty host: nowhere);
    without it none is opened. `stdin_json` is what the script reads on its standard input, which is empty otherwise.
    `log_file` is a file to which its output is appended, too, each line behind the time in UTC.
    """

    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: str | Path | None = None
    deadline_s: float | None = None
    memory_bytes: int | None = None
    output_bytes: int = 256 * MEBIBYTE
    grace_s: float = GRACE_S
    relay: tuple[str, int] | None = None
    stdin_json: Any = None
    log_file: str | Path | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Check options that were given by name.

        Raises:
            UsageError: one is unknown, or cannot be used.
        """
        known = [each.name for each in fields(cls)]
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise UsageError(
                    f"a script has no option {name!r}",
                    because="it has: " + ", ".join(known),
                    cure=f"did you mean {near[0]!r}?" if near else "",
                )
        given = {name: value for name, value in options.items() if value is not None}
        made = cls(**given)
        made.check()
        return made

    def check(self) -> None:
        """Refuse what could only fail later.

        Raises:
            UsageError: a number is none or out of range, the folder is none, or the log file cannot be written.
        """
        for name in ("deadline_s", "memory_bytes", "output_bytes", "grace_s"):
            _check_number(name, getattr(self, name))
        if self.cwd is not None and not Path(self.cwd).is_dir():
            raise UsageError(f"the script cannot run in {self.cwd}", because="there is no such folder")
        if self.log_file is not None:
            try:
                os.close(os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o666))
            except (OSError, ValueError) as error:
                raise UsageError(
                    f"the log file {self.log_file} cannot be written", because=str(error), cure="give another path"
                ) from error


def _check_number(name: str, value: object) -> None:
    if value is None or (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
        return
    raise UsageError(
        f"{name} of a script cannot be {value!r}", because="it is a number, 0 or more", cure="leave it out, or mend it"
    )


def command_for(path: str | Path, args: Sequence[object], interpreter: str | None = None) -> list[str]:
    """Give the command line that runs a file.

    Raises:
        UsageError: there is no such file, or nothing to run it with.
    """
    file = Path(path).absolute()
    if not file.is_file():
        raise UsageError(
            f"there is no script {file}", cure="check the path; a relative one begins at the agent's folder"
        )
    words = [str(arg) for arg in args]
    if interpreter is not None:
        program = shutil.which(interpreter)
        if program is None:
            raise UsageError(f"the interpreter {interpreter!r} is not found", because="it is not on the agent's PATH")
        return [os.path.abspath(program), str(file), *words]  # noqa: PTH100 - a link must stay one: virtual environments
    if file.suffix == ".py":
        return [sys.executable, "-u", str(file), *words]
    if os.access(file, os.X_OK):
        return [str(file), *words]
    raise UsageError(
        f"the script {file} cannot be executed",
        because="it is no .py file, and it is not marked as executable",
        cure=f"chmod +x {file}, or name an interpreter",
    )


async def onward_of(options: ScriptOptions) -> tuple[int, str, int] | None:
    """Find where a script's datagrams go on to; None where the name cannot be resolved now."""
    if options.relay is None or not options.relay[0]:
        return None
    host, port = options.relay
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, TimeoutError):
        return None
    family, *_, address = found[0]
    return int(family), str(address[0]), int(address[1])


def job_of(
    folder: ScriptFolder, command: Sequence[str], options: ScriptOptions, onward: tuple[int, str, int] | None
) -> dict[str, Any]:
    """Give what the keeper is told.

    Raises:
        UsageError: the command or the environment holds a zero byte.
    """
    env = {**os.environ, **options.env, SESSION: folder.session_id, SOCKET: str(folder.path / "side")}
    if any("\0" in word for word in (*command, *env, *env.values())):
        raise UsageError("a script's arguments and environment cannot hold zero bytes", cure="leave them out")
    return {
        "folder": str(folder.path),
        "command": list(command),
        "env": env,
        "cwd": str(Path(options.cwd or Path.cwd()).absolute()),
        "deadline_s": options.deadline_s,
        "memory_bytes": options.memory_bytes,
        "output_bytes": options.output_bytes,
        "grace_s": options.grace_s,
        "relay": None if options.relay is None else {"onward": onward},
        "has_stdin": options.stdin_json is not None,
        "log_file": None if options.log_file is None else str(Path(options.log_file).absolute()),
    }


def stdin_of(options: ScriptOptions) -> str | None:
    """Give what stands on the script's standard input."""
    return None if options.stdin_json is None else json.dumps(to_plain(options.stdin_json))
