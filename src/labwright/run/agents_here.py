"""Which agents are here: followed by their presence, so that an open session of one that is gone is shown as lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from labwright.core.model import utc_now
from labwright.journal.connection import Connection
from labwright.journal.presence import OWNER, watch
from labwright.journal.session_fold import decoded

KIND = "agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """An agent came, says something new of itself, or (`said` is None) is gone, with or without a farewell.

    With `is_found` that was not seen to happen: it was so when somebody began to look.
    """

    agent: str
    said: dict[str, Any] | None
    said_farewell: bool = False
    is_found: bool = False
    at: datetime = field(default_factory=utc_now)


class AgentsHere:
    """The agents that are here now, by name, each with what it says of itself."""

    def __init__(self) -> None:
        self.agents: dict[str, dict[str, Any]] = {}
        self.known = asyncio.Event()
        """Set once everybody who was here at the beginning has been told."""
        self.listeners: list[Callable[[Sighting], None]] = []
        """Who is told of each change from then on."""
        self._said: dict[str, dict[str, Any]] = {}

    def brief(self) -> dict[str, dict[str, Any]]:
        """Tell of each what selectors choose by: its class and its labels."""
        return {name: {"class": said.get("class"), "labels": said.get("labels")} for name, said in self.agents.items()}

    async def follow(self, connection: Connection) -> None:
        """Follow them for ever."""
        async for seen in watch(connection, KIND, only_changes=True):
            if seen is None:
                self.known.set()
                continue
            name = decoded(seen.name)
            if seen.body is None:
                self.agents.pop(name, None)
                self._said.pop(name, None)
            else:
                said = {key: value for key, value in seen.body.items() if key != OWNER}
                self.agents[name] = {**said, "name": name}
                self._said[name] = seen.body
            if self.known.is_set():
                sighting = Sighting(agent=name, said=seen.body, said_farewell=seen.said_farewell)
                for listener in self.listeners:
                    listener(sighting)

    def found(self) -> list[Sighting]:
        """Give everybody who is here now."""
        return [Sighting(agent=name, said=said, is_found=True) for name, said in self._said.items()]
