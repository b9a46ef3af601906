"""A rule is a function: give it a scenario, look at the requests. Its condition can be asked, and explains itself."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from beamline.rules.detector import arm
from beamline.rules.housekeeping import make_room
from beamline.rules.processing import find_crystal, reduce, reduce_serial
from labwright import Request, RuleSet, Scenario
from labwright.decide.decision import decide

MakeScenario = Callable[..., Scenario]
RULES = RuleSet([arm, make_room, reduce, find_crystal, reduce_serial])


def fired(scenario: Scenario) -> set[str]:
    decision = decide(scenario, RULES, at=datetime(2026, 3, 2, tzinfo=UTC))
    return {outcome.rule.partition(":")[2] for outcome in decision.rules if outcome.outcome == "fired"}


def test_a_rotation_is_reduced_where_its_images_are(scenario: MakeScenario) -> None:
    assert reduce(scenario()) == [Request("reduce", dcid=7, images=10, visit="mx12345-6", on="cpu-1")]


def test_industry_goes_first(scenario: MakeScenario) -> None:
    (request,) = reduce(scenario(proposal_code="in"))

    assert request.priority == 10


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, {"reduce", "make_room"}),
        ({"run_status": "unknown"}, {"reduce", "make_room"}),
        ({"run_status": "failure"}, {"make_room"}),
        ({"data_collection_class": "grid", "grid_rows": 2}, {"find_crystal", "make_room"}),
        ({"data_collection_class": "screening"}, {"make_room"}),
        ({"data_collection_class": None}, {"make_room"}),
    ],
)
def test_what_fires_at_the_end_of_a_collection(
    scenario: MakeScenario, facts: dict[str, object], expected: set[str]
) -> None:
    assert fired(scenario(**facts)) == expected


def test_at_the_start_only_the_detector_is_armed(scenario: MakeScenario) -> None:
    assert fired(scenario("data_collection.start")) == {"arm"}


def test_a_rule_that_does_not_match_says_why(scenario: MakeScenario) -> None:
    (ended, serial) = reduce_serial.condition.explain(scenario())

    assert ended.holds is True
    assert (serial.condition, serial.holds) == ("data_collection_class is one of 'serial_fixed', 'serial_jet'", False)
