"""Conditions: predicates on a scenario that compose with `& | ~` and can say why they hold.

Logic has three values. A fact that is absent or null makes its leaf *missing*; `~missing` is missing, `missing & False`
is False, `missing | True` is True, and a condition that ends missing does not hold. Nothing that stands in a fact can
make a comparison raise: what cannot be compared is False.

Parts are asked from left to right, and only as far as needed: the right side of `&` may rely on the left.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from fnmatch import translate
from functools import cached_property, lru_cache
from typing import Any, Final, Literal, NoReturn, TypeAlias, cast, overload

from labwright.core.errors import FactMissingError, UsageError
from labwright.core.model import Model
from labwright.decide.scenario import Scenario, freeze


class Absence(Enum):
    """The third truth value."""

    MISSING = "missing"

    def __bool__(self) -> bool:
        return False


MISSING: Final = Absence.MISSING
Verdict: TypeAlias = bool | Literal[Absence.MISSING]
"""True, False or MISSING."""


class Reason(Model):
    """What one leaf said of a scenario."""

    condition: str
    holds: bool | Literal["missing"]


class Condition(ABC):
    """A predicate on a scenario; compose with `&` (and), `|` (or) and `~` (not)."""

    @abstractmethod
    def evaluate(self, scenario: Scenario, reasons: list[Reason]) -> Verdict:
        """Ask this of a scenario and add to `reasons` what each leaf that was asked said.

        Raises:
            Exception: whatever a function given to `when` raised.
        """

    @abstractmethod
    def leaves(self) -> tuple[Leaf, ...]:
        """List the leaves from left to right."""

    @abstractmethod
    def __invert__(self) -> Condition: ...

    def test(self, scenario: Scenario) -> Verdict:
        """Tell whether this holds: True, False or MISSING."""
        return self.evaluate(scenario, [])

    def explain(self, scenario: Scenario) -> tuple[Reason, ...]:
        """Tell what each leaf says that is needed to know whether this holds."""
        reasons: list[Reason] = []
        self.evaluate(scenario, reasons)
        return tuple(reasons)

    def __and__(self, other: Condition) -> Condition:
        return Both((*_parts(self, Both), *_parts(_expect_condition(other), Both)))

    def __or__(self, other: Condition) -> Condition:
        return Either((*_parts(self, Either), *_parts(_expect_condition(other), Either)))

    def __bool__(self) -> NoReturn:
        raise TypeError("a condition has no truth value without a scenario: use & | ~ instead of and, or, not, if, ==")


@dataclass(frozen=True)
class Leaf(Condition):
    """A condition that is not made of others."""

    @property
    @abstractmethod
    def text(self) -> str:
        """What it asks, in words."""

    @abstractmethod
    def ask(self, scenario: Scenario) -> Verdict:
        """Ask it of a scenario."""

    @cached_property
    def _said(self) -> tuple[Reason, Reason, Reason]:
        yes, no, missing = (Reason(condition=self.text, holds=holds) for holds in (True, False, "missing"))
        return yes, no, missing

    def evaluate(self, scenario: Scenario, reasons: list[Reason]) -> Verdict:
        """Ask this of a scenario and note what it said."""
        verdict = self.ask(scenario)
        reasons.append(self._said[0 if verdict is True else 1 if verdict is False else 2])
        return verdict

    def leaves(self) -> tuple[Leaf, ...]:
        """List this leaf alone."""
        return (self,)

    def __invert__(self) -> Condition:
        return Not(self)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Not(Leaf):
    """The opposite of a leaf; missing stays missing."""

    leaf: Leaf

    @property
    def text(self) -> str:
        """The leaf's words after a not."""
        return f"not ({self.leaf.text})"

    def ask(self, scenario: Scenario) -> Verdict:
        """Ask the leaf and turn its verdict round."""
        verdict = self.leaf.ask(scenario)
        return MISSING if verdict is MISSING else not verdict

    def __invert__(self) -> Condition:
        return self.leaf

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Both(Condition):
    """All parts together; with no part it always holds."""

    parts: tuple[Condition, ...] = ()

    def evaluate(self, scenario: Scenario, reasons: list[Reason]) -> Verdict:
        """Ask the parts until one is False.

        Once a part is missing the whole cannot hold any more, so what a later part raises does not matter.
        """
        missing = False
        for part in self.parts:
            try:
                verdict = part.evaluate(scenario, reasons)
            except Exception:
                if missing:
                    return MISSING
                raise
            if verdict is False:
                return False
            missing = missing or verdict is MISSING
        return MISSING if missing else True

    def leaves(self) -> tuple[Leaf, ...]:
        """List the leaves of all parts."""
        return tuple(leaf for part in self.parts for leaf in part.leaves())

    def __invert__(self) -> Condition:
        return Either(tuple(~part for part in self.parts))

    def __str__(self) -> str:
        return " and ".join(_wrapped(part, Either) for part in self.parts) or "always"


