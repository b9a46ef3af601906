"""One agent that a host keeps up or down: its process, its restarts, and what it last said.

The process holds the lock of its own state folder for as long as it lives. So a host that was killed and started again
sees that an agent has survived, and cares for it instead of starting a second one. What an agent prints goes to a file,
so that the host's end breaks no pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from labwright.agents.ledger import agent_folder
from labwright.agents.script import ScriptRunner
from labwright.core.clock import to_text
from labwright.core.logs import get_logger
from labwright.core.model import utc_now
from labwright.run.processes import lock_holder, start_python
from labwright.run.wanted import Manage, WantedAgent

MODULE = "labwright.agents.main"
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
STEADY_S = 300.0
UNSTABLE_FAILURES = 4
STOP_S = 30.0
KILLED_S = 5.0
LOOK_EVERY_S = 0.5
LOG_LIMIT = 16 * 1024 * 1024
TAIL_BYTES = 8 * 1024
TAIL_LINES = 12
LONGEST_WORDS = 500
"""Letters of an agent's last line that the host's own log shows."""

log = get_logger(__name__)


class KeptState(StrEnum):
    """Where an agent stands, as its host sees it."""

    IGNORED = "ignored"
    DOWN = "down"
    UP = "up"
    WAITING = "waiting"
    ENDING = "ending"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How agents are started on this machine: their state, their site, and how they find the journal."""

    state_dir: Path
    folder: Path
    connection: tuple[str, ...]
    first_pause_s: float = FIRST_PAUSE_S
    stop_s: float = STOP_S

    def folder_of(self, name: str) -> Path:
        """Name the state folder of an agent."""
        return agent_folder(self.state_dir, name)

    def words(self, agent: WantedAgent) -> list[str]:
        """Give the command line that starts an agent, without the interpreter."""
        labels = [f"--label={name}={value}" for name, value in agent.labels.items()]
        arguments = [f"--arg={name}={written(value)}" for name, value in agent.arguments.items()]
        state = ["--state", str(self.state_dir), "--site", str(self.folder), *self.connection]
        return [agent.class_name, "--name", agent.name, *labels, *arguments, *state]

    def environment(self) -> dict[str, str]:
        """Give what is added to the environment."""
        return site_environment(self.folder)


