"""What a lab does for identities, which do not write to the journal themselves: judged, and written under their names.

`act.<sender>.<verb>` is the subject; NATS lets each identity publish under its own sender only, so it proves who asks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, cast

from labwright.access.asker import Asker
from labwright.client.lab import AsyncLab
from labwright.client.results import Emitted, RequestedRuns
from labwright.core.errors import ClaimedError, LabwrightError, NotAllowedError, UsageError
from labwright.core.logs import get_logger
from labwright.core.model import ErrorRecord, RequestRecord, Run, RunState
from labwright.core.roles import Role, checked_role
from labwright.journal.connection import Connection
from labwright.journal.records import Refused
from labwright.journal.session_fold import decoded
from labwright.plan.durable import ScheduleDefinition
from labwright.run.fleets import CALL, RUN, inner_tasks
from labwright.run.settings import Settings

NEEDS = {
    "emit": Role.OPERATOR,
    "request": Role.OPERATOR,
    "abort": Role.OPERATOR,
    "retry": Role.OPERATOR,
    "approve": Role.OPERATOR,
    "release": Role.OPERATOR,
    "claim": Role.OPERATOR,
    "unclaim": Role.OPERATOR,
    "add_schedule": Role.OPERATOR,
    "change_schedule": Role.OPERATOR,
    "pool": Role.EXPERT,
    "reload": Role.EXPERT,
}
"""What can be done, and the role that it needs."""
STARTS = frozenset({"fire", "resume"})
"""What is done to a schedule that makes it act, under the role of who has added it."""
AS_ASKED: Mapping[str, Callable[..., Awaitable[object]]] = {
    "release": AsyncLab.release,
    "claim": AsyncLab.claim,
    "unclaim": AsyncLab.release_claim,
    "pool": AsyncLab.change_pool,
}
"""What is done as it is asked for, once the role will do."""
WHAT = {
    "emit": "send events",
    "request": "request runs",
    "abort": "abort runs",
    "retry": "retry runs",
    "approve": "approve runs",
    "release": "release events that were set aside",
    "claim": "claim targets",
    "unclaim": "give claims back",
    "add_schedule": "add schedules",
    "change_schedule": "change schedules",
    "pool": "pause, drain or resume pools",
    "reload": "have the site loaded again",
}
"""The same in words, for whom it is refused."""
OPEN = ",".join(state.value for state in RunState if not state.is_final)

log = get_logger(__name__)


class Acts:
    """Does what identities ask for; `seen` tells how far the journal is known here, so that nothing is judged late."""

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        *,
        reload: Callable[[], Awaitable[dict[str, Any]]],
        seen: Callable[[], int],
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._reload = reload
        self._seen = seen

    async def answer(self, subject: str, data: bytes) -> dict[str, Any]:
        """Do something, or say in the shape of an answer why not; never raises."""
        parts = subject.split(".")
        asker, verb = Asker.of(decoded(parts[1])), parts[-1]
        try:
            body = _arguments(data)
        except UsageError as error:
            return _failed(error)
        lab = AsyncLab(
            self._connection,
            self._settings,
            by=asker.name,
            from_=str(body.pop("origin", ""))[:256],
            role=asker.role,
        )
        seq = body.pop("seq", 0)
        lab.journal.seen = max(seq if isinstance(seq, int) else 0, self._seen())
        try:
            result = await self._done(lab, asker, verb, body)
        except LabwrightError as error:
            await self._note(error, asker, verb, lab)
            return _failed(error)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:  # arguments of another shape
            wrong = UsageError(f"{verb} cannot be done with these arguments", because=str(error)[:500])
            return _failed(wrong)
        except Exception as error:  # a border: the asker gets the bug, the lab goes on
            log.exception("what was asked for broke", verb=verb)
            return {"error": ErrorRecord.of(error).model_dump(mode="json", by_alias=True), "exit_code": 1}
        return {"result": result, "seq": lab.journal.seen}

    async def _done(self, lab: AsyncLab, asker: Asker, verb: str, body: dict[str, Any]) -> Any:
        if not asker.is_proven or verb not in NEEDS:
            raise UsageError(
                f"the lab does not know how to {verb}",
                because=f"it can: {', '.join(NEEDS)}",
                cure="use the same version of labwright on both sides",
            )
        asker.needs(NEEDS[verb], WHAT[verb])
        match verb:
            case "emit":
                done: object = await lab.emit(cast("Mapping[str, Any]", body["event"]))
            case "request":
                done = await _requested(lab, asker, body)
            case "abort" | "retry" | "approve":
                done = await _done_to_run(lab, asker, verb, body)
            case "add_schedule" | "change_schedule":
                done = await _scheduled(lab, asker, verb, body)
            case "release" | "claim" | "unclaim" | "pool":
                done = await AS_ASKED[verb](lab, **body)
            case _:
                done = await self._reload()
        return _plain(done)

    async def _note(self, error: LabwrightError, asker: Asker, verb: str, lab: AsyncLab) -> None:
        """Record that somebody was refused."""
        if not isinstance(error, NotAllowedError | ClaimedError):
            return
        role = asker.role if asker.is_proven else ""
        record = Refused(what=verb, by=asker.name, role=role, origin=lab.origin, error=ErrorRecord.of(error))
        with contextlib.suppress(LabwrightError):
            await lab.journal.append(f"audit.act.{record.record_id}", record, after=0, patience_s=10)


async def _done_to_run(lab: AsyncLab, asker: Asker, verb: str, body: dict[str, Any]) -> Run:
    run_id = str(body["run_id"])
    match verb:
        case "abort":
            await _may_touch(lab, asker, run_id)
            return await lab.abort(**body)
        case "retry":
            await _may_touch(lab, asker, run_id, starts=True)
            return await lab.retry(**body)
        case _:
            await _may_approve(lab, asker, run_id)
            return await lab.approve(**body)


async def _scheduled(lab: AsyncLab, asker: Asker, verb: str, body: dict[str, Any]) -> int:
    """Add or change a schedule; who has it act must be allowed all that its runs are."""
    if verb == "add_schedule":
        definition = ScheduleDefinition.given(**body["definition"])
        await _may_have_run(lab, asker, definition.task, definition.params)
        return await lab.add_schedule(body["name"], definition)
    if body["change"] in STARTS:
        known = await lab.ask("schedule", name=body["name"], limit=1)
        await _may_have_run(lab, asker, known["task"], known["definition"]["params"])
        if known["origin"] != "site":
            asker.needs(Role(known["role"] or Role.ADMIN), f"{body['change']} what {known['by']} has added")
    return await lab.change_schedule(**body)


async def _may_have_run(lab: AsyncLab, asker: Asker, task: str, params: Any) -> None:
    """Insist on the roles of all that a run of a task runs."""
    for each in (task, *inner_tasks(task, params)):
        asker.needs(await _role_of(lab, each), f"run {each}")


async def _requested(lab: AsyncLab, asker: Asker, body: dict[str, Any]) -> RequestedRuns:
    request = RequestRecord.model_validate(body["request"]).to_request()
    prepared = await lab.ask("prepare", task=request.task, params=dict(request.params), on=request.on)
    asker.needs(checked_role(prepared["role"], "the task"), f"run {request.task}")
    for inner in inner_tasks(request.task, request.params):
        asker.needs(await _role_of(lab, inner), f"run {inner}")
    return await lab.request(request)


async def _role_of(lab: AsyncLab, task: str) -> Role:
    tasks = {known["name"]: known for known in (await lab.ask("site"))["tasks"]}
    return checked_role(tasks[task]["role"] if task in tasks else Role.OPERATOR, "the task")


async def _may_touch(lab: AsyncLab, asker: Asker, run_id: str, *, starts: bool = False) -> None:
    """Insist that a run is not on a target that another has claimed, and where it is to start, on its task's role.

    To end it is to end what it has made, too; where it is to start, claims hold that off by themselves.
    """
    run = await lab.run_shown(run_id, full=True)
    if asker.role is not Role.ADMIN:
        made = [] if starts else await _made_by(lab, run["id"])
        await lab.check_claim(*dict.fromkeys(name for each in (run, *made) for name in _acts_on(each)))
    if starts:
        await _may_retry(lab, asker, run)


async def _made_by(lab: AsyncLab, run_id: str) -> list[dict[str, Any]]:
    """Give the open runs that a run has made, also through others."""
    made: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = await lab.runs(tree=run_id, state=OPEN, limit=500, cursor=cursor)
        made += await lab.journal.restore(page["items"])
        cursor = page["next_cursor"]
        if cursor is None:
            return made


def _acts_on(run: Mapping[str, Any]) -> Iterator[str]:
    """Name the targets of a run: its own, and those of its fleet."""
    if run["target"] is not None:
        yield run["target"]
    if run["task"] in {CALL, RUN}:
        chosen: Any = next((step["output"] for step in run["steps"] if step["name"] == "choose"), None)
        yield from cast("list[str]", chosen) if isinstance(chosen, list) else ()


async def _may_retry(lab: AsyncLab, asker: Asker, run: Mapping[str, Any]) -> None:
    """Insist on the roles of all that a run runs, and on that under which it acts on agents.

    What another run has made acts as that one may: with the role it was asked for under, or with the lab's own
    credential, which only those lend it who may run the one that made it.
    """
    params = (await lab.run_shown(run["id"], full=True))["params"] if run["task"] == RUN else None
    for task in (run["task"], *inner_tasks(run["task"], params)):
        asker.needs(await _role_of(lab, task), f"run {task}")
    if run["role"]:
        asker.needs(Role(run["role"]), f"retry what {run['by']} has asked for")
    elif run["task"] in {CALL, RUN} and run["cause"]["kind"] == "operator":  # with the lab's own credential
        asker.needs(Role.ADMIN, f"retry what {run['by']} has asked for")
    elif run["parent"]:
        await _may_retry(lab, asker, await lab.run_shown(run["parent"]))


async def _may_approve(lab: AsyncLab, asker: Asker, run_id: str) -> None:
    """Insist on the roles of all that a run would run.

    What an operation of a fleet needs is known to its agents alone, which judge by who asked for the run: so nobody
    approves such a call who is less than that.
    """
    run = await lab.run_shown(run_id, full=True)
    for task in (run["task"], *inner_tasks(run["task"], run["params"])):
        if task == CALL:
            asker.needs(Role(run["role"] or Role.ADMIN), f"approve what {run['by']} has asked for")
        asker.needs(await _role_of(lab, task), f"approve {task}")


def _plain(done: object) -> Any:
    if isinstance(done, Emitted | RequestedRuns):
        return dataclasses.asdict(done)
    return done.model_dump(mode="json", by_alias=True) if isinstance(done, Run) else done


def _arguments(data: bytes) -> dict[str, Any]:
    try:
        body: Any = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise UsageError("what is asked for cannot be read", because="it is no JSON object")
    return cast("dict[str, Any]", body)


def _failed(error: LabwrightError) -> dict[str, Any]:
    return {
        "error": ErrorRecord.of(error).model_dump(mode="json", by_alias=True),
        "exit_code": error.exit_code,
        "findings": list(getattr(error, "findings", ())),
    }
