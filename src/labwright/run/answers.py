"""What a running lab answers when it is asked: each question is a method, named as in `ask.<name>`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, cast

from labwright.agents.members import chosen, members
from labwright.core.clock import to_text
from labwright.core.errors import LabwrightError, NotFoundError, UsageError
from labwright.core.logs import get_logger
from labwright.core.model import ErrorRecord, Event, Run, RunState, Step, StepState, Target
from labwright.core.request import Request
from labwright.core.selectors import select
from labwright.journal.state import EventEntry
from labwright.run.agents_here import AgentsHere
from labwright.run.decider import Decider
from labwright.run.dispatcher import Dispatcher
from labwright.run.folding import Folding
from labwright.run.requesting import needs_approval
from labwright.run.schedule_answers import ScheduleAnswers
from labwright.run.session_answers import SessionAnswers, session_line
from labwright.run.site_host import SiteHost

FRESH_S = 5.0
STORY = 200

log = get_logger(__name__)


class Answers:
    """Answers questions about past, present and the site."""

    def __init__(
        self,
        folding: Folding,
        dispatcher: Dispatcher,
        decider: Decider,
        host: SiteHost,
        *,
        sessions: SessionAnswers,
        schedules: ScheduleAnswers,
        agents: AgentsHere,
        status: Callable[[], dict[str, Any]],
        reload: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:
        self._folding = folding
        self._dispatcher = dispatcher
        self._decider = decider
        self._host = host
        self._sessions = sessions
        self._others = (sessions, schedules)
        self._agents = agents
        self._status = status
        self._reload = reload

    async def answer(self, name: str, data: bytes) -> dict[str, Any]:
        """Answer a question, or say in the same shape why not.

        `data` is a JSON object of arguments; `seq` among them makes sure that the answer is at least that fresh.
        """
        try:
            question, arguments = self._read(name, data)
            seq = int(arguments.pop("seq", 0) or 0)
            if seq:
                await self._folding.view.wait_for(seq, FRESH_S)
            return {"result": await question(**arguments)}
        except LabwrightError as error:
            record = ErrorRecord.of(error)
            return {
                "error": record.model_dump(mode="json", by_alias=True),
                "exit_code": error.exit_code,
                "findings": list(getattr(error, "findings", ())),
            }
        except Exception as error:  # a border: the asker gets the bug, the lab goes on
            log.exception("a question broke", question=name)
            return {"error": ErrorRecord.of(error).model_dump(mode="json", by_alias=True), "exit_code": 1}

    def _read(self, name: str, data: bytes) -> tuple[Callable[..., Awaitable[Any]], dict[str, Any]]:
        questions = (getattr(place, f"ask_{name}", None) for place in (self, *self._others))
        question = next(filter(None, questions), None)
        try:
            arguments = json.loads(data or b"{}")
        except ValueError:
            arguments = None
        if question is None or not isinstance(arguments, dict):
            raise UsageError(
                f"the lab knows no question {name!r} with these arguments",
                because="a question is ask.NAME with a JSON object",
                cure="use the same version of labwright on both sides",
            )
        return question, cast("dict[str, Any]", arguments)

    # --- the lab -----------------------------------------------------------------------------------------------------

    async def ask_status(self) -> dict[str, Any]:
        """Tell how the lab is."""
        present = self._folding.present
        aside, _ = self._folding.view.events(state="set_aside", limit=100)
        return {
            **self._status(),
            "seq": present.seq,
            "written_seq": self._folding.view.seq,
            "leading": self._dispatcher.leading,
            "workers": [
                {"name": name, "slots": worker.slots, "pools": sorted(worker.pools)}
                for name, worker in sorted(self._dispatcher.workers.items())
            ],
            "runs": self._folding.view.counts(),
            "undecided": [
                {"key": key, "error": problem.model_dump(mode="json", by_alias=True)}
                for key, problem in self._decider.problems.items()
            ],
            "set_aside": [event_summary(entry) for entry in aside],
        }

    async def ask_site(self) -> dict[str, Any]:
        """Describe the site that is loaded."""
        return self._host.description.model_dump(mode="json", by_alias=True)

    async def ask_reload(self) -> dict[str, Any]:
        """Load the site again, all or nothing."""
        return await self._reload()

    async def ask_facts(self, subject: str) -> dict[str, Any]:
        """Look up what a rule would see."""
        return await self._host.facts(subject)

    async def ask_targets(self, on: str | None = None) -> list[dict[str, Any]]:
        """List the targets, or those that a selector chooses, and what runs on each."""
        targets = await self._host.targets()
        chosen = select(on, targets.values()) if on else sorted(targets.values(), key=lambda target: target.name)
        busy = {
            entry.run.target: entry.run.id
            for entry in self._folding.present.runs.values()
            if entry.run.state in {RunState.RUNNING, RunState.WAITING} and not entry.run.awaits_approval
        }
        return [{**target.model_dump(mode="json"), "run": busy.get(target.name)} for target in chosen]

    async def ask_chosen(self, on: str) -> list[str]:
        """Name whom a selector chooses for a fleet, among the targets and the agents that are here."""
        return list(chosen(on, await self._members(), self._agents.agents))

    async def _members(self) -> dict[str, Target]:
        """Give the targets and the agents that are here, as one."""
        return members(await self._host.targets(), self._agents.agents)

    async def ask_pools(self) -> list[dict[str, Any]]:
        """List the pools, what runs in each and what waits."""
        tasks = {task.name: task.pool for task in self._host.description.tasks}
        open_runs = [entry.run for entry in self._folding.present.runs.values()]
        answer: list[dict[str, Any]] = []
        for pool in self._host.description.pools:
            mine = [run for run in open_runs if tasks.get(run.task, "default") == pool.name]
            running = sum(run.state is RunState.RUNNING for run in mine)
            answer.append(
                {
                    "name": pool.name,
                    "state": self._folding.present.pools.get(pool.name, "active"),
                    "concurrency": pool.concurrency,
                    "running": running,
                    "open": len(mine),
                }
            )
        return answer

    async def ask_prepare(self, task: str, params: dict[str, Any], on: str | None = None) -> dict[str, Any]:
        """Check what somebody wants to run, and say on which targets that would be."""
        checked = await self._host.validate(task, params)
        tasks = {known.name: known for known in self._host.description.tasks}
        description = tasks[task]
        targets: list[str | None] = [None]
        if on is not None:
            known = await self._members()
            targets = [on] if on in known else [target.name for target in select(on, known.values())]
            if not targets:
                names = ", ".join(sorted(known)) or "none"
                message = f"{on!r} chooses no target"
                raise NotFoundError(
                    message, because=f"the targets are: {names}", cure="see labwright targets list, agents list"
                )
        return {
            "params": checked,
            "targets": targets,
            "start_within": description.start_within,
            "role": description.role,
            "approve": needs_approval(Request(task, params=checked), tasks),
        }

    # --- runs --------------------------------------------------------------------------------------------------------

    async def ask_runs(
        self, filters: dict[str, Any] | None = None, limit: int = 50, cursor: str | None = None
    ) -> dict[str, Any]:
        """Give a page of runs; the filter `on` is a selector of targets."""
        chosen = dict(filters or {})
        on = chosen.pop("on", None)
        if on is not None:
            return await self._runs_on(str(on), chosen, limit, cursor)
        runs, after = self._folding.view.runs(chosen, limit=limit, cursor=cursor)
        return {"items": [self.shown(run) for run in runs], "next_cursor": after}

    async def _runs_on(self, on: str, filters: dict[str, Any], limit: int, cursor: str | None) -> dict[str, Any]:
        names = {target.name for target in select(on, (await self._members()).values())}
        items: list[dict[str, Any]] = []
        while len(items) < limit:
            runs, cursor = self._folding.view.runs(filters, limit=limit, cursor=cursor)
            items += [self.shown(run) for run in runs if run.target in names]
            if cursor is None:
                break
        return {"items": items[:limit], "next_cursor": cursor}

    async def ask_run(self, run_id: str) -> dict[str, Any]:
        """Give one run, by its id or the beginning of it."""
        return self.shown(self._run(run_id))

    async def ask_why(self, run_id: str) -> list[dict[str, Any]]:
        """Tell the story of a run, from its root cause to what followed."""
        run = self._run(run_id)
        story = [*self._before(run), _said("run", run.id, _run_line(run), run.requested_at)]
        led_to = [{**part, "depth": depth} for depth, part in enumerate(story)]
        return [*led_to, *self._after(run, STORY, len(story))]

    def _run(self, run_id: str) -> Run:
        entry = self._folding.present.runs.get(run_id) or self._folding.view.run(run_id)
        if entry is None:
            ids = self._folding.view.run_ids(run_id) if len(run_id) > len("run_") else []
            if len(ids) == 1:
                return self._run(ids[0])
            message = f"there is no run {run_id!r}" if not ids else f"{run_id!r} is the beginning of several ids"
            raise NotFoundError(message, because=", ".join(ids), cure="see labwright runs list")
        return entry.run

    def shown(self, run: Run) -> dict[str, Any]:
        """Give a run as people see it: the step under way is running, and what it waits for is said."""
        fields = run.model_dump(mode="json", by_alias=True, exclude={"content", "waits"})
        if run.state is RunState.RUNNING:
            for step in fields["steps"]:
                if step["state"] == StepState.PENDING:
                    step["state"] = StepState.RUNNING.value
                    break
        if run.waiting_for is None and (because := self._dispatcher.explain(run)):
            kind = "retry" if run.state is RunState.RETRYING else "start"
            fields["waiting_for"] = {"kind": kind, "detail": because}
        return fields

    def _before(self, run: Run) -> list[dict[str, Any]]:
        """Tell what led to a run."""
        cause = run.cause
        if cause.kind == "event":
            entry = self._event(cause.id, cause.source)
            return [*_event_story(entry), *self._request_story(entry, run)]
        if cause.kind == "run":
            parent = self._run(cause.id)
            return [*self._before(parent), _said("run", parent.id, _run_line(parent), parent.requested_at)]
        if cause.kind == "schedule":
            text = f"the schedule {cause.id} was due at {to_text(cause.point or run.requested_at)}"
            return [_said(cause.kind, cause.id, text, cause.point or run.requested_at)]
        return [_said(cause.kind, cause.id, f"{run.by or cause.id} asked for {run.task}", run.requested_at)]

    def _request_story(self, entry: EventEntry, run: Run) -> list[dict[str, Any]]:
        planned = next((planned for planned in entry.runs if planned.id == run.id), None)
        requests = (entry.decision or {}).get("requests")
        if planned is None or not isinstance(requests, list):
            return []
        request = cast("list[dict[str, Any]]", requests)[planned.request]
        where = f" on {run.target}" if run.target else ""
        text = f"{', '.join(request.get('rules', ()))} asked for {request['task']}{where}"
        return [_said("request", request["id"], text, (entry.decision or {}).get("at"))]

    def _after(self, run: Run, most: int, depth: int) -> list[dict[str, Any]]:
        """Tell what followed from a run, `depth` far in: the sessions of its steps, and its children."""
        story = [{**part, "depth": depth} for part in _approval_story(run)]
        story += [
            {**_said("session", shown["id"], session_line(shown), shown["started_at"]), "depth": depth}
            for shown in self._sessions.of_run(run.id, most)
        ]
        children, _ = self._folding.view.runs({"parent": run.id}, limit=most)
        for child in reversed(children):
            story.append({**_said("run", child.id, _run_line(child), child.requested_at), "depth": depth})
            story += self._after(child, most - len(story), depth + 1) if most > len(story) else []
        return story

    # --- events ------------------------------------------------------------------------------------------------------

    async def ask_events(self, limit: int = 50, cursor: str | None = None, state: str | None = None) -> dict[str, Any]:
        """Give a page of events."""
        entries, after = self._folding.view.events(state=state, limit=limit, cursor=cursor)
        return {"items": [event_summary(entry) for entry in entries], "next_cursor": after}

    async def ask_event(self, event_id: str, source: str | None = None) -> dict[str, Any]:
        """Give one event, and how far it has come."""
        entry = self._event(event_id, source)
        problem = self._decider.problems.get(entry.key)
        error = entry.error or problem
        return {
            **event_summary(entry),
            "event": entry.event.model_dump(mode="json"),
            "decision": (entry.decision or {}).get("id"),
            "runs": [planned.id for planned in entry.runs],
            "error": error.model_dump(mode="json", by_alias=True) if error else None,
            "seq": entry.seq,
        }

    async def ask_decisions(self, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
        """Give a page of decisions."""
        entries, after = self._folding.view.events(state="decided", limit=limit, cursor=cursor)
        return {"items": [entry.decision for entry in entries if entry.decision], "next_cursor": after}

    async def ask_decision(self, decision_id: str) -> dict[str, Any]:
        """Give one decision by its id, or that of its event."""
        key = "evt_" + decision_id.partition("_")[2] if decision_id.startswith("dec_") else decision_id
        entry = self._event(key, None)
        if entry.decision is None:
            message = f"the event {entry.event.id} has not been decided"
            raise NotFoundError(message, because=f"it is {entry.state}", cure="see labwright events show")
        return entry.decision

    async def ask_decide_again(self, event_id: str, at: str, source: str | None = None) -> dict[str, Any]:
        """Decide a past event with the rules of now; nothing is run."""
        entry = self._event(event_id, source)
        event = Event.model_validate(await self._folding.restored(entry.event.model_dump(mode="json")))
        decided = await self._host.decide(event, datetime.fromisoformat(at))
        return decided.decision

    def _event(self, event_id: str, source: str | None) -> EventEntry:
        """Find an event by its key, or by its id and perhaps its source."""
        view = self._folding.view
        entry = self._folding.present.events.get(event_id) or view.event(event_id)
        if entry is not None:
            return entry
        found = [entry for entry in view.events_with_id(event_id) if source in {None, entry.event.source}]
        if len(found) == 1:
            return found[0]
        if not found:
            message = f"there is no event {event_id!r}"
            raise NotFoundError(message, cure="see labwright events list")
        message = f"several sources have an event {event_id!r}"
        raise UsageError(
            message,
            because=", ".join(entry.event.source for entry in found),
            cure="name one by its key: " + ", ".join(entry.key for entry in found),
        )


def event_summary(entry: EventEntry) -> dict[str, Any]:
    """Give the line of a list that stands for an event."""
    event = entry.event
    return {
        "key": entry.key,
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "state": entry.state,
        "received_at": entry.received_at,
        "runs": len(entry.runs),
        "error": entry.error.message if entry.error else None,
    }


def _event_story(entry: EventEntry) -> list[dict[str, Any]]:
    event = entry.event
    about = f" about {event.subject}" if event.subject else ""
    story = [_said("event", event.id, f"{event.type}{about} from {event.source}", entry.received_at)]
    if entry.decision is not None:
        fired = [rule["rule"] for rule in entry.decision.get("rules", ()) if rule.get("outcome") == "fired"]
        text = f"{len(fired)} {'rule' if len(fired) == 1 else 'rules'} fired: {', '.join(fired)}"
        story.append(_said("decision", str(entry.decision.get("id")), text, entry.decision.get("at")))
    return story


def _approval_story(run: Run) -> list[dict[str, Any]]:
    if (approved := run.approved) is None:
        return []
    role = f" ({approved.role})" if approved.role else ""
    reason = f": {approved.reason}" if approved.reason else ""
    return [_said("approval", approved.by, f"{approved.by}{role} approved it{reason}", approved.at)]


def _run_line(run: Run) -> str:
    where = f" on {run.target}" if run.target else ""
    done = sum(step.state in {StepState.SUCCEEDED, StepState.SKIPPED} for step in run.steps)
    error = f": {run.error.message}" if run.error and run.state is not RunState.SUCCEEDED else ""
    note = f" ({run.note})" if run.note else ""
    state = f"{run.state.value} for approval" if run.state is RunState.WAITING and run.awaits_approval else run.state
    return f"{run.task}{where} {state}, {_steps(done, run.steps)}{error}{note}"


def _steps(done: int, steps: tuple[Step, ...]) -> str:
    return f"{done} of {len(steps)} steps done" if steps else "no step yet"


def _said(kind: str, what: str, summary: str, at: Any) -> dict[str, Any]:
    moment = to_text(at) if isinstance(at, datetime) else at
    return {"kind": kind, "id": what, "summary": summary, "at": moment}
