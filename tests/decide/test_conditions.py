"""Conditions: three values, composition, reasons, and values that cannot be compared."""

import math
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.conditions import MISSING, Condition, event_type, fact, source, subject, when
from labwright.core.errors import UsageError
from labwright.core.model import Event
from labwright.decide.conditions import Verdict
from labwright.decide.scenario import Scenario

VERDICTS = (True, False, MISSING)
ODD = (
    math.nan,
    math.inf,
    b"1",
    None,
    "5",
    "",
    [],
    {},
    [1, "a"],
    {"a": None},
    True,
    0,
    -1.5,
    10**400,
    datetime.now(UTC),
)


def scenario(type: str = "data_collection.end", subject: str | None = None, **facts: Any) -> Scenario:
    return Scenario(Event(id="1", source="/i03", type=type, subject=subject, time=datetime.now(UTC)), facts)


def leaf(verdict: Verdict) -> Condition:
    return fact({True: "yes", False: "no", MISSING: "unknown"}[verdict])


KNOWN = scenario(yes=True, no=False)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (event_type("data_collection.end"), True),
        (event_type("data_collection.*"), True),
        (event_type("data_collection.en?"), True),
        (event_type("data_collection"), False),
        (event_type("Data_collection.end"), False),
        (event_type("*[x]*"), False),
        (source("/i03"), True),
        (source("/i*"), True),
        (source("/i04"), False),
        (subject("99*"), MISSING),
        (fact("kind", "rotation"), True),
        (fact("kind", "grid"), False),
        (fact("absent", "grid"), MISSING),
        (fact("null", "grid"), MISSING),
        (fact("kind"), True),
        (fact("zero"), False),
        (fact("empty"), False),
        (fact("null"), MISSING),
        (fact("images", 100), True),
        (fact("images", 100.0), True),
        (fact("images", "100"), False),
        (fact("flag", True), True),
        (fact("flag", 1), False),
        (fact("one", True), False),
        (fact("cell", [1, {"a": 2}]), True),
        (fact("cell", [1, {"a": 3}]), False),
        (fact("kind").is_in("grid", "rotation"), True),
        (fact("kind").is_in(["grid", "rotation"]), True),
        (fact("kind").is_in(), False),
        (fact("images").is_in(1, 2), False),
        (fact("images").at_least(100), True),
        (fact("images").at_least(101), False),
        (fact("images").at_most(100), True),
        (fact("images").at_most(99.5), False),
        (fact("absent").at_most(1), MISSING),
        (fact("kind").matches("rot*"), True),
        (fact("kind").matches("rot"), False),
        (fact("images").matches("*"), False),
        (when(lambda scenario: scenario.images > 5, "many images"), True),
        (when(lambda scenario: None, "nothing"), False),
        (when(lambda scenario: scenario.absent > 5, "many absent"), MISSING),
    ],
)
def test_a_leaf_says_true_false_or_missing(condition: Condition, expected: Verdict) -> None:
    facts: dict[str, Any] = {
        "kind": "rotation",
        "images": 100,
        "null": None,
        "zero": 0,
        "empty": [],
        "flag": True,
        "one": 1,
    }

    assert condition.test(scenario(**facts, cell=[1, {"a": 2}])) is expected


def test_the_subject_of_the_event_is_compared() -> None:
    assert subject("99*").test(scenario(subject="993677")) is True


@pytest.mark.parametrize("first", VERDICTS)
@pytest.mark.parametrize("second", VERDICTS)
def test_logic_is_kleenes(first: Verdict, second: Verdict) -> None:
    conjunction = False if False in {first, second} else MISSING if MISSING in {first, second} else True
    disjunction = True if True in {first, second} else MISSING if MISSING in {first, second} else False

    assert (leaf(first) & leaf(second)).test(KNOWN) is conjunction
    assert (leaf(first) | leaf(second)).test(KNOWN) is disjunction
    assert (~leaf(first)).test(KNOWN) is (MISSING if first is MISSING else not first)


conditions = st.recursive(
    st.sampled_from([leaf(verdict) for verdict in VERDICTS]),
    lambda inner: (
        st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1])
        | st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1])
        | inner.map(lambda condition: ~condition)
    ),
    max_leaves=12,
)


@given(conditions, conditions)
def test_de_morgan_and_double_negation_hold(first: Condition, second: Condition) -> None:
    assert (~(first & second)).test(KNOWN) is (~first | ~second).test(KNOWN)
    assert (~~first).test(KNOWN) is first.test(KNOWN)
    verdict = first.test(KNOWN)
    assert (~first).test(KNOWN) is (MISSING if verdict is MISSING else not verdict)


