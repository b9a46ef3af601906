"""What an agent is given, for tests that make its object themselves: name, folder, log and feeds that remember."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import structlog

from labwright.agents.agent import Agent, attach
from labwright.agents.feeds import Feed
from labwright.core.errors import NotProvidedError
from labwright.core.model import FileEntry
from labwright.testing.fake import LogLine

if TYPE_CHECKING:
    from labwright.agents.session import Session
    from labwright.journal.journal import Journal


def served(
    agent: Agent,
    name: str = "agent",
    *,
    labels: Mapping[str, str] | None = None,
    state_dir: Path | None = None,
    site: Path | None = None,
) -> Given:
    """Give an agent what it has when it is served, and keep what it does with that; `open` is still to be called.

    >>> class Pump(Agent):
    ...     def tell(self) -> None:
    ...         self.log.info("primed", by=self.name)
    ...         self.feed("pressure").publish({"bar": 1.5})
    >>> pump = Pump()
    >>> given = served(pump, "pump-1")
    >>> pump.tell()
    >>> given.lines[0].text, given.samples["pressure"]
    ('primed', [{'bar': 1.5}])
    """
    given = Given(name, labels or {}, state_dir, site)
    attach(agent, given)
    return given


class Given:
    """What a test has given to an agent, with `lines`, `samples` by feed, `files` and `aborted` to look at."""

    def __init__(self, name: str, labels: Mapping[str, str], state_dir: Path | None, site: Path | None) -> None:
        self.name = name
        self.labels: Mapping[str, str] = MappingProxyType(dict(labels))
        self.site = site
        self.lines: list[LogLine] = []
        """What it has logged, oldest first."""
        self.samples: dict[str, list[dict[str, Any]]] = {}
        """What it has published, by the name of the feed."""
        self.files: list[FileEntry] = []
        """The files that it has announced."""
        self.aborted: list[str] = []
        """The ids of the sessions that it has aborted."""
        self.sessions: dict[str, Session] = {}
        """What runs on it; a test may put sessions here."""
        self.log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
            None, processors=[self._keep], wrapper_class=structlog.stdlib.BoundLogger
        )
        self._state_dir = state_dir

    @property
    def state_dir(self) -> Path:
        """Its folder: the one of the test, or one that is removed with this object."""
        if self._state_dir is None:
            self._state_dir = Path(tempfile.mkdtemp(prefix="labwright-test-"))
            weakref.finalize(self, shutil.rmtree, self._state_dir, ignore_errors=True)
        self._state_dir.mkdir(parents=True, exist_ok=True)
        return self._state_dir

    @property
    def journal(self) -> Journal:
        """Refuse it: there is none.

        Raises:
            NotProvidedError: always.
        """
        raise NotProvidedError(
            "the agent of a test has no journal",
            because="it is served to nobody",
            cure="serve it in a lab: labwright.testing.lab()",
        )

    def operations_changed(self) -> None:
        """Do nothing: nobody calls its operations by name."""

    def feed(self, name: str, *, buffer_s: float) -> Feed:  # noqa: ARG002 - what is published is kept at once
        """Give a feed that keeps its samples."""
        kept = self.samples.setdefault(name, [])
        return Feed(self.name, name, 0, lambda _, sample: kept.append(json.loads(sample)["data"]))

    async def register_file(self, file: FileEntry) -> None:
        """Keep a file."""
        self.files.append(file)

    async def abort(self, session_id: str, *, reason: str, by: str) -> None:  # noqa: ARG002 - the protocol's
        """Keep which session was aborted."""
        self.aborted.append(session_id)

    def _keep(self, _logger: Any, level: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        fields = dict(event)
        self.lines.append(LogLine(level, str(fields.pop("event", "")), fields))
        raise structlog.DropEvent
