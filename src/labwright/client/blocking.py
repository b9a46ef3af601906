"""The blocking handle on a running lab, for scripts and notebooks: `connect` and `Lab`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Generator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from labwright.agents.blocking_handles import BlockingAgentHandle
from labwright.agents.fleet_handle import BlockingFleetHandle
from labwright.client.connecting import connect_async
from labwright.client.lab import AsyncLab
from labwright.client.results import Emitted, RequestedRuns
from labwright.core.model import Event, Run
from labwright.core.request import Request
from labwright.plan.durable import ScheduleDefinition

T = TypeVar("T")


class Lab:
    """A running lab, for scripts and notebooks: the names of `AsyncLab`, blocking. Made by `connect`."""

    def __init__(self, lab: AsyncLab, loop: asyncio.AbstractEventLoop) -> None:
        self._lab = lab
        self._loop = loop

    def _do(self, action: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(action, self._loop).result()

    def ask(self, question: str, **arguments: Any) -> Any:
        """Ask the lab that runs."""
        return self._do(self._lab.ask(question, **arguments))

    def emit(
        self, event: Event | Mapping[str, Any] | str | bytes, *, wait: bool = False, timeout_s: float | None = None
    ) -> Emitted:
        """Put an event into the journal; with `wait`, return when all that follows has ended."""
        emitted = self._do(self._lab.emit(event))
        if wait:
            self._do(self._lab.wait(self._lab.follow_event(emitted), timeout_s=timeout_s))
        return emitted

    def run(self, request: Request, *, wait: bool = False, timeout_s: float | None = None) -> RequestedRuns:
        """Ask for runs, one per target; with `wait`, return when they have ended."""
        runs = self._do(self._lab.request(request))
        if wait:
            self._do(self._lab.wait(self._lab.follow_runs(runs), timeout_s=timeout_s))
        return runs

    def runs(self, **filters: Any) -> dict[str, Any]:
        """List runs, newest first."""
        return self._do(self._lab.runs(**filters))

    def run_shown(self, run_id: str, *, full: bool = False) -> dict[str, Any]:
        """Give one run."""
        return self._do(self._lab.run_shown(run_id, full=full))

    def why(self, run_id: str) -> list[dict[str, Any]]:
        """Tell the story of a run."""
        return self._do(self._lab.why(run_id))

    def abort(self, run_id: str, *, reason: str = "") -> Run:
        """Have a run end early."""
        return self._do(self._lab.abort(run_id, reason=reason))

    def retry(self, run_id: str, *, from_start: bool = False) -> Run:
        """Have an ended run tried again."""
        return self._do(self._lab.retry(run_id, from_start=from_start))

    def approve(self, run_id: str, *, reason: str = "") -> Run:
        """Let a run start that waits for a person's approval."""
        return self._do(self._lab.approve(run_id, reason=reason))

    def add_schedule(self, name: str, definition: ScheduleDefinition) -> int:
        """Add a durable schedule; adding the same again changes nothing."""
        return self._do(self._lab.add_schedule(name, definition))

    def change_schedule(self, name: str, change: str, *, count: int = 1) -> int:
        """Change a durable schedule: `pause`, `resume`, `fire` a point now, `skip` so many, or `remove` it."""
        return self._do(self._lab.change_schedule(name, change, count=count))

    def claim(self, selector: str, seconds: float, *, reason: str = "") -> dict[str, Any]:
        """Have targets for oneself for a time, or renew one's own claim of the same selector; gives the claim."""
        return self._do(self._lab.claim(selector, seconds, reason=reason))

    def claims(self) -> list[dict[str, Any]]:
        """List the claims in force."""
        return self._do(self._lab.claims())

    def release_claim(self, claim_id: str, *, reason: str = "") -> dict[str, Any]:
        """Give a claim back before its time."""
        return self._do(self._lab.release_claim(claim_id, reason=reason))

    def audit(self, *, since: datetime | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """List refusals and claims, newest first."""
        return self._do(self._lab.audit(since=since, limit=limit))

    def agent(self, name: str) -> BlockingAgentHandle:
        """Give the handle on an agent: `lab.agent("s2").take_noise.start(duration=30)`."""
        return BlockingAgentHandle(self._lab.agent(name), self._do)

    def fleet(self, selector: str, **options: Any) -> BlockingFleetHandle:
        """Give the handle on a fleet: `lab.fleet("crate=1", quorum=7).uxm_setup(bands=[0]).rows`."""
        return BlockingFleetHandle(self._lab.fleet(selector, **options), self._do)

    def agents(self, on: str | None = None) -> list[dict[str, Any]]:
        """List the agents that are here, or those that a selector chooses."""
        return self._do(self._lab.agents(on))

    def agent_history(self, agent: str | None = None, **options: Any) -> dict[str, Any]:
        """List who was here when, newest first."""
        return self._do(self._lab.agent_history(agent, **options))

    def sessions(self, **filters: Any) -> dict[str, Any]:
        """List sessions, newest first."""
        return self._do(self._lab.sessions(**filters))

    def session_shown(self, session_id: str) -> dict[str, Any]:
        """Give one session."""
        return self._do(self._lab.session_shown(session_id))

    def files(self, **filters: Any) -> dict[str, Any]:
        """List the files that instruments have announced, newest first."""
        return self._do(self._lab.files(**filters))

    def feeds(self, agent: str | None = None) -> list[dict[str, Any]]:
        """List the feeds of the agents that are here, or of one."""
        return self._do(self._lab.feeds(agent))


@contextlib.contextmanager
def connect(site: Path | str | None = None, *, url: str | None = None) -> Generator[Lab]:
    """Open the lab of a site for blocking use; see `connect_async`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True, name="lab")
    thread.start()
    opened = connect_async(site, url=url)
    try:
        lab = asyncio.run_coroutine_threadsafe(opened.__aenter__(), loop).result()
        try:
            yield Lab(lab, loop)
        finally:
            asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result()  # logs that were left half read
            asyncio.run_coroutine_threadsafe(opened.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
