"""The decision: what every rule said of one scenario, and the requests that follow; and the runs that these become."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, PlainSerializer

from labwright.core.errors import LabwrightError, NotFoundError
from labwright.core.event import event_key
from labwright.core.ids import hashed_id
from labwright.core.model import ErrorRecord, Event, Instant, Model, RequestRecord, Target
from labwright.core.plain import to_plain
from labwright.core.request import Request
from labwright.core.selectors import select
from labwright.decide.conditions import Reason
from labwright.decide.rules import Candidate, Outcome, Rule, RuleOutcome, RuleSet
from labwright.decide.scenario import Scenario

OnRuleError = Literal["act", "hold"]
M = TypeVar("M", bound=Model)


class ScenarioRecord(Model):
    """What the rules saw besides the event: facts, and notes on how they were found."""

    facts: Annotated[dict[str, Any], PlainSerializer(to_plain)] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Decision(Model):
    """The outcome of all rules on one scenario.

    `held` says that a rule failed on a site that does not act on partial decisions; no run follows then.
    """

    id: str
    at: Instant
    held: bool = False
    event: Event
    scenario: ScenarioRecord
    rules: tuple[RuleOutcome, ...] = ()
    requests: tuple[RequestRecord, ...] = ()


class PlannedRun(Model):
    """A run that a request asks for: on a target, on none, or (`error`) one that can only fail and say so."""

    id: str
    request: str
    target: str | None = None
    error: ErrorRecord | None = None


def decide(
    scenario: Scenario,
    rules: RuleSet | Iterable[Rule],
    *,
    at: datetime,
    on_rule_error: OnRuleError = "act",
    notes: Iterable[str] = (),
    known_tasks: Collection[str] | None = None,
) -> Decision:
    """Ask every rule what should happen.

    A rule that raises, or makes something that is no request, is reported as failed; none of its requests count, and it
    sinks no other rule. Equal requests (same task, target, parameters and key) become one that lists its rules, with
    the highest of the priorities and the widest of the windows. A request for a task that is not among `known_tasks`
    stays, with a note.

    Keep a `RuleSet` for repeated use: its index is built once.
    """
    rule_set = rules if isinstance(rules, RuleSet) else RuleSet(rules)
    shortlist = rule_set.shortlist(scenario)
    outcomes = list(shortlist.outcomes)
    event = event_key(scenario.event)
    merged = _Merged(event)
    failed = False
    for candidate in shortlist.candidates:
        outcome = _ask(candidate, scenario, merged)
        outcomes[candidate.position] = outcome
        failed = failed or outcome.outcome is Outcome.FAILED
    requests = merged.records()
    return _made(
        Decision,
        id=event.replace("evt", "dec", 1),
        at=at,
        held=failed and on_rule_error == "hold",
        event=scenario.event,
        scenario=_made(ScenarioRecord, facts=scenario.facts, notes=(*notes, *_notes_on_tasks(requests, known_tasks))),
        rules=tuple(outcomes),
        requests=requests,
    )


def plan_runs(decision: Decision, targets: Mapping[str, Target]) -> tuple[PlannedRun, ...]:
    """Tell which runs a decision asks for; a held one asks for none.

    The id of a run is a hash of the event, the task, the target, the parameters and the key, so that equal requests are
    one run whoever asked. A request whose target or selector finds nothing becomes one run that can only fail.
    """
    if decision.held:
        return ()
    planned: dict[str, PlannedRun] = {}
    for request in sorted(decision.requests, key=lambda request: -request.priority):
        for run in _runs_of(request, decision.event, targets):
            planned.setdefault(run.id, run)
    order = {request.id: position for position, request in enumerate(decision.requests)}
    return tuple(sorted(planned.values(), key=lambda run: order[run.request]))


def _ask(candidate: Candidate, scenario: Scenario, merged: _Merged) -> RuleOutcome:
    rule, reasons = candidate.rule, list(candidate.known)
    try:
        if candidate.rest.evaluate(scenario, reasons) is not True:
            return _outcome(rule, Outcome.NOT_MATCHED, reasons)
        requests = rule(scenario)
    except Exception as error:  # noqa: BLE001 - a site's rule may raise anything, and must not sink the other rules
        return _outcome(rule, Outcome.FAILED, reasons, error=ErrorRecord.of(error, with_traceback=True))
    ids = tuple(dict.fromkeys([merged.add(request, rule.name) for request in requests]))
    return _outcome(rule, Outcome.FIRED, reasons, requests=ids)


def _outcome(
    rule: Rule,
    outcome: Outcome,
    reasons: list[Reason],
    *,
    requests: tuple[str, ...] = (),
    error: ErrorRecord | None = None,
) -> RuleOutcome:
    return _made(RuleOutcome, rule=rule.name, outcome=outcome, reasons=tuple(reasons), requests=requests, error=error)


put = object.__setattr__
FIELDS: dict[type[Model], set[str]] = {
    kind: set(kind.model_fields) for kind in (Decision, ScenarioRecord, RuleOutcome, RequestRecord)
}


def _made(kind: type[M], **values: Any) -> M:
    """Make a record of all its fields, whose values are known to be valid.

    Does what `model_construct` does, five times faster: decisions are made tens of thousands a second.
    """
    record = kind.__new__(kind)
    put(record, "__dict__", values)
    put(record, "__pydantic_fields_set__", FIELDS[kind])
    put(record, "__pydantic_extra__", None)
    put(record, "__pydantic_private__", None)
    return record


@dataclass(slots=True)
class _Wish:
    """Equal requests on their way to becoming one."""

    id: str
    request: Request
    rules: dict[str, None]
    priority: int
    not_before: datetime | None
    not_after: datetime | None
    approve: bool


class _Merged:
    """The requests of one decision, equal ones together, in the order in which they were first made."""

    def __init__(self, event: str) -> None:
        self.event = event
        self.wishes: dict[tuple[Any, ...], _Wish] = {}

    def add(self, request: Request, rule: str) -> str:
        identity = request.identity()
        wish = self.wishes.get(identity)
        if wish is None:
            wish = _Wish(
                hashed_id("req", self.event, identity),
                request,
                {rule: None},
                request.priority,
                request.not_before,
                request.not_after,
                request.approve,
            )
            self.wishes[identity] = wish
            return wish.id
        wish.rules[rule] = None
        wish.priority = max(wish.priority, request.priority)
        wish.not_before = _widest(min, wish.not_before, request.not_before)
        wish.not_after = _widest(max, wish.not_after, request.not_after)
        wish.approve = wish.approve or request.approve
        return wish.id

    def records(self) -> tuple[RequestRecord, ...]:
        return tuple(
            _made(
                RequestRecord,
                id=wish.id,
                task=wish.request.task,
                params=dict(wish.request.params),
                on=wish.request.on,
                priority=wish.priority,
                not_before=wish.not_before,
                not_after=wish.not_after,
                key=wish.request.key,
                approve=wish.approve,
                rules=tuple(wish.rules),
            )
            for wish in self.wishes.values()
        )


def _widest(
    choose: Callable[[datetime, datetime], datetime], first: datetime | None, second: datetime | None
) -> datetime | None:
    return None if first is None or second is None else choose(first, second)


def _notes_on_tasks(requests: tuple[RequestRecord, ...], known_tasks: Collection[str] | None) -> list[str]:
    if known_tasks is None:
        return []
    unknown = dict.fromkeys(request.task for request in requests if request.task not in known_tasks)
    return [f"the task {name!r} is not known here: a run of it fails at once" for name in unknown]


def _runs_of(request: RequestRecord, event: Event, targets: Mapping[str, Target]) -> Iterable[PlannedRun]:
    def planned(target: str | None, asked: str | None, error: ErrorRecord | None = None) -> PlannedRun:
        run = hashed_id("run", event.source, event.id, request.task, asked, request.params, request.key)
        return PlannedRun(id=run, request=request.id, target=target, error=error)

    if request.on is None:
        return [planned(None, None)]
    if request.on in targets:
        return [planned(request.on, request.on)]
    try:
        chosen = select(request.on, targets.values())
        if not chosen:
            raise NotFoundError(
                f"no target matches {request.on!r}",
                because=f"{len(targets)} targets are known and none of them is chosen",
                cure="labwright targets list shows names and labels",
            )
    except LabwrightError as error:
        return [planned(None, request.on, ErrorRecord.of(error))]
    return [planned(target.name, target.name) for target in chosen]