class KeptAgent:
    """Keeps one agent as it is wanted; `changed` is called whenever its state is another."""

    def __init__(self, wanted: WantedAgent, launch: Launch, changed: Callable[[], None]) -> None:
        self.wanted: WantedAgent = wanted
        self.target: Manage = wanted.manage
        self.state = KeptState.DOWN
        self.pid: int | None = None
        self.restarts = 0
        self.last_error: tuple[str, ...] = ()
        self.since: datetime = utc_now()
        self._launch = launch
        self._changed = changed
        self._told = asyncio.Event()
        self._failures: deque[float] = deque(maxlen=UNSTABLE_FAILURES)
        self._pause_s = launch.first_pause_s
        self._folder = launch.folder_of(wanted.name)
        self._log_begin = 0
        self._starting: asyncio.Task[Process] | None = None
        self._process: Process | None = None

    @property
    def lock(self) -> Path:
        """The file that the agent's process holds for as long as it lives."""
        return self._folder / "lock"

    @property
    def log_file(self) -> Path:
        """Where what the agent prints goes."""
        return self._folder / "agent.log"

    @property
    def is_unstable(self) -> bool:
        """Tell whether it has ended so often of late that somebody should look."""
        if len(self._failures) < UNSTABLE_FAILURES:
            return False
        return time.monotonic() - self._failures[0] < STEADY_S

    @property
    def trouble(self) -> str:
        """Tell in a line why it is not up, or not for long; empty where all is well."""
        if not self.last_error or not (self.is_unstable or self.state is KeptState.WAITING):
            return ""
        end, *words = self.last_error
        return f"{end}: {last_line(words)}; see {self.log_file}"

    def status(self) -> dict[str, Any]:
        """Describe it for people."""
        return {
            "class": self.wanted.class_name,
            "target": self.target.value,
            "state": self.state.value,
            "pid": self.pid,
            "since": to_text(self.since),
            "restarts": self.restarts,
            "unstable": self.is_unstable,
            "last_error": "\n".join(self.last_error),
            "log": str(self.log_file),
        }

    def aim(self, target: Manage, wanted: WantedAgent | None = None) -> None:
        """Say what is wanted of it from now on; another class, label or argument starts it anew."""
        if target is self.target and (wanted is None or wanted == self.wanted):
            return
        if wanted is not None and self.target is target is Manage.UP:
            log.warning(
                "an agent's configuration has changed: what it runs ends, and it is started anew", agent=wanted.name
            )
        self.wanted = self.wanted if wanted is None else wanted
        self.target = target
        self._failures.clear()
        self._pause_s = self._launch.first_pause_s
        self._told.set()

    async def keep(self) -> None:
        """Keep it as it is wanted, for ever."""
        while True:
            self._told.clear()
            match self.target:
                case Manage.UP:
                    await self._keep_up()
                case Manage.DOWN:
                    await self.end()
                    self._show(KeptState.DOWN)
                    await self._told.wait()
                case Manage.IGNORE:
                    self._show(KeptState.IGNORED)
                    await self._told.wait()

    async def end(self) -> None:
        """End its process, whoever started it: asked first, and killed when it does not end in time."""
        if self._starting is not None:
            with contextlib.suppress(OSError):
                self._process = await self._starting
            self._starting = None
        pid = self._process.pid if self._process is not None else self.pid or lock_holder(self.lock)
        if not pid:
            return
        self._show(KeptState.ENDING, pid)
        _signal(pid, signal.SIGTERM)
        if not await _within(self._launch.stop_s, gone(pid)):
            log.warning("an agent does not end and is killed", agent=self.wanted.name, pid=pid)
            _signal_group(pid, signal.SIGKILL)
            await _within(KILLED_S, gone(pid))
            await self._end_scripts()
        if self._process is not None:
            await self._process.wait()
        self.pid = self._process = None

    async def _end_scripts(self) -> None:
        """End the scripts of an agent that could not do it itself."""
        runner = ScriptRunner(self._folder)
        for session_id in {leftover.session_id for leftover in runner.leftovers()}:
            await runner.kill_leftovers(session_id, reason="its agent had to be killed")
        await runner.close()

    def trim_log(self) -> None:
        """Begin the log anew where it has grown large; one older part is kept."""
        with contextlib.suppress(OSError):
            if self.log_file.stat().st_size > LOG_LIMIT:
                self.log_file.with_suffix(".log.1").write_bytes(self.log_file.read_bytes())
                os.truncate(self.log_file, 0)

    # --- one life ----------------------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """See it through one life, and wait for the next; or end it where it is wanted no longer as it is."""
        began = time.monotonic()
        try:
            end = _end_text(await self._until_told(self._live()))
        except OSError as error:
            end = f"it cannot be started: {error}"
        if self._told.is_set():
            if self.target is not Manage.IGNORE:
                await self.end()
            return
        await self._failed(end, time.monotonic() - began)

    async def _live(self) -> int | None:
        """Live one life of the process; gives the code it ended with, where that can be known."""
        survivor = lock_holder(self.lock)
        if survivor:
            log.info("an agent that runs already is cared for", agent=self.wanted.name, pid=survivor)
            self._show(KeptState.UP, survivor)
            await gone(survivor)
            return None
        self._starting = asyncio.create_task(self._start())
        process = await asyncio.shield(self._starting)
        self._process, self._starting = process, None
        self._show(KeptState.UP, process.pid)
        log.info("agent started", agent=self.wanted.name, pid=process.pid)
        code = await process.wait()
        self._process = None
        return code

    async def _start(self) -> Process:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        output = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._log_begin = os.fstat(output).st_size
        try:
            words = self._launch.words(self.wanted)
            return await start_python(MODULE, words, env=self._launch.environment(), stdout=output, stderr=output)
        finally:
            os.close(output)

    async def _failed(self, end: str, lived_s: float) -> None:
        """Note an end that nobody wanted, and wait a while, longer each time."""
        self.restarts += 1
        self._failures.append(time.monotonic())
        words = tail(self.log_file, self._log_begin)
        verdict = (
            f"unstable, ended {UNSTABLE_FAILURES} times within {STEADY_S:g} s; at last " if self.is_unstable else ""
        )
        self.last_error = (f"{verdict}{end}", *words)
        if lived_s > STEADY_S:
            self._pause_s = self._launch.first_pause_s
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, LONGEST_PAUSE_S)
        say = log.error if self.is_unstable else log.warning
        said = "an agent is unstable" if self.is_unstable else "an agent has ended"
        told = {"because": end, "it_said": last_line(words), "log": str(self.log_file), "again_in_s": pause_s}
        say(said, agent=self.wanted.name, **told)
        self._show(KeptState.WAITING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._told.wait()

    async def _until_told(self, life: Awaitable[int | None]) -> int | None:
        """Wait for the end of a life, or until something else is wanted."""
        living = asyncio.ensure_future(life)
        told = asyncio.create_task(self._told.wait())
        try:
            await asyncio.wait({living, told}, return_when=asyncio.FIRST_COMPLETED)
            return living.result() if living.done() else None
        finally:
            for waiting in (living, told):
                waiting.cancel()
            await asyncio.gather(living, told, return_exceptions=True)

    def _show(self, state: KeptState, pid: int | None = None) -> None:
        if (state, pid) != (self.state, self.pid):
            self.state, self.pid, self.since = state, pid, utc_now()
            self._changed()


def site_environment(folder: Path) -> dict[str, str]:
    """Give what is added to the environment of a site's agents: its folder stands where modules are searched."""
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"LABWRIGHT_SITE": str(folder), "PYTHONPATH": os.pathsep.join(paths)}


def written(value: object) -> str:
    """Write an argument as a command line takes it: text as it stands, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def last_line(lines: Sequence[str]) -> str:
    """Give the last line that is not empty."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")[:LONGEST_WORDS]


def tail(path: Path, begin: int = 0) -> Sequence[str]:
    """Give the last lines of a log, or those behind the place where it has begun."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        size = path.stat().st_size
        file.seek(max(begin if begin <= size else 0, size - TAIL_BYTES))
        return tuple(file.read().decode(errors="replace").splitlines()[-TAIL_LINES:])
    return ()


async def gone(pid: int) -> None:
    """Wait until a process that need not be our child has ended; the kernel wakes us where it can."""
    try:
        descriptor = os.pidfd_open(pid) if sys.platform == "linux" else -1
    except ProcessLookupError:
        return
    except OSError:
        descriptor = -1
    if descriptor < 0:
        while _is_running(pid):  # noqa: ASYNC110 - a system whose kernel tells nobody
            await asyncio.sleep(LOOK_EVERY_S)
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _end_text(code: int | None) -> str:
    if code is None:
        return "its process has ended"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):  # it leads no group of its own
        _signal(pid, number)


async def _within(seconds: float, awaited: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await awaited
    except TimeoutError:
        return False
    return True
