"""Rules: how they are made, what their functions may return, and the index over many of them."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.conditions import Condition, event_type, fact, when
from labwright.core.errors import SiteError, UsageError
from labwright.core.model import Event
from labwright.core.request import Request
from labwright.decide.rules import Rule, RuleSet, rule
from labwright.decide.scenario import Scenario


def scenario(type: str = "data_collection.end", **facts: Any) -> Scenario:
    return Scenario(Event(id="1", source="test", type=type, time=datetime.now(UTC)), facts)


def nothing(scenario: Scenario) -> None:
    return None


def named(name: str, condition: Condition) -> Rule:
    return Rule(name, condition, nothing)


@rule(fact("beamline", "i03"))
def reduce(scenario: Scenario) -> Iterator[Request]:
    """Reduce every rotation."""
    yield Request("reduce", dcid=scenario.dcid)


@rule
def always(scenario: Scenario) -> list[Request]:
    return [Request("first"), Request("second")]


def test_a_rule_knows_its_name_condition_and_purpose() -> None:
    assert reduce.name == f"{__name__}:reduce"
    assert str(reduce.condition) == "beamline is 'i03'"
    assert reduce.doc == "Reduce every rotation."
    assert str(always.condition) == "always"


def test_a_rule_inside_a_function_has_a_name_that_can_be_used() -> None:
    @rule
    def inner(scenario: Scenario) -> None:
        return None

    assert inner.name == f"{__name__}:test_a_rule_inside_a_function_has_a_name_that_can_be_used.inner"


def test_calling_a_rule_gives_its_requests_without_asking_its_condition() -> None:
    assert reduce(scenario(dcid=5, beamline="i99")) == [Request("reduce", dcid=5)]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (None, []),
        (Request("a"), ["a"]),
        ([], []),
        ([Request("a"), Request("b")], ["a", "b"]),
        ((Request(name) for name in "abc"), ["a", "b", "c"]),
    ],
)
def test_a_rules_function_may_return_what_it_likes(made: Any, expected: list[str]) -> None:
    @rule
    def flexible(scenario: Scenario) -> Any:
        return made

    assert [request.task for request in flexible(scenario())] == expected


@pytest.mark.parametrize("made", ["reduce", 5, ["reduce"], [Request("a"), None], {"task": "reduce"}, [[Request("a")]]])
def test_what_is_no_request_is_refused(made: Any) -> None:
    @rule
    def wrong(scenario: Scenario) -> Any:
        return made

    with pytest.raises(UsageError, match="which is no Request"):
        wrong(scenario())


def test_a_rule_that_never_ends_is_stopped() -> None:
    @rule
    def endless(scenario: Scenario) -> Iterator[Request]:
        while True:
            yield Request("again")

    with pytest.raises(UsageError, match="more than 10000 requests"):
        endless(scenario())


async def waiting(scenario: Scenario) -> None:
    return None


class Callee:
    def __call__(self, scenario: Scenario) -> None:
        return None


@pytest.mark.parametrize("function", [waiting, Callee(), 5, lambda scenario: None])
def test_only_a_plain_function_with_a_name_can_be_a_rule(function: Any) -> None:
    with pytest.raises(UsageError):
        rule(function)


def test_a_name_twice_is_refused_with_every_name() -> None:
    rules = [named(name, fact("x")) for name in ("b", "a", "a", "c", "b")]

    with pytest.raises(SiteError, match="a, b") as raised:
        RuleSet(rules)

    assert raised.value.findings == ("the rule a exists twice", "the rule b exists twice")


def test_the_index_leaves_only_rules_that_may_match() -> None:
    rules = RuleSet(
        named(f"r{number}", event_type("data_collection.end") & fact("number", number) & fact("images").at_least(1))
        for number in range(1_000)
    )

    shortlist = rules.shortlist(scenario(number=7))

    assert [candidate.rule.name for candidate in shortlist.candidates] == ["r7"]
    excluded = shortlist.outcomes[8]
    assert excluded is not None
    assert [reason.model_dump() for reason in excluded.reasons] == [
        {"condition": "type is 'data_collection.end'", "holds": True},
        {"condition": "number is 8", "holds": False},
    ]


def test_what_the_index_keeps_is_bounded() -> None:
    rules = RuleSet([named("r", event_type("*") & fact("number").is_in(*range(500)))])

    for number in range(2_000):
        rules.shortlist(scenario(f"type{number}", number=number))

    kept: dict[Any, Any] = vars(rules)["_kept"]
    assert len(kept) <= vars(rules)["_most_kept"]


leaves = st.sampled_from(
    [
        event_type("a"),
        event_type("a*"),
        event_type("b"),
        fact("x", 1),
        fact("x", True),
        fact("x").is_in(1, 2, "two"),
        fact("x", [1]),
        fact("y", "v"),
        fact("y"),
        fact("y").matches("v*"),
        fact("x").at_least(2),
        when(lambda scenario: scenario.y == "v", "y is v"),
    ]
)


def _joined(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    joins: list[Callable[[Condition, Condition], Condition]] = [lambda a, b: a & b, lambda a, b: a | b]
    return st.builds(lambda join, a, b: join(a, b), st.sampled_from(joins), inner, inner) | inner.map(lambda c: ~c)


@given(
    st.lists(st.recursive(leaves, _joined, max_leaves=6), max_size=5),
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.dictionaries(st.sampled_from("xy"), st.sampled_from([1, 1.0, True, 2, "two", "v", None, [1], [1, 2]])),
        ),
        max_size=6,
    ),
)
def test_the_index_never_changes_what_a_condition_says(
    conditions: list[Condition], kinds: list[tuple[str, dict[str, Any]]]
) -> None:
    rules = RuleSet(named(f"r{number}", condition) for number, condition in enumerate(conditions))

    for type, facts in kinds:
        asked = scenario(type, **facts)
        shortlist = rules.shortlist(asked)
        matched = {each.position for each in shortlist.candidates if each.rest.test(asked) is True}

        assert matched == {number for number, condition in enumerate(conditions) if condition.test(asked) is True}
        for outcome, condition in zip(shortlist.outcomes, conditions, strict=True):
            if outcome is not None:
                assert outcome.reasons
                assert {reason.condition for reason in outcome.reasons} <= {leaf.text for leaf in condition.leaves()}
