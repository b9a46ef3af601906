"""Scenarios: frozen through and through, facts as attributes, the event's data win."""

import copy
import json
import pickle
from collections import UserDict
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.core.errors import FactMissingError
from labwright.core.model import Event
from labwright.decide.scenario import Scenario, freeze

NOW = datetime(2026, 3, 4, tzinfo=UTC)


def event(type: str = "door.opened", **fields: Any) -> Event:
    return Event(id="1", source="test", type=type, time=NOW, **fields)


def test_a_fact_is_an_attribute_and_the_event_is_there() -> None:
    scenario = Scenario(event(subject="7"), {"images": 5, "event": "a fact of this name"})

    assert scenario.images == 5
    assert scenario.event.subject == "7"
    assert scenario.facts["event"] == "a fact of this name"


def test_a_fact_that_nobody_knows_is_named_in_the_error_with_those_known() -> None:
    with pytest.raises(FactMissingError, match="'imagse' is missing") as raised:
        _ = Scenario(event(), {"images": 5, "beamline": "i03"}).imagse

    assert raised.value.because == "known are: beamline, images"


def test_what_the_event_brings_wins_over_what_was_looked_up() -> None:
    scenario = Scenario.of(event(data={"images": 1}), {"images": 2, "beamline": "i03"})

    assert dict(scenario.facts) == {"images": 1, "beamline": "i03"}


@pytest.mark.parametrize("data", [None, "text", [1, 2], 5])
def test_data_that_are_no_object_bring_no_facts(data: object) -> None:
    assert dict(Scenario.of(event(data=data), {"images": 2}).facts) == {"images": 2}


def test_nothing_in_a_scenario_can_be_changed() -> None:
    scenario = Scenario.of(event(data={"cell": {"a": [1, {"b": 2}]}}), {"names": {"x"}})
    facts: Any = scenario.facts

    for change in (
        lambda: setattr(scenario, "facts", {}),
        lambda: delattr(scenario, "facts"),
        lambda: setattr(scenario.event, "type", "other"),
        lambda: facts.update(x=1),
        lambda: facts.__setitem__("x", 1),
        lambda: facts.pop("cell"),
        facts.clear,
        lambda: scenario.event.data.__setitem__("x", 1),
        lambda: scenario.cell["a"][1].__setitem__("b", 3),
        lambda: scenario.cell["a"].append(1),
        lambda: scenario.names.add("y"),
    ):
        with pytest.raises((AttributeError, TypeError, ValueError)):
            change()


def test_changing_what_it_was_made_from_does_not_change_a_scenario() -> None:
    facts: dict[str, Any] = {"cell": {"a": [1]}}
    scenario = Scenario(event(), facts)

    facts["cell"]["a"].append(2)

    assert scenario.cell == {"a": (1,)}


def test_a_scenario_pickles_copies_compares_and_hashes() -> None:
    scenario = Scenario.of(event(data={"cell": {"a": [1, {"b": 2}]}}), {})

    for twin in (pickle.loads(pickle.dumps(scenario)), copy.deepcopy(scenario), copy.copy(scenario)):
        assert twin == scenario
        assert hash(twin) == hash(scenario)
        assert type(twin.facts) is type(scenario.facts)


def test_the_event_in_a_scenario_goes_into_json_as_it_came() -> None:
    came = event(data={"cell": {"a": [1, {"b": None}]}})

    assert Scenario.of(came, {}).event.model_dump_json() == came.model_dump_json()


def test_strangers_become_plain() -> None:
    class Colour(Enum):
        RED = "red"

    assert freeze({"e": Colour.RED, "u": UserDict(a=[1]), "b": bytearray(b"1"), 5: {1}}) == {
        "e": "red",
        "u": {"a": (1,)},
        "b": {"$bytes": "MQ=="},
        "5": frozenset({1}),
    }


def test_a_cycle_does_not_hang() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)

    assert Scenario(event(), {"cycle": cycle}).cycle


@pytest.mark.parametrize("phase", ["start", "end", "start_group", "end_group"])
def test_the_event_of_a_data_collection_tells_phase_and_dcid_by_itself(phase: str) -> None:
    scenario = Scenario.of(event(f"data_collection.{phase}", subject="993677"), {"beamline": "i03"})

    assert dict(scenario.facts) == {"phase": phase, "dcid": 993677, "beamline": "i03"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(json_values)
def test_any_frozen_value_hashes_and_pickles(value: object) -> None:
    frozen = freeze(value)

    hash(frozen)
    assert repr(pickle.loads(pickle.dumps(frozen))) == repr(frozen)
    assert freeze(frozen) is frozen or freeze(frozen) == frozen or "nan" in repr(frozen)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.integers())))
def test_frozen_facts_go_into_json_as_they_are(facts: dict[str, object]) -> None:
    assert json.loads(json.dumps(freeze(facts))) == facts