@dataclass(frozen=True)
class Either(Condition):
    """At least one of the parts; with no part it never holds."""

    parts: tuple[Condition, ...] = ()

    def evaluate(self, scenario: Scenario, reasons: list[Reason]) -> Verdict:
        """Ask the parts until one is True."""
        missing = False
        for part in self.parts:
            verdict = part.evaluate(scenario, reasons)
            if verdict is True:
                return True
            missing = missing or verdict is MISSING
        return MISSING if missing else False

    def leaves(self) -> tuple[Leaf, ...]:
        """List the leaves of all parts."""
        return tuple(leaf for part in self.parts for leaf in part.leaves())

    def __invert__(self) -> Condition:
        return Both(tuple(~part for part in self.parts))

    def __str__(self) -> str:
        return " or ".join(_wrapped(part, Both) for part in self.parts) or "never"


ALWAYS: Final = Both()
"""The condition of a rule that looks at every event."""


@dataclass(frozen=True)
class EventAttribute(Leaf):
    """An attribute of the event is like a pattern; missing when the event has none."""

    name: Literal["type", "source", "subject"]
    pattern: str

    @cached_property
    def _fits(self) -> Callable[[str], bool]:
        return _matcher(self.pattern)

    @property
    def text(self) -> str:
        """Which attribute is like which pattern."""
        return f"{self.name} {_like(self.pattern)}"

    def ask(self, scenario: Scenario) -> Verdict:
        """Compare the attribute with the pattern."""
        value = getattr(scenario.event, self.name)
        return MISSING if value is None else self._fits(value)


@dataclass(frozen=True)
class FactLeaf(Leaf):
    """A condition on one fact."""

    name: str

    @abstractmethod
    def holds(self, value: Any) -> bool:
        """Tell whether a value that is there fits; never raises."""

    def ask(self, scenario: Scenario) -> Verdict:
        """Look the fact up; absent or null is missing."""
        value = scenario.facts.get(self.name)
        return MISSING if value is None else self.holds(value)


@dataclass(frozen=True)
class Fact(FactLeaf):
    """The fact is known and true, not zero, not empty; its methods ask for more."""

    @property
    def text(self) -> str:
        """Which fact is true."""
        return f"{self.name} is true"

    def holds(self, value: Any) -> bool:
        """Take the value for true or false as Python does."""
        return bool(value)

    def is_in(self, *values: Any) -> Condition:
        """The fact equals one of these values, given one by one or as one collection."""
        is_collection = len(values) == 1 and isinstance(values[0], list | tuple | set | frozenset)
        wanted = cast("Iterable[Any]", values[0] if is_collection else values)
        return FactEquals(self.name, tuple(_known(value) for value in wanted))

    def at_least(self, limit: float) -> Condition:
        """The fact is a number and not below the limit."""
        return FactBound(self.name, _number(limit), is_least=True)

    def at_most(self, limit: float) -> Condition:
        """The fact is a number and not above the limit."""
        return FactBound(self.name, _number(limit), is_least=False)

    def matches(self, pattern: str) -> Condition:
        """The fact is text like the pattern (`*` any characters, `?` one), as a whole and case by case."""
        return FactMatches(self.name, _pattern(pattern))


@dataclass(frozen=True)
class FactEquals(FactLeaf):
    """The fact equals one of some values; True is not 1, but 1 is 1.0."""

    values: tuple[Any, ...]

    @cached_property
    def keys(self) -> frozenset[Any]:
        """The values in the form in which they are compared."""
        return frozenset(equality_key(value) for value in self.values)

    @property
    def text(self) -> str:
        """Which fact is which value."""
        if len(self.values) == 1:
            return f"{self.name} is {self.values[0]!r}"
        return f"{self.name} is one of {', '.join(map(repr, self.values)) or 'nothing'}"

    def holds(self, value: Any) -> bool:
        """Look the value up among those wanted."""
        return equality_key(value) in self.keys


