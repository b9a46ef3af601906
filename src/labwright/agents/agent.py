"""The class that users derive their instruments from: what an agent is given, and what it may say for itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import structlog

from labwright.agents.feeds import Feed
from labwright.agents.operation import AnyOperation, Operation, operations_of
from labwright.core.errors import NotProvidedError, UsageError
from labwright.core.model import FileEntry

if TYPE_CHECKING:
    from labwright.agents.session import Session
    from labwright.journal.journal import Journal

Leftovers = Literal["adopt", "kill"]


class AgentHost(Protocol):
    """What an agent is given by the process that serves it."""

    @property
    def name(self) -> str:
        """The name under which it is known."""
        ...

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels by which selectors choose it."""
        ...

    @property
    def state_dir(self) -> Path:
        """A folder of its own."""
        ...

    @property
    def site(self) -> Path | None:
        """The folder of the site that started it, if one did."""
        ...

    @property
    def log(self) -> structlog.stdlib.BoundLogger:
        """Its logger."""
        ...

    @property
    def sessions(self) -> Mapping[str, Session]:
        """What runs now, by id."""
        ...

    @property
    def journal(self) -> Journal:
        """The journal that it is served on."""
        ...

    def operations_changed(self) -> None:
        """Ask anew which operations it has beside those of its class."""
        ...

    def feed(self, name: str, *, buffer_s: float) -> Feed:
        """Make or find a feed."""
        ...

    async def register_file(self, file: FileEntry) -> None:
        """Write a file into the catalogue."""
        ...

    async def abort(self, session_id: str, *, reason: str, by: str) -> None:
        """Abort a session, and wait for its end."""
        ...


class Agent:
    """A process that owns one instrument, under a name: derive from it, and mark methods with `@operation`.

    The class's docstring is its help; the arguments of `__init__` are given on its start (`--arg port=...`), converted
    to their types. There is no `super().__init__` to call. `open` is awaited before anything else may happen, `close`
    after everything has ended. In `__init__` none of what an agent is given (`name`, `log`, ...) is there yet.
    """

    leftovers: ClassVar[Leftovers] = "adopt"
    """What becomes of scripts that a predecessor of that name left running: taken up again, or ended."""

    _host: AgentHost | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for attribute, member in vars(cls).items():
            if isinstance(member, Operation) and hasattr(Agent, attribute):
                raise UsageError(
                    f"{cls.__name__} has an operation in the method {attribute!r}, which every agent has already",
                    because=f"Agent.{attribute} means something else",
                    cure=f'give the method another name, and write @operation(name="{attribute}")',
                )
        operations_of(cls)

    async def open(self) -> None:
        """Get hold of the instrument; nothing starts before this is done."""

    async def close(self) -> None:
        """Let go of the instrument; everything has ended before."""

    def own_labels(self) -> Mapping[str, str]:
        """Give labels that the agent knows itself; asked once, before `open`. Those given on its start count more."""
        return {}

    def more_operations(self) -> Iterable[AnyOperation]:
        """Give the operations that the agent has beside those of its class (`made_operation`).

        Asked before `open`, so that a session of one that a predecessor left can be taken up, and whenever
        `operations_changed` is called.
        """
        return ()

    def operations_changed(self) -> None:
        """Have what `more_operations` now gives served in place of what it gave before; sessions that run go on."""
        self._given.operations_changed()

    @property
    def name(self) -> str:
        """The name under which the agent is known."""
        return self._given.name

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels by which selectors choose it."""
        return self._given.labels

    @property
    def state_dir(self) -> Path:
        """A folder of its own, which is there again after a restart."""
        return self._given.state_dir

    @property
    def site(self) -> Path | None:
        """The folder of the site that started it, if one did."""
        return self._given.site

    @property
    def log(self) -> structlog.stdlib.BoundLogger:
        """Its logger: `self.log.info("what happened", key=value)`."""
        return self._given.log

    @property
    def sessions(self) -> Mapping[str, Session]:
        """What runs now, by id of the session."""
        return self._given.sessions

    @property
    def journal(self) -> Journal:
        """The journal that it is served on, for an agent that has to do with other agents."""
        return self._given.journal

    def feed(self, name: str, *, buffer_s: float = 0) -> Feed:
        """Give the feed of that name, on which samples go out; with `buffer_s`, those of so many seconds together.

        Raises:
            UsageError: the name is not valid.
        """
        return self._given.feed(name, buffer_s=buffer_s)

    async def register_file(
        self,
        path: str,
        *,
        id: str | None = None,
        session: str | None = None,
        source: str = "",
        kind: str = "",
        format: str = "",  # noqa: A002 - the field's name
        archive: str = "",
        action: str = "",
        action_at: datetime | None = None,
        written_at: datetime | None = None,
        host: str = "",
        is_plot: bool = False,
        size: int | None = None,
        sha256: str | None = None,
        note: str | None = None,
    ) -> FileEntry:
        """Announce a file that the instrument has written; announced again under its id, it brings what is known now.

        The record waits on this machine while the journal is away.
        """
        from labwright.agents.files import new_file

        file = new_file(
            self.name,
            path,
            id,
            {
                "session": session,
                "source": source,
                "kind": kind,
                "format": format,
                "archive": archive,
                "action": action,
                "action_at": action_at,
                "written_at": written_at,
                "host": host,
                "is_plot": is_plot,
                "size": size,
                "sha256": sha256,
                "note": note,
            },
        )
        await self._given.register_file(file)
        return file

    async def abort_session(self, session_id: str, *, reason: str = "", by: str = "") -> None:
        """Abort another session of this agent, as the verb `abort` does, and wait for its end."""
        await self._given.abort(session_id, reason=reason, by=by)

    @property
    def _given(self) -> AgentHost:
        if self._host is None:
            raise NotProvidedError(
                f"{type(self).__name__} is not served yet, so it has no name, folder or log",
                because="they are given after `__init__` and before `open`",
                cure="use them in `open` or later",
            )
        return self._host


def attach(agent: Agent, host: AgentHost) -> None:
    """Give an agent what it needs of the process that serves it."""
    agent._host = host  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its one setter, kept out of users' sight
