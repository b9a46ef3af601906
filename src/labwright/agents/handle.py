"""An agent as its clients see it: operations to start, and sessions to wait for, none of them in vain.

Every wait ends: with the session, with its time, or with the agent, whose death is seen by push.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labwright.agents.asking import Asked
from labwright.agents.following import agents_here
from labwright.agents.session_handle import SessionHandle, snapshot_of, succeeded
from labwright.core.errors import UsageError
from labwright.core.ids import hashed_id, new_id
from labwright.core.model import OperationKind, SessionSnapshot
from labwright.core.plain import to_plain
from labwright.journal.connection import Connection
from labwright.journal.journal import Journal

__all__ = ["AgentHandle", "OperationHandle", "SessionHandle", "agents_here", "describe"]

QUICK_S = 1.0
"""A call waits so long for the end of its session before it begins to watch the agent, too."""
OPTIONS = frozenset({"timeout_s", "key", "session", "run", "step", "token", "valid_for_s"})


class AgentHandle:
    """A handle on one agent; what it can do are attributes: `await handle.take_noise(duration=30)`."""

    def __init__(self, journal: Journal, name: str, *, sender: str, by: str = "", patience_s: float = 10.0) -> None:
        self.name = name
        self._journal = journal
        self._by = by or sender
        self._asked = Asked(journal.connection, name, sender, patience_s)

    def __repr__(self) -> str:
        return f"<agent {self.name}>"

    def operation(self, name: str) -> OperationHandle:
        """Give a handle on an operation, whatever its name."""
        return OperationHandle(self._journal, self._asked, name, by=self._by)

    def __getattr__(self, name: str) -> OperationHandle:
        """Give a handle on an operation."""
        if name.startswith("_"):
            raise AttributeError(name)
        return self.operation(name)

    def session(self, session_id: str, snapshot: SessionSnapshot | None = None) -> SessionHandle:
        """Give a handle on a session of this agent by its id, with what is known of it already."""
        return SessionHandle(self._journal, self._asked, session_id, by=self._by, snapshot=snapshot)

    async def describe(self) -> dict[str, Any]:
        """Ask the agent what it is, what it can do, and what it does."""
        return (await self._asked.ask(None, {"do": "describe"}))["agent"]

    async def ping(self) -> None:
        """Ask the agent whether it is here.

        Raises:
            AgentGoneError: it is not.
        """
        await self._asked.ask(None, {"do": "ping"})

    async def sessions(self) -> list[dict[str, Any]]:
        """List what runs now, briefly."""
        return (await self._asked.ask(None, {"do": "sessions"}))["sessions"]


class OperationHandle:
    """A handle on one operation of one agent; calling it runs a task to its end, or starts a process."""

    def __init__(
        self, journal: Journal, asked: Asked, name: str, *, by: str = "", options: Mapping[str, Any] | None = None
    ) -> None:
        self.name = name
        self.options = dict(options or {})
        self._journal = journal
        self._asked = asked
        self._by = by

    def __repr__(self) -> str:
        return f"<operation {self.name} of {self._asked.agent}>"

    def with_options(self, **options: Any) -> OperationHandle:
        """Give a handle whose starts have these options; one that is None is left out.

        `timeout_s` is the session's deadline, `key` or `session` (an id) make the start repeatable, `valid_for_s` is
        how long the command may take to be followed; `run`, `step` and `token` say which attempt of a run asks.

        Raises:
            UsageError: there is no such option.
        """
        if unknown := sorted(options.keys() - OPTIONS):
            raise UsageError(
                f"a start has no option {', '.join(unknown)}",
                because=f"its options are: {', '.join(sorted(OPTIONS))}",
                cure="parameters of the operation are given in the call",
            )
        return OperationHandle(self._journal, self._asked, self.name, by=self._by, options={**self.options, **options})

    async def start(self, **params: Any) -> SessionHandle:
        """Start it, or find the session that the same command has started.

        Raises:
            LabwrightError: it was not started, for this reason.
        """
        reply = await self._asked.ask(self.name, self._command(params))
        return self._handle(reply)

    async def __call__(self, **params: Any) -> Any:
        """Run a task to its end and give its session; of a process, start it and give a handle on its session.

        Raises:
            SessionFailedError: the task did not succeed.
            AgentGoneError: the agent went away meanwhile.
            LabwrightError: it was not started, for this reason.
        """
        handle = await self.begin(params)
        if handle.snapshot.kind is OperationKind.PROCESS:
            return handle
        return succeeded(await handle.wait())

    async def begin(self, params: Mapping[str, Any], *, brings_whole: bool = True) -> SessionHandle:
        """Start it as `start` does, and give it a moment to end: a quick task is over when the handle is given.

        Without `brings_whole`, what was too large for a reply is left out of the snapshot for good.

        Raises:
            LabwrightError: it was not started, for this reason.
        """
        command = {**self._command(params), "wait": True}
        first, second = await self._asked.ask_twice(self.name, command, second_s=QUICK_S)
        handle = self._handle(first)
        handle.brings_whole = brings_whole
        if second is not None or handle.snapshot.state.is_final:
            await handle.take(second or first)
        return handle

    async def check(self, params: Mapping[str, Any]) -> None:
        """Ask whether there is such an operation, and whether it takes these parameters; nothing is started.

        Raises:
            NotFoundError: the agent has no such operation.
            ParameterError: they do not fit; it lists every finding.
            AgentGoneError: the agent is away.
        """
        await self._asked.ask(self.name, {"do": "check", "params": to_plain(dict(params))})

    async def status(self) -> SessionSnapshot | None:
        """Ask how its newest session stands; None if it never ran.

        Raises:
            AgentGoneError: the agent is away.
        """
        return snapshot_of(await self._asked.ask(self.name, {"do": "status"}))

    async def wait(self, timeout: float | None = None) -> SessionSnapshot | None:
        """Wait until its newest session has ended; None if it never ran.

        Raises:
            WaitTimeoutError: the time has passed.
            AgentGoneError: the agent is away, or went away.
        """
        newest = await self.status()
        if newest is None:
            return None
        handle = SessionHandle(self._journal, self._asked, newest.id, by=self._by)
        return await handle.wait(timeout)

    async def stop(self, reason: str = "") -> SessionSnapshot:
        """Ask its newest session to end, which is its success.

        Raises:
            NotRunningError: nothing runs.
            UsageError: it is a task.
        """
        return await self._end("stop", reason)

    async def abort(self, reason: str = "") -> SessionSnapshot:
        """Have its newest session ended early.

        Raises:
            NotRunningError: nothing runs.
        """
        return await self._end("abort", reason)

    async def _end(self, verb: str, reason: str) -> SessionSnapshot:
        body = {"do": verb, "by": self._by, "reason": reason}
        return SessionSnapshot.model_validate((await self._asked.ask(self.name, body))["session"])

    def _command(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Give the start command, with an id that makes it safe to repeat."""
        options = {name: value for name, value in self.options.items() if value is not None}
        if "session" not in options:
            key = options.get("key")
            options["session"] = new_id("ses") if key is None else hashed_id("ses", self._asked.agent, self.name, key)
        return {"do": "start", "params": to_plain(dict(params)), "by": self._by, **options}

    def _handle(self, reply: Mapping[str, Any]) -> SessionHandle:
        snapshot = SessionSnapshot.model_validate(reply["session"])
        handle = SessionHandle(self._journal, self._asked, snapshot.id, by=self._by, snapshot=snapshot)
        handle.is_new = bool(reply.get("is_new"))
        return handle


async def describe(connection: Connection, name: str, *, sender: str = "labwright") -> dict[str, Any]:
    """Ask an agent what it is, what it can do, and what it does."""
    return (await Asked(connection, name, sender).ask(None, {"do": "describe"}))["agent"]
