"""Fleets as one attempt of a run reaches them: who is chosen, and a call whose sessions a repeated step finds again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from labwright.agents.fleet import Asked, FleetCall, Reach, Tell
from labwright.agents.fleet_handle import FleetAsked, FleetHandle
from labwright.agents.following import agents_here
from labwright.agents.members import chosen, members
from labwright.core.errors import FleetFailedError, UsageError
from labwright.core.fleet import FleetResult, FleetRow, Outcome, light
from labwright.core.ids import hashed_id
from labwright.core.model import Run, Target
from labwright.core.request import Request
from labwright.journal.journal import Journal
from labwright.journal.records import SessionEnded
from labwright.journal.session_fold import session_subject
from labwright.plan.fan_out import FanOut
from labwright.run.agents import VALID_S
from labwright.run.services import Caller

CALL = "fleet-call"
"""The built-in task that calls an operation on a fleet."""
RUN = "fleet-run"
"""The built-in task that runs another task on each target of a fleet."""


@dataclass(frozen=True, kw_only=True)
class RunFleets:
    """The fleets of a site, as one attempt of a run reaches them."""

    journal: Journal
    run: str
    token: int
    by: str
    role: str = ""
    """That of the key with which the run was asked for: agents judge a call of a fleet by it."""
    targets: Callable[[], Awaitable[Mapping[str, Target]]]

    async def chosen(self, selector: str) -> tuple[str, ...]:
        """Name whom a selector chooses now, among the site's targets and the agents that are here.

        Raises:
            NotFoundError: nobody, or somebody who is not known.
        """
        here = await agents_here(self.journal.connection)
        return chosen(selector, members(await self.targets(), here), here)

    async def succeeded(self, targets: Sequence[str], asked: Asked, places: Sequence[str]) -> dict[str, FleetRow]:
        """Give the rows of targets whose session of an earlier call has succeeded, as their own records tell.

        A target was tried again only where the session before is known: where there is none, none follows.
        """
        rows: dict[str, FleetRow] = {}
        begun = [(place, name) for place in places for name in targets]
        for number in range(asked.how.retries + 1):
            subjects = {
                session_subject(name, self._session_id(place, name, asked.operation, number)): (place, name)
                for place, name in begun
                if name not in rows
            }
            if not subjects:
                break
            newest, _ = await self.journal.newest(list(subjects))
            for entry in newest:
                if isinstance(entry.record, SessionEnded) and entry.record.state == "succeeded":
                    result = light(entry.record.result)
                    row = FleetRow(outcome=Outcome.SUCCEEDED, session=entry.key, result=result)
                    rows[subjects[entry.subject][1]] = row
            begun = [subjects[entry.subject] for entry in newest]
        return rows

    def _session_id(self, place: str, name: str, operation: str, number: int) -> str:
        return hashed_id("ses", self.run, place, name, operation, number)

    def call(
        self,
        targets: Sequence[str],
        asked: Asked,
        caller: Caller,
        *,
        selector: str,
        before: Mapping[str, FleetRow],
        tell: Tell,
    ) -> FleetCall:
        """Make the call of one step; the same step, run again, makes the same sessions."""
        step, place = caller.next_call()
        reach = Reach(
            journal=self.journal,
            sender=f"{self.role}={self.by}" if self.role else self.by,
            by=self.by,
            session_id=lambda name, number: self._session_id(place, name, asked.operation, number),
            options={"run": self.run, "step": step, "token": self.token, "valid_for_s": VALID_S},
        )
        return FleetCall(reach, targets, asked, selector=selector, before=before, tell=tell)


class Children(Protocol):
    """The step that makes and awaits child runs."""

    async def spawn(self, request: Request) -> str:
        """Make a child run."""
        ...

    async def ended(self, run_id: str) -> Run:
        """Give a child run once it has ended; until then leave the step."""
        ...


def step_fleet(selector: str, options: Mapping[str, Any], children: Children) -> FleetHandle:
    """Give the handle behind `ctx.fleet`: each call is a child run, for which the step waits without its worker.

    Raises:
        UsageError: an option is not valid.
    """

    async def answer(asked: FleetAsked) -> FleetResult:
        if asked.verb != "call":
            raise UsageError(
                f"a step cannot {asked.verb} an operation on a fleet",
                because="it can call one, and wait for all ends",
                cure="reach each agent by ctx.agent(name)",
            )
        run = await children.ended(await children.spawn(call_request(asked)))
        return result_of(run)

    return FleetHandle(selector, FanOut.given(**options), answer)


def call_request(asked: FleetAsked, *, key: str | None = None) -> Request:
    """Ask for the run that calls an operation on a fleet."""
    return Request(
        CALL,
        key=key,
        params={
            "operation": asked.operation,
            "selector": asked.selector,
            "params": dict(asked.params),
            "options": asked.how.model_dump(mode="json", exclude_defaults=True),
        },
    )


def run_request(request: Request, how: FanOut) -> Request:
    """Ask for the run that makes the runs of a request, one on each target that it chooses.

    Raises:
        UsageError: the request chooses no targets.
    """
    if request.on is None:
        raise UsageError(
            f"{request.task} is to run on many targets, and none is chosen",
            because="waves, a failure budget and the like are about targets",
            cure="choose them: --on crate=1",
        )
    return Request(
        RUN,
        key=request.key,
        priority=request.priority,
        not_before=request.not_before,
        not_after=request.not_after,
        approve=request.approve,
        params={
            "task": request.task,
            "selector": request.on,
            "params": dict(request.params),
            "options": how.model_dump(mode="json", exclude_defaults=True),
            "priority": request.priority,
        },
    )


def inner_tasks(task: str, params: Any) -> Iterator[str]:
    """Name what a run has run on many targets, however deep: it needs for itself what those need.

    Raises:
        UsageError: it does not say so as it stands.
    """
    while task == RUN:
        given: dict[str, Any] = dict(cast("Mapping[str, Any]", params)) if isinstance(params, Mapping) else {}
        inner: object = given.get("task")
        if not isinstance(inner, str):
            raise UsageError(f"{RUN} is to run a task, and names none", cure="labwright run TASK --on SELECTOR")
        yield inner
        task, params = inner, given.get("params")


def result_of(run: Run) -> FleetResult:
    """Take the rows out of a run that called an operation on a fleet.

    Raises:
        FleetFailedError: it has none: it ended before it could call.
    """
    rows = cast("dict[str, Any]", run.result) if isinstance(run.result, dict) else {}
    if "targets" in rows:
        return FleetResult.model_validate(rows)
    error = run.error
    raise FleetFailedError(
        f"the call {run.id} {run.state.value}" + (f": {error.message}" if error else ""),
        because=error.because if error else "it ended before anything was called",
        cure=error.cure if error else f"labwright runs show {run.id}",
    )