@dataclass(frozen=True)
class FactBound(FactLeaf):
    """The fact is a number on the right side of a limit."""

    limit: float
    is_least: bool

    @property
    def text(self) -> str:
        """Which fact has which limit."""
        return f"{self.name} is at {'least' if self.is_least else 'most'} {self.limit}"

    def holds(self, value: Any) -> bool:
        """Compare numbers; anything else, NaN and booleans too, does not fit."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return value >= self.limit if self.is_least else value <= self.limit


@dataclass(frozen=True)
class FactMatches(FactLeaf):
    """The fact is text like a pattern."""

    pattern: str

    @cached_property
    def _fits(self) -> Callable[[str], bool]:
        return _matcher(self.pattern)

    @property
    def text(self) -> str:
        """Which fact is like which pattern."""
        return f"{self.name} {_like(self.pattern)}"

    def holds(self, value: Any) -> bool:
        """Compare text with the pattern; anything else does not fit."""
        return isinstance(value, str) and self._fits(value)


@dataclass(frozen=True)
class When(Leaf):
    """What a function of the site says; missing when it asks for a fact that is missing."""

    function: Callable[[Scenario], object]
    words: str

    @property
    def text(self) -> str:
        """The words given with the function."""
        return self.words

    def ask(self, scenario: Scenario) -> Verdict:
        """Call the function and take what it returns for true or false; None is false."""
        try:
            answer = self.function(scenario)
        except FactMissingError:
            return MISSING
        return MISSING if answer is MISSING else bool(answer)


def event_type(pattern: str) -> Condition:
    """The event's type is like the pattern: `*` stands for any characters, `?` for one."""
    return EventAttribute("type", _pattern(pattern))


def source(pattern: str) -> Condition:
    """The event's source is like the pattern."""
    return EventAttribute("source", _pattern(pattern))


def subject(pattern: str) -> Condition:
    """The event's subject is like the pattern; missing when the event has no subject."""
    return EventAttribute("subject", _pattern(pattern))


class _NotGiven(Enum):
    NOT_GIVEN = "not given"


@overload
def fact(name: str) -> Fact: ...
@overload
def fact(name: str, value: object) -> Condition: ...
def fact(name: str, value: object = _NotGiven.NOT_GIVEN) -> Condition:
    """The fact is known and true (not zero, not empty), or equals the value.

    Without a value, more can be asked: `fact("images").at_least(100)`, `.at_most`, `.is_in`, `.matches`.

    Raises:
        UsageError: the name is no text or empty, or the value is None, which no known fact can equal.
    """
    checked = _text(name, "the name of a fact", "beamline")
    return Fact(checked) if value is _NotGiven.NOT_GIVEN else FactEquals(checked, (_known(value),))


def when(function: Callable[[Scenario], object], text: str) -> Condition:
    """A function of the scenario says so; the text tells people what it asks.

    The function is pure. What it raises makes the rule fail with that error, except for a missing fact: then this leaf
    is missing.

    Raises:
        UsageError: there is no function or no text.
    """
    if not callable(function):
        raise UsageError(
            f"when() needs a function, not {function!r}",
            because="it asks the function about each scenario",
            cure='for example when(lambda scenario: scenario.images % 2 == 0, "an even number of images")',
        )
    return When(function, _text(text, "what a function asks", "an even number of images"))


def equality_key(value: Any) -> Any:
    """Give a value the form in which facts are compared and indexed, where True is not 1."""
    if type(value) is str:
        return value
    if isinstance(value, bool):
        return (bool, value)
    return object() if value != value else value  # noqa: PLR0124 - NaN, which equals nothing


def _known(value: Any) -> Any:
    if value is None:
        raise UsageError(
            "a condition cannot ask for the value None",
            because="a fact that is null counts as missing, and missing equals nothing",
            cure='ask with when(lambda scenario: scenario.facts.get("NAME") is None, "no NAME")',
        )
    return freeze(value)


def _number(limit: Any) -> float:
    if not isinstance(limit, int | float) or isinstance(limit, bool) or math.isnan(limit):
        raise UsageError(f"{limit!r} is no limit", because="a limit is a number", cure="for example at_least(100)")
    return limit


def _text(text: Any, what: str, example: str) -> str:
    if not isinstance(text, str) or not text:
        raise UsageError(f"{text!r} is not {what}", because="it must be text", cure=f'for example "{example}"')
    return text


def _pattern(pattern: Any) -> str:
    return _text(pattern, "a pattern", "data_*")


def _has_wildcard(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


def _like(pattern: str) -> str:
    return f"matches {pattern!r}" if _has_wildcard(pattern) else f"is {pattern!r}"


@lru_cache(maxsize=4096)
def _matcher(pattern: str) -> Callable[[str], bool]:
    if not _has_wildcard(pattern):
        return pattern.__eq__
    expression = re.compile(translate(pattern.replace("[", "[[]")))
    return lambda value: expression.match(value) is not None


def _expect_condition(other: object) -> Condition:
    if not isinstance(other, Condition):
        raise TypeError(f"a condition cannot be joined with {other!r}: use fact(), event_type() or when()")
    return other


def _parts(condition: Condition, kind: type[Both | Either]) -> tuple[Condition, ...]:
    return condition.parts if isinstance(condition, kind) else (condition,)


def _wrapped(part: Condition, kind: type[Condition]) -> str:
    return f"({part})" if isinstance(part, kind) else str(part)
