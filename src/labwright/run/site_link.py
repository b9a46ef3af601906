"""The parent's end of the process that loads a site and forks its branches."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from asyncio.subprocess import Process
from collections.abc import Sequence
from typing import Any, Self

from labwright.core.errors import SiteError
from labwright.run.branch import Branch, CallMovedError
from labwright.run.processes import start_python
from labwright.run.settings import Settings
from labwright.run.site import SiteDescription
from labwright.run.site_wire import Board, FrameReader, frame

MODULE = "labwright.run.site_process"
LOADING_S = 120.0
"""How long importing the site's code may take."""

FORKING_S = 20.0
CHUNK = 1 << 16


class SiteLink:
    """The parent's end of a site process: what it has loaded, and its branches."""

    def __init__(self, process: Process, control: socket.socket, life: int, deadline_s: float) -> None:
        self.description: SiteDescription
        self.deadline_s = deadline_s
        self.is_alive = True
        self._process = process
        self._control = control
        self._life = life
        self._closing: asyncio.Task[None] | None = None
        self._forked = 0
        self._branches: dict[int, Branch] = {}
        self._forking = asyncio.Lock()
        self._heard: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, settings: Settings, dialects: Sequence[str], deadline_s: float) -> Self:
        """Start the process and have it load the site.

        Raises:
            SiteError: the site cannot be loaded.
        """
        ours, theirs = socket.socketpair()
        life_theirs, life_ours = os.pipe()
        ours.setblocking(False)  # noqa: FBT003 - the name of the method says it
        try:
            args = ("--site", str(settings.folder), "--control", str(theirs.fileno()), "--life", str(life_theirs))
            process = await start_python(MODULE, args, pass_fds=(theirs.fileno(), life_theirs))
        except BaseException:
            ours.close()
            os.close(life_ours)
            raise
        finally:
            theirs.close()
            os.close(life_theirs)
        link = cls(process, ours, life_ours, deadline_s)
        try:
            await link._load(settings, dialects)
        except BaseException:
            await link.close()
            raise
        return link

    async def branch(self) -> Branch:
        """Fork a branch.

        Raises:
            CallMovedError: the process has ended.
        """
        async with self._forking:
            if not self.is_alive:
                raise CallMovedError
            branch, fds = await self._new_branch()
            try:
                branch.pid = await self._fork(fds)
            except BaseException:
                await branch.closed()
                raise
            branch.send_signal = self._send_signal
            self._branches[branch.pid] = branch
            return branch

    async def drained(self) -> None:
        """Wait until no call is before any branch."""
        for branch in tuple(self._branches.values()):
            await branch.idle()

    async def close(self) -> None:
        """End the process and all its branches; also if whoever asks for it is cancelled meanwhile."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self.is_alive = False
        os.close(self._life)  # kills its group
        for branch in tuple(self._branches.values()):
            await branch.closed()
        self._branches.clear()
        await self._process.wait()
        await self._listening
        self._control.close()

    async def _fork(self, fds: list[int]) -> int:
        self._forked += 1
        try:
            socket.send_fds(self._control, [frame({"branch": self._forked})], fds)
            async with asyncio.timeout(FORKING_S):
                while said := await self._heard.get():
                    if said["number"] == self._forked:  # otherwise one that nobody waits for any more
                        return said["branched"]
        except OSError:  # also the end of the timeout
            pass
        finally:
            for fd in fds:
                os.close(fd)
        raise CallMovedError

    async def _new_branch(self) -> tuple[Branch, list[int]]:
        ours, theirs = socket.socketpair()
        life_theirs, life_ours = os.pipe()
        board, report = Board.make(), tempfile.TemporaryFile(prefix="labwright-report-")  # noqa: SIM115 - the branch closes it
        fds = [theirs.detach(), os.dup(board.file.fileno()), life_theirs, os.dup(report.fileno())]
        branch = Branch(board, report, life_ours, self.deadline_s)
        await asyncio.get_running_loop().create_unix_connection(lambda: branch, sock=ours)
        return branch, fds

    async def _load(self, settings: Settings, dialects: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        order = frame({"settings": settings.model_dump_json(by_alias=True), "dialects": list(dialects)})
        try:
            async with asyncio.timeout(LOADING_S):
                await loop.sock_sendall(self._control, order)
                said = await self._heard.get()
        except (TimeoutError, ConnectionError) as error:
            said = {"findings": [f"loading the site's code takes longer than {LOADING_S:g} s: {error}"]}
        if said is None:
            code = await self._process.wait()
            said = {"findings": [f"the site's code ended the process that loaded it, exit code {code}"]}
        if "findings" in said:
            raise SiteError(
                f"the site in {settings.folder} cannot be loaded",
                findings=tuple(said["findings"]),
                because=said["findings"][0],
                cure="mend what is found; `labwright check` lists all of it",
            )
        self.description = SiteDescription.model_validate(said["loaded"])

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        reader = FrameReader()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._control, CHUNK):
                for message in reader.feed(data):
                    self._hear(message)
        self.is_alive = False
        self._heard.put_nowait(None)
        for branch in self._branches.values():
            branch.end("the process that loaded the site has ended", is_counted=False)

    def _hear(self, message: dict[str, Any]) -> None:
        match message:
            case {"ended": int(pid), "how": str(how)}:
                if branch := self._branches.pop(pid, None):
                    branch.end(how)
            case _:
                self._heard.put_nowait(message)

    def _send_signal(self, pid: int, number: int) -> None:
        with contextlib.suppress(OSError):
            self._control.send(frame({"signal": pid, "number": number}))