@given(conditions)
def test_reasons_name_leaves_of_the_condition(condition: Condition) -> None:
    texts = {leaf.text for leaf in condition.leaves()}

    assert {reason.condition for reason in condition.explain(KNOWN)} <= texts


def test_each_leaf_that_was_needed_explains_itself() -> None:
    condition = (
        event_type("data_*") & ~fact("kind", "grid") & (fact("visit") | fact("images").at_least(200)) & fact("never")
    )

    reasons = condition.explain(scenario(kind="rotation", images=100))

    assert [reason.model_dump() for reason in reasons] == [
        {"condition": "type matches 'data_*'", "holds": True},
        {"condition": "not (kind is 'grid')", "holds": True},
        {"condition": "visit is true", "holds": "missing"},
        {"condition": "images is at least 200", "holds": False},
        {"condition": "never is true", "holds": "missing"},
    ]


def test_a_condition_reads_like_speech() -> None:
    condition = (
        event_type("end") & (fact("kind").is_in("a", "b") | ~fact("visit").matches("cm*")) & when(print, "it is late")
    )

    assert str(condition) == "type is 'end' and (kind is one of 'a', 'b' or not (visit matches 'cm*')) and it is late"


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize(
    "condition",
    [
        fact("x"),
        fact("x", 5),
        fact("x", "5"),
        fact("x", math.nan),
        fact("x", [1]),
        fact("x").is_in(1, "a", b"c", (1, 2), 2.5),
        fact("x").at_least(5),
        fact("x").at_most(5),
        fact("x").matches("*5*"),
    ],
)
def test_comparing_odd_values_never_raises(condition: Condition, value: object) -> None:
    assert condition.test(scenario(x=value)) in VERDICTS
    assert (~condition).test(scenario(x=value)) in VERDICTS


def test_nan_equals_nothing_not_even_itself() -> None:
    assert fact("x", math.nan).test(scenario(x=math.nan)) is False
    assert fact("x").at_least(0).test(scenario(x=math.nan)) is False
    assert fact("x").at_most(0).test(scenario(x=math.nan)) is False


def test_a_part_may_rely_on_the_parts_before_it() -> None:
    divided = when(lambda scenario: 100 / scenario.facts["images"] > 1, "few images")

    assert (fact("images").at_least(1) & divided).test(scenario(images=0)) is False
    assert (fact("images").at_least(1) & divided).test(scenario()) is MISSING
    assert (fact("images", 0) | divided).test(scenario(images=0)) is True


def test_what_a_function_raises_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        when(lambda _: 1 / 0 > 1, "nonsense").test(scenario())


@pytest.mark.parametrize(
    "use",
    [
        lambda a, b: a and b,
        lambda a, b: a or b,
        lambda a, b: not a,
        lambda a, b: 1 if a else 2,
        lambda a, b: a & True,
        lambda a, b: a | "text",
    ],
)
def test_words_instead_of_signs_are_refused_with_the_cure(use: Any) -> None:
    with pytest.raises(TypeError, match=r"use & \| ~|use fact"):
        use(fact("a"), fact("b"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: fact(""),
        lambda: fact(5),  # type: ignore[call-overload]
        lambda: fact("x", None),
        lambda: fact("x").is_in("a", None),
        lambda: fact("x").at_least("5"),  # type: ignore[arg-type]
        lambda: fact("x").at_least(math.nan),
        lambda: fact("x").at_most(True),
        lambda: fact("x").matches(5),  # type: ignore[arg-type]
        lambda: event_type(""),
        lambda: when(print, ""),
        lambda: when("not a function", "text"),  # type: ignore[arg-type]
    ],
)
def test_a_condition_that_makes_no_sense_is_refused_when_it_is_made(make: Any) -> None:
    with pytest.raises(UsageError):
        make()


def test_conditions_compare_hash_and_pickle() -> None:
    condition = event_type("a*") & ~fact("x", [1]) | fact("y").at_least(2)
    condition.test(scenario())

    assert (
        pickle.loads(pickle.dumps(event_type("a") & fact("x", 1))).leaves() == (event_type("a") & fact("x", 1)).leaves()
    )
    assert hash(condition) == hash(event_type("a*") & ~fact("x", [1]) | fact("y").at_least(2))
