"""Blocking operations in child processes, as the agent sees them: started like a script, heard over the side channel.

The child speaks with the words of `side_words`, and its last one is `returned` or `raised`. It may ask for scripts of
its session, files and samples. It is told to stop over the same channel, and ended like any script.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import ValidationError

from labwright.agents.agent import Agent
from labwright.agents.child import child_command
from labwright.agents.execution import OperationFailedError
from labwright.agents.operation import AnyOperation
from labwright.agents.script import Script
from labwright.agents.script_folder import ScriptEnd
from labwright.agents.script_output import SideMessage
from labwright.agents.session import ScriptEars, Session
from labwright.core.errors import LabwrightError, Stopped, UsageError
from labwright.core.model import ErrorRecord, FileEntry
from labwright.core.plain import from_plain, to_plain

CHILD = 0
"""The number of the child process among the scripts of its session."""
LATE_S = 1.0
"""A child whose agent is gone is ended by its keeper so long after its deadline."""


class Parent(Protocol):
    """The agent's server, as far as child processes need it."""

    name: str
    labels: Mapping[str, str]
    state_dir: Path
    site: Path | None
    agent: Agent
    arguments: dict[str, Any]

    async def start_script(
        self, session: Session, number: int, path: str, args: Sequence[object], options: Mapping[str, Any]
    ) -> Script:
        """Start a session's script of that number, or find it."""
        ...

    async def start_command(
        self, session: Session, number: int, command: Sequence[str], options: Mapping[str, Any]
    ) -> Script:
        """Start a session's program of that number, or find it."""
        ...

    async def follow_script(self, session: Session, script: Script, heard: ScriptEars) -> ScriptEnd:
        """Bring what a script says to its session until it has ended."""
        ...

    async def register_file(self, file: FileEntry) -> None:
        """Write a file into the catalogue."""
        ...

    def send(self, subject: str, data: bytes) -> None:
        """Publish what nobody acknowledges."""
        ...


class ChildCall:
    """One operation in a child process: `await ChildCall(parent, session, operation).run()`."""

    def __init__(self, parent: Parent, session: Session, operation: AnyOperation) -> None:
        self._parent = parent
        self._session = session
        self._operation = operation
        self._child: Script
        self._said: Mapping[str, Any] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> Any:
        """Run the operation, or go on with the process that a predecessor started, and give what it returns.

        Raises:
            OperationFailedError: it failed, or its process ended without a word.
            Stopped: it noticed that it was asked to end.
            UsageError: the agent's class cannot be found by name in another process.
        """
        session = self._session
        command = child_command(place_of(type(self._parent.agent)), self._operation.name)
        path = os.pathsep.join(entry for entry in sys.path if entry)
        options: dict[str, Any] = {"stdin_json": self._job(), "env": {"PYTHONPATH": path}}
        if session.timeout_s is not None:
            options["deadline_s"] = session.timeout_s + LATE_S
        self._child = await self._parent.start_command(session, CHILD, command, options)
        await self._hear_again(session.heard.get(CHILD, 0))
        self._beside(self._pass_on())
        try:
            end = await self._parent.follow_script(session, self._child, ScriptEars(on_message=self._hear))
        finally:
            for task in self._tasks:
                task.cancel()
        return self._outcome(end)

    async def _hear_again(self, until: int) -> None:
        """Do once more what a predecessor may have left undone: it heard it, and died."""
        if until:
            async for item in self._child.output():
                if isinstance(item, SideMessage) and item.message.get("do") in {"script", "returned", "raised"}:
                    self._hear(item.message)
                if item.offset >= until:
                    return

    def _hear(self, message: dict[str, Any]) -> None:
        match message.get("do"):
            case "returned" | "raised":
                self._said = message
            case "script":
                self._beside(
                    self._script(int(message["number"]), str(message["path"]), message["args"], message["options"])
                )
            case "register_file":
                self._beside(self._register(message["file"]))
            case "publish" if str(message["subject"]).startswith("feed."):
                self._parent.send(str(message["subject"]), str(message["data"]).encode())
            case _:
                pass

    async def _script(self, number: int, path: str, args: Sequence[object], options: dict[str, Any]) -> None:
        """Run a script that the child asks for, and tell it how that ended."""
        log = bool(options.pop("log", True))
        if isinstance(relay := options.get("relay"), list):
            options["relay"] = tuple(cast("list[Any]", relay))
        try:
            script = await self._parent.start_script(self._session, number, path, args, options)
            end = await self._parent.follow_script(self._session, script, ScriptEars(log=log))
        except Exception as error:  # noqa: BLE001 - whatever it is, the child waits for an answer
            record = ErrorRecord.of(error).model_dump(mode="json", by_alias=True)
            await self._child.tell({"answer": number, "error": record})
        else:
            await self._child.tell({"answer": number, "end": asdict(end)})

    async def _register(self, file: dict[str, Any]) -> None:
        with contextlib.suppress(ValidationError):
            await self._parent.register_file(FileEntry.model_validate(file))

    async def _pass_on(self) -> None:
        """Tell the child when its session is asked to end."""
        await self._session.asked()
        await self._child.tell({"end": self._session.reason})

    def _beside(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _job(self) -> dict[str, Any]:
        session, parent = self._session, self._parent
        return {
            "session": session.id,
            "params": session.params,
            "started_at": session.started_at.isoformat(),
            "run": session.run,
            "by": session.by,
            "data": session.data,
            "name": parent.name,
            "labels": dict(parent.labels),
            "state_dir": str(parent.state_dir),
            "site": str(parent.site) if parent.site is not None else None,
            "arguments": to_plain(parent.arguments),
        }

    def _outcome(self, end: ScriptEnd) -> Any:
        said = self._said
        if said is not None and said["do"] == "returned":
            return from_plain(said.get("value"))
        name = self._session.operation
        if said is not None and said.get("is_stopped"):
            raise Stopped(f"{name} was asked to end", because=self._session.reason)
        if said is not None:
            with contextlib.suppress(ValidationError):
                raise OperationFailedError(ErrorRecord.model_validate(said.get("error")))
        kind = {"deadline": "timeout", "lost": "lost"}.get(end.reason, "died")
        because = end.summary
        cure = f"see its log: labwright sessions log {self._session.id}"
        error = LabwrightError(f"the process of {name} ended without a result", because=because, cure=cure)
        raise OperationFailedError(ErrorRecord.of(error, kind=kind))


def place_of(agent: type[Agent]) -> str:
    """Give MODULE:CLASS by which another process finds an agent's class.

    Raises:
        UsageError: it cannot be found so.
    """
    found: Any = sys.modules.get(agent.__module__)
    for part in agent.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is not agent:
        raise UsageError(
            f"{agent.__qualname__} cannot be made again in a child process",
            because=f"it is not at the top of the module {agent.__module__}",
            cure="move the class there, write `async def`, or use @operation(thread=True)",
        )
    return f"{agent.__module__}:{agent.__qualname__}"
