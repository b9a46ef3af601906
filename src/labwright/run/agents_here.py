"""Which agents are here: followed by their presence, so that an open session of one that is gone is shown as lost."""

from __future__ import annotations

import asyncio
from typing import Any

from labwright.journal.connection import Connection
from labwright.journal.presence import OWNER, watch
from labwright.journal.session_fold import decoded

KIND = "agent"


class AgentsHere:
    """The agents that are here now, by name, each with what it says of itself."""

    def __init__(self) -> None:
        self.agents: dict[str, dict[str, Any]] = {}
        self.known = asyncio.Event()
        """Set once everybody who was here at the beginning has been told."""

    def brief(self) -> dict[str, dict[str, Any]]:
        """Tell of each what selectors choose by: its class and its labels."""
        return {name: {"class": said.get("class"), "labels": said.get("labels")} for name, said in self.agents.items()}

    async def follow(self, connection: Connection) -> None:
        """Follow them for ever."""
        async for seen in watch(connection, KIND):
            if seen is None:
                self.known.set()
            elif seen.body is None:
                self.agents.pop(decoded(seen.name), None)
            else:
                said = {name: value for name, value in seen.body.items() if name != OWNER}
                self.agents[decoded(seen.name)] = {**said, "name": decoded(seen.name)}
