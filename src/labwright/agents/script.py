"""Scripts, as their agent sees them: started by a keeper, followed by offset, ended with everything below them.

An agent that starts anew takes up what its predecessor left, and starts nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from labwright.agents.channels import connected, message_in
from labwright.agents.keeper import start_keeper
from labwright.agents.process_tree import command_of
from labwright.agents.script_command import GRACE_S, ScriptOptions, command_for, job_of, onward_of, stdin_of
from labwright.agents.script_folder import Leftover, ScriptEnd, ScriptFolder, folders_in
from labwright.agents.script_output import Datagram, Item, Line, SideMessage, items_of
from labwright.agents.spool import Kind, Record, frame_of, read_record
from labwright.core.errors import ConflictError, EngineError

__all__ = ["Datagram", "Item", "Leftover", "Line", "Script", "ScriptEnd", "ScriptRunner", "SideMessage"]

LOOK_AGAIN_S = 0.02
LOOKS = 2
"""So often nothing must be seen of a script that was lost: a process just about to execute another shows no mark."""
INSIST_S = 1.5
"""How much longer than the grace a keeper may take before its script is ended without it."""
KILL_S = 0.3
PREPARE_S = 0.3
FIRST_PART = 32 * 1024
LARGE = 1024 * 1024
ITEMS_AT_ONCE = 200
STARTS = 3


class Script:
    """One script of a session, running or ended."""

    def __init__(self, folder: ScriptFolder, runner: ScriptRunner) -> None:
        self.session_id = folder.session_id
        self.number = folder.number
        self.pid: int | None = None
        """Its process; None while it has not been started."""
        self._folder = folder
        self._runner = runner
        self._keepers: tuple[int, ...] = ()
        self._writer: asyncio.StreamWriter | None = None
        self._grew = asyncio.Event()
        self._begun = asyncio.Event()
        self._connected = asyncio.Event()
        self._ended: asyncio.Future[ScriptEnd] = asyncio.get_running_loop().create_future()

    @property
    def has_ended(self) -> bool:
        """Tell whether nothing of it runs any more."""
        return self._ended.done()

    @property
    def grace_s(self) -> float:
        """How long it may take to end when it is asked to."""
        return self._folder.grace_s

    async def output(self, after: int = 0) -> AsyncGenerator[Item]:
        """Give everything that came out behind an offset, and what comes, until the script has ended."""
        await self._begun.wait()
        try:
            descriptor = os.open(self._folder.spool, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            async for item in self._items(descriptor, after):
                yield item
        finally:
            os.close(descriptor)

    async def wait(self) -> ScriptEnd:
        """Wait until nothing of it runs any more, and tell how it ended; the output need not be read for that."""
        return await asyncio.shield(self._ended)

    async def end(self, grace_s: float | None = None, reason: str = "") -> None:
        """Ask it and everything below it to end, and have killed what remains after the grace; does not wait for it.

        A keeper that does not do so in time is not waited for: see `INSIST_S`.
        """
        if self.has_ended:
            return
        await self._say({"do": "end", "grace_s": grace_s, "reason": reason})
        self._runner.look_after(self._insist(self._folder.grace_s if grace_s is None else grace_s))

    async def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message to the script, over its side channel; who connects later gets it, too."""
        await self._say({"do": "tell", "message": dict(message)})

    def forget(self) -> None:
        """Remove what is kept of it on the disk.

        Raises:
            ConflictError: it has not ended.
        """
        if not self.has_ended:
            raise ConflictError(f"script {self.number} of {self.session_id} has not ended", cure="wait for it")
        self._folder.remove()
        self._runner.drop(self)

    async def follow(self, control: socket.socket | None) -> None:
        """Listen to the keeper, connecting again if need be, until the script has ended."""
        while True:
            if control is not None:
                await self._listen(control)
            if (end := self._folder.end()) is not None:
                break
            if not self._folder.is_locked:
                end = self._folder.end() or await self._lost()
                break
            control = _connect(self._folder)
            if control is None:
                await asyncio.sleep(LOOK_AGAIN_S)
        self._ended.set_result(end)
        for event in (self._begun, self._connected, self._grew):
            event.set()

    @property
    def has_begun(self) -> bool:
        """Tell whether it was started, or failed to for a reason of its own, rather than its keeper's."""
        return self.pid is not None or self._folder.has_begun

    async def started(self) -> None:
        """Wait until it runs, or has failed to."""
        await self._begun.wait()

    def leave(self) -> None:
        """Follow it no more; those who wait for it are cancelled."""
        self._ended.cancel()

    async def _items(self, descriptor: int, after: int) -> AsyncGenerator[Item]:
        offset = frame_of(descriptor, after)
        given = 0
        while True:
            grew, has_ended = self._grew, self._ended.done()
            record = read_record(descriptor, offset)
            if record is None:
                if has_ended:
                    return
                await grew.wait()
                continue
            offset = record.end
            if record.kind == Kind.MESSAGE and len(record.payload) > LARGE:
                items = iter(await asyncio.to_thread(_all_items, record))
            else:
                items = items_of(record, after)
            for item in items:
                yield item
                given += 1
                if given % ITEMS_AT_ONCE == 0:
                    await asyncio.sleep(0)

    async def _listen(self, control: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=control)
        self._writer = writer
        self._connected.set()
        try:
            while line := await reader.readline():
                self._hear(line)
        except (OSError, ValueError):
            pass
        finally:
            self._writer = None
            if not self._ended.done():
                self._connected.clear()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _hear(self, line: bytes) -> None:
        message = message_in(line)
        if "pid" in message:
            self.pid = message["pid"]
            self._keepers = (message["keeper"], message["guard"])
            self._begun.set()
        self._grew.set()
        self._grew = asyncio.Event()

    async def _say(self, message: Mapping[str, Any]) -> None:
        await self._connected.wait()
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n")
            with contextlib.suppress(OSError):
                await self._writer.drain()

    async def _insist(self, grace_s: float) -> None:
        """End the script without its keeper, if that does not do it in time: it may have been stopped."""
        for number, pause_s in ((signal.SIGCONT, grace_s + INSIST_S), (signal.SIGKILL, KILL_S)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self.wait()
                return
            if number == signal.SIGKILL:
                self._folder.kill_survivors()
            for pid in self._keepers:
                if any(word.endswith("keeper.py") for word in command_of(pid)):
                    with contextlib.suppress(OSError):
                        os.kill(pid, number)

    async def _lost(self) -> ScriptEnd:
        """Make sure that nothing of it runs, now that its keeper is gone, and say so."""
        quiet = 0
        while quiet < LOOKS:
            quiet = 0 if self._folder.kill_survivors() else quiet + 1
            await asyncio.sleep(LOOK_AGAIN_S)
        if not self._folder.has_begun:
            return ScriptEnd(reason="not_started", detail="its keeper was killed before")
        detail = self._folder.failure() or "its keeper was killed, and the script with it"
        end = ScriptEnd(reason="lost", detail=detail)
        self._folder.write_end(end)
        return end


class ScriptRunner:
    """Starts scripts in a folder of the agent, and keeps one keeper ready: `async with ScriptRunner(folder) as runner`.

    At its end the scripts run on; another runner on the same folder finds them.
    """

    def __init__(self, state_dir: Path) -> None:
        self._folder = Path(state_dir).absolute() / "scripts"
        self._scripts: dict[tuple[str, int], Script] = {}
        self._starting = asyncio.Lock()
        self._spare: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.prepare()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def prepare(self) -> None:
        """Have a keeper stand ready, if none does."""
        if self._spare is None:
            self._spare = start_keeper()

    async def close(self) -> None:
        """Leave the scripts to their keepers, and let the one that stands ready go."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for script in self._scripts.values():
            script.leave()
        self._scripts.clear()

    async def start(
        self,
        session_id: str,
        number: int,
        path: str | Path,
        args: Sequence[object] = (),
        *,
        interpreter: str | None = None,
        **options: Any,
    ) -> Script:
        """Start a file as a script, or find the one of that session and number.

        A `.py` file runs with this interpreter, unbuffered; another file must be executable; `interpreter` names a
        program to run it with. `options` are the fields of `ScriptOptions`.

        Raises:
            UsageError: there is no such file, it cannot be executed, or an option is not valid.
            EngineError: no keeper can be started.
        """
        if (known := await self.find(session_id, number)) is not None:
            return known
        return await self.start_command(session_id, number, command_for(path, args, interpreter), **options)

    async def start_command(self, session_id: str, number: int, command: Sequence[str], **options: Any) -> Script:
        """Start a program by its whole command line, or find the one of that session and number; see `start`."""
        wanted = ScriptOptions.of(options)
        onward = await onward_of(wanted)
        for _ in range(STARTS):
            async with self._starting:
                script = self._take_up(session_id, number)
                if script is None:
                    script = await self._begin(ScriptFolder(self._folder, session_id, number), command, wanted, onward)
            try:
                await script.started()
            except asyncio.CancelledError:  # a keeper that is slow to start must not begin when nobody waits any more
                self.look_after(script.end(0, "its start was given up"))
                raise
            self.look_after(self._prepare_after(script))
            if script.has_begun:
                return script
            script.forget()
        raise EngineError("the script could not be started", because=f"{STARTS} keepers were killed before they did it")

    async def find(self, session_id: str, number: int) -> Script | None:
        """Find a script that was started before, perhaps by a predecessor; None where there is none."""
        script = self._take_up(session_id, number)
        if script is None:
            return None
        await script.started()
        return script if script.has_begun else None

    def leftovers(self) -> list[Leftover]:
        """List the scripts whose folders are there."""
        return [Leftover(session_id=each.session_id, number=each.number, state=each.state) for each in self._found()]

    async def kill_leftovers(self, session_id: str, grace_s: float = GRACE_S, reason: str = "") -> int:
        """End what runs of a session's scripts, and wait until nothing of it does; tells how many there were."""
        running = [each for each in self._found() if each.session_id == session_id and each.state != "ended"]
        scripts = [await self.find(session_id, each.number) for each in running]
        found = [script for script in scripts if script is not None]
        for script in found:
            await script.end(grace_s, reason or "left over by an earlier agent")
        for script in found:
            await script.wait()
        return len(found)

    def look_after(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside, until it is done or the runner is closed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def drop(self, script: Script) -> None:
        """Know a script no more."""
        self._scripts.pop((script.session_id, script.number), None)

    async def _prepare_after(self, script: Script) -> None:
        """Have a keeper stand ready again, without taking the processor from a script that just starts."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PREPARE_S):
                await script.wait()
        self.prepare()

    def _found(self) -> list[ScriptFolder]:
        return folders_in(self._folder)

    def _take_up(self, session_id: str, number: int) -> Script | None:
        """Find a script that is known, or whose folder tells that it may have been started."""
        if (known := self._scripts.get((session_id, number))) is not None:
            return known
        folder = ScriptFolder(self._folder, session_id, number)
        if folder.is_locked or folder.has_begun:
            return self._follow(folder, None)
        folder.remove()
        return None

    async def _begin(
        self,
        folder: ScriptFolder,
        command: Sequence[str],
        options: ScriptOptions,
        onward: tuple[int, str, int] | None,
    ) -> Script:
        job = job_of(folder, command, options, onward)
        told = {name: value for name, value in job.items() if name != "env"}
        lock = folder.create(told, stdin_of(options))
        try:
            control = await self._hand_out(json.dumps(job).encode() + b"\n", lock)
        except BaseException:
            folder.remove()
            raise
        finally:
            os.close(lock)
        return self._follow(folder, control)

    async def _hand_out(self, job: bytes, lock: int) -> socket.socket:
        """Give a job to the keeper that stands ready, or to a new one if that is gone; both get the lock with it."""
        loop = asyncio.get_running_loop()
        while True:
            is_spare = self._spare is not None
            keeper = self._spare or start_keeper()
            self._spare = None
            try:
                socket.send_fds(keeper, [job[:FIRST_PART]], [lock])
                keeper.setblocking(False)  # noqa: FBT003 - the method takes it by position only
                if rest := job[FIRST_PART:]:  # who has the whole job may have done it already, and be gone
                    await loop.sock_sendall(keeper, rest)
                return keeper
            except BaseException as error:
                keeper.close()
                if not (is_spare and isinstance(error, OSError)):
                    raise

    def _follow(self, folder: ScriptFolder, control: socket.socket | None) -> Script:
        script = self._scripts[folder.session_id, folder.number] = Script(folder, self)
        self.look_after(script.follow(control))
        return script


def _all_items(record: Record) -> list[Item]:
    return list(items_of(record))


def _connect(folder: ScriptFolder) -> socket.socket | None:
    """Connect to a script's keeper; None where it does not listen, yet or any more."""
    try:
        control = connected(str(folder.path / "control"))
    except OSError:
        return None
    control.setblocking(False)  # noqa: FBT003 - the method takes it by position only
    return control
