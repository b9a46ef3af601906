"""The handle of an identity on a lab: what it wants written, the lab that is served writes under its proven name.

It has the names of `AsyncLab`; only the way of commands is another, and so they need `serve`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labwright.client.asking import act
from labwright.client.lab import AsyncLab
from labwright.client.results import Emitted, RequestedRuns
from labwright.core.clock import SystemClock
from labwright.core.event import parse_event
from labwright.core.model import Event, RequestRecord, Run
from labwright.core.remote import error_of
from labwright.core.request import Request
from labwright.plan.durable import ScheduleDefinition


class ActingLab(AsyncLab):
    """A running lab, for who has a key; made by `connect_async`."""

    async def _act(self, verb: str, **arguments: Any) -> Any:
        """Have the lab do something.

        Raises:
            NotAllowedError: this identity may not do that.
            UnreachableError: no lab answers.
            LabwrightError: the lab did not do it, for this reason.
        """
        answer = await act(self._connection, verb, {**arguments, "seq": self.journal.seen})
        if "error" in answer:
            raise error_of(answer)
        self.journal.seen = max(self.journal.seen, int(answer["seq"]))
        return answer["result"]

    async def emit(self, event: Event | Mapping[str, Any] | str | bytes) -> Emitted:
        """Put an event into the journal; repeating the same event is safe."""
        parsed = event if isinstance(event, Event) else parse_event(event, clock=SystemClock())
        return Emitted(**await self._act("emit", event=parsed.model_dump(mode="json")))

    async def release(self, event_id: str) -> int:
        """Have an event that was set aside decided once more; gives the sequence of that."""
        return await self._act("release", event_id=event_id)

    async def request(self, request: Request) -> RequestedRuns:
        """Ask for runs: one per target that the request chooses."""
        made = await self._act("request", request=RequestRecord.of(request).model_dump(mode="json"))
        runs, targets = tuple(made["runs"]), tuple(made["targets"])
        return RequestedRuns(runs=runs, targets=targets, seq=made["seq"], is_new=made["is_new"])

    async def abort(self, run_id: str, *, reason: str = "") -> Run:
        """Have a run end early, whatever it does now; one that has ended stays as it is."""
        return Run.model_validate(await self._act("abort", run_id=run_id, reason=reason))

    async def retry(self, run_id: str, *, from_start: bool = False) -> Run:
        """Have an ended run tried again, from the step that failed or from its start."""
        return Run.model_validate(await self._act("retry", run_id=run_id, from_start=from_start))

    async def approve(self, run_id: str, *, reason: str = "") -> Run:
        """Let a run start that waits for a person's approval."""
        return Run.model_validate(await self._act("approve", run_id=run_id, reason=reason))

    async def change_pool(self, pool: str, state: str) -> int:
        """Pause, drain or resume a pool (`state`: paused, draining, active); gives the sequence of that."""
        return await self._act("pool", pool=pool, state=state)

    async def add_schedule(self, name: str, definition: ScheduleDefinition) -> int:
        """Add a durable schedule; gives the sequence of that. Adding the same again changes nothing."""
        return await self._act("add_schedule", name=name, definition=definition.model_dump(mode="json"))

    async def change_schedule(self, name: str, change: str, *, count: int = 1) -> int:
        """Change a durable schedule: `pause`, `resume`, `fire` a point now, `skip` so many, or `remove` it."""
        return await self._act("change_schedule", name=name, change=change, count=count)

    async def claim(self, selector: str, seconds: float, *, reason: str = "") -> dict[str, Any]:
        """Have targets for oneself for a time, or renew one's own claim of the same selector; gives the claim."""
        return await self._act("claim", selector=selector, seconds=seconds, reason=reason)

    async def release_claim(self, claim_id: str, *, reason: str = "") -> dict[str, Any]:
        """Give a claim back before its time; an admin also that of another."""
        return await self._act("unclaim", claim_id=claim_id, reason=reason)

    async def ask(self, question: str, **arguments: Any) -> Any:
        """Ask the lab that runs; a question that changes something is asked under this identity's name."""
        if question == "reload":
            return await self._act("reload")
        return await super().ask(question, **arguments)
