"""What an agent says of itself: briefly to everybody all the time, wholly to who asks."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import inspect
import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from labwright.agents.agent import Agent
from labwright.agents.feeds import Feed
from labwright.agents.operation import AnyOperation
from labwright.core.clock import to_text
from labwright.core.ids import content_hash
from labwright.core.model import SessionSnapshot, utc_now
from labwright.core.plain import to_plain
from labwright.journal.presence import ProcessIdentity


class Described(Protocol):
    """What is described."""

    name: str
    labels: Mapping[str, str]
    site: Path | None
    agent: Agent
    operations: dict[str, AnyOperation]


class Description:
    """Describes one agent."""

    def __init__(self, served: Described) -> None:
        self._served = served
        self._since = to_text(utc_now())

    @functools.cached_property
    def brief(self) -> dict[str, Any]:
        """Who it is; its `revision` changes whenever its operations do."""
        served = self._served
        return {
            "name": served.name,
            "class": type(served.agent).__name__,
            "labels": dict(served.labels),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": _version(),
            "revision": content_hash([served.name, self._doc, self._operations])[:12],
            "since": self._since,
            "site": str(served.site) if served.site is not None else None,
            "identity": str(ProcessIdentity.mine()),
        }

    def whole(self, sessions: Sequence[SessionSnapshot | None], feeds: Sequence[Feed]) -> dict[str, Any]:
        """Tell everything about it: what it can do, and what it does; sessions without their messages."""
        known = {session.id: session for session in sessions if session is not None}
        return {
            **self.brief,
            "doc": self._doc,
            "operations": self._operations,
            "feeds": [feed.describe() for feed in feeds],
            "sessions": [json.loads(brief_session(session)) for session in known.values()],
        }

    def renew(self) -> None:
        """Describe its operations anew, which have changed."""
        for name in ("brief", "_operations"):
            self.__dict__.pop(name, None)

    @functools.cached_property
    def _doc(self) -> str:
        return inspect.cleandoc(type(self._served.agent).__doc__ or "")

    @functools.cached_property
    def _operations(self) -> list[dict[str, Any]]:
        return [to_plain(operation.describe()) for operation in self._served.operations.values()]


def _version() -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("labwright")
    return "unknown"


def brief_session(session: SessionSnapshot) -> str:
    """Write a session without what may be large: its parameters, messages, data and result."""
    return session.model_dump_json(by_alias=True, exclude={"params", "messages", "data", "result"})
