"""Rules: pure functions from a scenario to requests, each guarded by a condition; and the index over many of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn, TypeAlias, cast, overload

from labwright.core.errors import SiteError, UsageError
from labwright.core.ids import checked_name
from labwright.core.model import ErrorRecord, Model
from labwright.core.request import Request
from labwright.decide.conditions import (
    ALWAYS,
    Both,
    Condition,
    EventAttribute,
    FactEquals,
    Leaf,
    Not,
    Reason,
    equality_key,
)
from labwright.decide.scenario import Scenario

MOST_REQUESTS = 10_000
"""How many requests one rule may make of one scenario."""

MOST_KEPT = 2_000_000
"""How many outcomes an index keeps ready, over all the kinds of scenario that it has met."""

OTHER, ABSENT = 0, -1

RuleFunction: TypeAlias = Callable[[Scenario], Iterable[Request] | Request | None]


class Outcome(StrEnum):
    """What became of a rule."""

    FIRED = "fired"
    NOT_MATCHED = "not_matched"
    FAILED = "failed"


class RuleOutcome(Model):
    """What became of one rule, with the leaves that decided it and the ids of the requests that it made."""

    rule: str
    outcome: Outcome
    reasons: tuple[Reason, ...] = ()
    requests: tuple[str, ...] = ()
    error: ErrorRecord | None = None


@dataclass(frozen=True)
class Rule:
    """A function that turns scenarios into requests, and the condition under which it is asked.

    Call it in tests: `reduce(scenario)` lists its requests. The condition is not asked then.
    """

    name: str
    condition: Condition
    function: RuleFunction = field(repr=False)
    doc: str = field(default="", repr=False)

    def __call__(self, scenario: Scenario) -> list[Request]:
        """List the requests, whichever way the function returns them.

        Raises:
            UsageError: it made something that is no request, or too many requests.
        """
        made: object = self.function(scenario)
        if made is None:
            return []
        requests: list[Request] = []
        for request in cast("Iterable[object]", made) if isinstance(made, Iterable) else (made,):
            if not isinstance(request, Request):
                self._refuse(request)
            if len(requests) == MOST_REQUESTS:
                self._refuse_more()
            requests.append(request)
        return requests

    def _refuse(self, made: object) -> NoReturn:
        raise UsageError(
            f"the rule {self.name} made {repr(made)[:200]}, which is no Request",
            because=f"it is of type {type(made).__name__}",
            cure='yield Request("task", ...), or return one, a list of them, or None',
        )

    def _refuse_more(self) -> NoReturn:
        raise UsageError(
            f"the rule {self.name} made more than {MOST_REQUESTS} requests",
            because="a rule that never ends would stop all decisions",
            cure="make one request whose task spawns the rest",
        )


@overload
def rule(condition: Condition) -> Callable[[RuleFunction], Rule]: ...
@overload
def rule(condition: RuleFunction) -> Rule: ...
def rule(condition: Condition | RuleFunction) -> Rule | Callable[[RuleFunction], Rule]:
    """Make a rule of a function: `@rule(condition)`, or bare `@rule` for one that looks at every event.

    The function takes the scenario and yields requests, or returns one, a list of them, or None.

    Raises:
        UsageError: what is decorated is no plain function, or has no name that can name a rule.
    """
    if isinstance(condition, Condition):
        return lambda function: _make(condition, function)
    return _make(ALWAYS, condition)


def _make(condition: Condition, function: RuleFunction) -> Rule:
    if not inspect.isroutine(function) or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(
            f"{function!r} cannot be a rule",
            because="a rule is a plain function of the scenario: it decides and waits for nothing",
            cure="@rule(condition) stands above `def name(scenario):`; look things up in a fact source",
        )
    name = f"{function.__module__}:{function.__qualname__}".replace(".<locals>", "")
    return Rule(checked_name(name, "rule"), condition, function, inspect.getdoc(function) or "")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rule that the index could not exclude: what remains to be asked, and what is known already."""

    position: int
    rule: Rule
    rest: Condition
    known: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Shortlist:
    """For one kind of scenario: the outcomes of the rules that are excluded, and the rules to ask."""

    outcomes: tuple[RuleOutcome | None, ...]
    candidates: tuple[Candidate, ...]


class RuleSet:
    """Rules with an index, so that a thousand of them cost little when few match.

    The parts of a conjunction that ask only for the event's type and for facts that equal known values are answered
    once for each kind of scenario (its type, and which of the known values its facts have) and kept.

    Raises:
        SiteError: two rules have the same name.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        _refuse_twins(self.rules)
        self._split = tuple(_split(each.condition) for each in self.rules)
        self._indexed = tuple(_indexed_facts(asked for asked, _ in self._split).items())
        self._kept: dict[tuple[Any, ...], Shortlist] = {}
        self._most_kept = max(64, MOST_KEPT // (len(self.rules) + 1))

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def shortlist(self, scenario: Scenario) -> Shortlist:
        """Tell which rules remain to be asked, and what excluded the others."""
        look_up = scenario.facts.get
        kind = (
            scenario.event.type,
            *[
                ABSENT if (value := look_up(name)) is None else codes.get(equality_key(value), OTHER)
                for name, codes in self._indexed
            ],
        )
        kept = self._kept.get(kind)
        return kept if kept is not None else self._keep(kind, scenario)

    def _keep(self, kind: tuple[Any, ...], scenario: Scenario) -> Shortlist:
        outcomes: list[RuleOutcome | None] = []
        candidates: list[Candidate] = []
        for position, (each, (asked, rest)) in enumerate(zip(self.rules, self._split, strict=True)):
            reasons: list[Reason] = []
            if asked.evaluate(scenario, reasons) is True:
                candidates.append(Candidate(position, each, rest, tuple(reasons)))
                outcomes.append(None)
            else:
                outcomes.append(RuleOutcome(rule=each.name, outcome=Outcome.NOT_MATCHED, reasons=tuple(reasons)))
        while len(self._kept) >= self._most_kept:
            self._kept.pop(next(iter(self._kept)), None)
        return self._kept.setdefault(kind, Shortlist(tuple(outcomes), tuple(candidates)))


def _split(condition: Condition) -> tuple[Both, Both]:
    """Part a conjunction into what the index can answer and the rest."""
    parts = condition.parts if isinstance(condition, Both) else (condition,)
    indexed = tuple(part for part in parts if all(_is_indexed(leaf) for leaf in part.leaves()))
    return Both(indexed), Both(tuple(part for part in parts if part not in indexed))


def _is_indexed(leaf: Leaf) -> bool:
    asked = _asked(leaf)
    return isinstance(asked, FactEquals) or (isinstance(asked, EventAttribute) and asked.name == "type")


def _asked(leaf: Leaf) -> Leaf:
    return leaf.leaf if isinstance(leaf, Not) else leaf


def _indexed_facts(conditions: Iterable[Condition]) -> dict[str, dict[Any, int]]:
    """Number the values that each fact is compared with, from 1."""
    facts: dict[str, dict[Any, int]] = {}
    for condition in conditions:
        for leaf in map(_asked, condition.leaves()):
            if isinstance(leaf, FactEquals):
                codes = facts.setdefault(leaf.name, {})
                for key in leaf.keys:
                    codes.setdefault(key, len(codes) + 1)
    return facts


def _refuse_twins(rules: tuple[Rule, ...]) -> None:
    names = [each.name for each in rules]
    twins = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twins:
        raise SiteError(
            f"two rules have the same name: {', '.join(twins)}",
            findings=tuple(f"the rule {name} exists twice" for name in twins),
            because="decisions list rules by name",
            cure="rename one of the functions",
        )
