"""Decisions: every rule has its outcome, equal requests merge, and runs follow."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from labwright.conditions import event_type, fact, when
from labwright.core.model import Event, RequestRecord, Target
from labwright.core.request import Request
from labwright.decide.decision import Decision, decide, plan_runs
from labwright.decide.rules import Rule, RuleSet, rule
from labwright.decide.scenario import Scenario

NOW = datetime(2026, 3, 4, tzinfo=UTC)
TARGETS = {name: Target(name=name, labels={"crate": name[1]}) for name in ("c1s1", "c1s2", "c2s1")}


def scenario(id: str = "1", **facts: Any) -> Scenario:
    return Scenario(Event(id=id, source="test", type="data_collection.end", subject="5", time=NOW), facts)


@rule(event_type("data_collection.end") & fact("kind", "rotation") & fact("images").at_least(10))
def reduce(scenario: Scenario) -> Iterator[Request]:
    yield Request("reduce", images=scenario.images)


@rule
def raises(scenario: Scenario) -> Iterator[Request]:
    yield Request("before")
    raise ValueError("no luck")


def asking(name: str, *requests: Request) -> Rule:
    return Rule(name, event_type("*"), lambda _: list(requests))


def decided(*rules: Rule, on: Scenario | None = None, **options: Any) -> Decision:
    return decide(on or scenario(kind="rotation", images=100), rules, at=NOW, **options)


def test_a_decision_has_the_published_shape() -> None:
    decision = decided(reduce, asking("none"), notes=["images: file overrides ispyb"])

    request_id = decision.requests[0].id
    assert json.loads(decision.model_dump_json(by_alias=True)) == {
        "id": decision.id,
        "at": "2026-03-04T00:00:00Z",
        "held": False,
        "event": {
            "specversion": "1.0",
            "id": "1",
            "source": "test",
            "type": "data_collection.end",
            "subject": "5",
            "time": "2026-03-04T00:00:00Z",
            "datacontenttype": None,
            "data": None,
        },
        "scenario": {"facts": {"kind": "rotation", "images": 100}, "notes": ["images: file overrides ispyb"]},
        "rules": [
            {
                "rule": f"{__name__}:reduce",
                "outcome": "fired",
                "reasons": [
                    {"condition": "type is 'data_collection.end'", "holds": True},
                    {"condition": "kind is 'rotation'", "holds": True},
                    {"condition": "images is at least 10", "holds": True},
                ],
                "requests": [request_id],
                "error": None,
            },
            {
                "rule": "none",
                "outcome": "fired",
                "reasons": [{"condition": "type matches '*'", "holds": True}],
                "requests": [],
                "error": None,
            },
        ],
        "requests": [
            {
                "id": request_id,
                "task": "reduce",
                "params": {"images": 100},
                "on": None,
                "priority": 0,
                "not_before": None,
                "not_after": None,
                "key": None,
                "approve": False,
                "rules": [f"{__name__}:reduce"],
            }
        ],
    }


def test_a_decision_comes_back_from_json_as_it_was() -> None:
    decision = decided(reduce, raises, on=scenario(kind="rotation", images=100, cell=[1, {"a": 2}]))

    again = Decision.model_validate_json(decision.model_dump_json(by_alias=True))

    assert again.model_dump_json(by_alias=True) == decision.model_dump_json(by_alias=True)
    assert again.requests == decision.requests
    assert again.rules == decision.rules


def test_the_same_scenario_yields_the_same_ids() -> None:
    first, again, other = (
        decided(reduce),
        decided(reduce),
        decided(reduce, on=scenario("2", kind="rotation", images=100)),
    )

    assert (first.id, first.requests[0].id) == (again.id, again.requests[0].id)
    assert first.id != other.id
    assert first.requests[0].id != other.requests[0].id


@pytest.mark.parametrize(
    ("facts", "last"),
    [
        ({"kind": "grid", "images": 100}, {"condition": "kind is 'rotation'", "holds": False}),
        ({"images": 100}, {"condition": "kind is 'rotation'", "holds": "missing"}),
        ({"kind": "rotation"}, {"condition": "images is at least 10", "holds": "missing"}),
        ({"kind": "rotation", "images": "many"}, {"condition": "images is at least 10", "holds": False}),
    ],
)
def test_a_rule_that_does_not_match_says_which_leaf_excluded_it(facts: dict[str, Any], last: dict[str, Any]) -> None:
    decision = decided(reduce, on=scenario(**facts))

    assert decision.rules[0].outcome == "not_matched"
    assert decision.rules[0].reasons[-1].model_dump() == last
    assert decision.requests == ()


def test_an_unknown_event_type_matches_nothing() -> None:
    asked = Scenario(Event(id="1", source="test", type="moon.rise", time=NOW), {"kind": "rotation", "images": 100})

    assert [outcome.outcome for outcome in decided(reduce, on=asked).rules] == ["not_matched"]


def test_a_rule_that_raises_is_reported_and_sinks_no_other() -> None:
    decision = decided(raises, reduce)

    failed, fired = decision.rules
    assert (failed.outcome, failed.requests, fired.outcome) == ("failed", (), "fired")
    assert failed.error is not None
    assert failed.error.message == "ValueError: no luck"
    assert "in raises" in failed.error.traceback
    assert [request.task for request in decision.requests] == ["reduce"]
    assert not decision.held


def test_a_site_may_hold_a_decision_in_which_a_rule_failed() -> None:
    held = decided(raises, reduce, on_rule_error="hold")

    assert held.held
    assert plan_runs(held, {}) == ()
    assert not decided(reduce, on_rule_error="hold").held


@pytest.mark.parametrize(
    ("made", "message"),
    [(["reduce"], "no Request"), ([Request("ok"), 5], "no Request"), ("reduce", "no Request")],
)
def test_a_rule_that_makes_no_request_is_reported(made: Any, message: str) -> None:
    decision = decided(Rule("wrong", event_type("*"), lambda _: made), reduce)

    assert decision.rules[0].outcome == "failed"
    assert message in decision.rules[0].error.message  # type: ignore[union-attr]
    assert [request.task for request in decision.requests] == ["reduce"]


def test_a_rule_that_asks_for_a_missing_fact_or_a_bad_task_is_reported() -> None:
    decision = decided(
        Rule("missing", event_type("*"), lambda scenario: Request("t", x=scenario.nonsense)),
        Rule("bad", event_type("*"), lambda _: Request("two words")),
        Rule("endless", event_type("*"), lambda _: iter(lambda: Request("t"), None)),
        Rule("broken", event_type("*") & when(lambda _: 1 / 0 > 1, "nonsense"), lambda _: None),
    )

    kinds = [(outcome.outcome, outcome.error.kind) for outcome in decision.rules if outcome.error]
    assert kinds == [("failed", "fact_missing"), ("failed", "usage"), ("failed", "usage"), ("failed", "bug")]
    assert decision.requests == ()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_is_meant_to_stop_the_process_passes(stop: type[BaseException]) -> None:
    def interrupted(scenario: Scenario) -> None:
        raise stop

    with pytest.raises(stop):
        decided(Rule("interrupted", event_type("*"), interrupted))


def test_equal_requests_become_one_that_lists_its_rules() -> None:
    early, late = NOW, NOW + timedelta(hours=1)
    decision = decided(
        asking("a", Request("t", x=1, priority=1, not_before=late, not_after=late), Request("t", x=2)),
        asking("b", Request("t", x=1, priority=5, not_before=early, not_after=late + timedelta(hours=1))),
        asking("c", Request("t", x=1), Request("t", x=1), Request("t", x=1, key="other"), Request("t", x=1, on="c1s1")),
    )

    merged = decision.requests[0]
    assert merged.rules == ("a", "b", "c")
    assert (merged.priority, merged.not_before, merged.not_after) == (5, None, None)
    assert len(decision.requests) == 4
    assert [outcome.requests.count(merged.id) for outcome in decision.rules] == [1, 1, 1]


def test_the_widest_of_two_windows_is_kept() -> None:
    early, late = NOW, NOW + timedelta(hours=1)
    decision = decided(
        asking("a", Request("t", not_before=late, not_after=late)),
        asking("b", Request("t", not_before=early, not_after=late)),
    )

    assert (decision.requests[0].not_before, decision.requests[0].not_after) == (early, late)


def test_a_request_for_an_unknown_task_stays_with_a_note() -> None:
    decision = decided(reduce, asking("b", Request("known")), known_tasks={"known"}, notes=["first"])

    assert [request.task for request in decision.requests] == ["reduce", "known"]
    assert decision.scenario.notes == ("first", "the task 'reduce' is not known here: a run of it fails at once")


def test_facts_that_json_has_no_word_for_are_shown_all_the_same() -> None:
    facts: dict[str, Any] = {"nan": float("nan"), "bytes": b"1", "text": "x" * 10_000_000}

    shown = json.loads(decided(reduce, on=scenario(**facts)).model_dump_json())["scenario"]["facts"]

    assert shown == {"nan": {"$float": "nan"}, "bytes": {"$bytes": "MQ=="}, "text": facts["text"]}


def test_a_rule_set_answers_like_its_rules() -> None:
    asked = scenario(kind="rotation", images=100)

    assert decide(asked, RuleSet([reduce, raises]), at=NOW).requests == decided(reduce, raises, on=asked).requests


def planned(*requests: Request) -> list[tuple[str | None, str | None]]:
    runs = plan_runs(decided(asking("a", *requests)), TARGETS)
    assert len({run.id for run in runs}) == len(runs)
    return [(run.target, run.error.kind if run.error else None) for run in runs]


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        (None, [(None, None)]),
        ("c1s1", [("c1s1", None)]),
        ("crate=1", [("c1s1", None), ("c1s2", None)]),
        ("all", [("c1s1", None), ("c1s2", None), ("c2s1", None)]),
        ("nobody", [(None, "not_found")]),
        ("crate=9", [(None, "not_found")]),
        ("crate=", [(None, "usage")]),
    ],
)
def test_a_request_becomes_one_run_for_each_target(
    on: str | None, expected: list[tuple[str | None, str | None]]
) -> None:
    assert planned(Request("t", on=on)) == expected


def test_requests_that_mean_the_same_run_make_one() -> None:
    decision = decided(
        asking("a", Request("t", on="c1s1"), Request("t", on="crate=1", priority=9), Request("t", on="nobody"))
    )

    runs = plan_runs(decision, TARGETS)

    assert [(run.target, run.request == decision.requests[1].id) for run in runs] == [
        ("c1s1", True),
        ("c1s2", True),
        (None, False),
    ]


def test_the_id_of_a_run_depends_on_what_it_does_and_not_on_who_asked() -> None:
    def ids(*rules: Rule, id: str = "1") -> set[str]:
        return {run.id for run in plan_runs(decided(*rules, on=scenario(id)), TARGETS)}

    first = ids(asking("a", Request("t", on="c1s1", x=1)))

    assert first == ids(asking("b", Request("t", on="c1s1", x=1, priority=4)))
    for other in (
        Request("t", on="c1s1", x=2),
        Request("u", on="c1s1", x=1),
        Request("t", x=1),
        Request("t", x=1, key="k"),
    ):
        assert first != ids(asking("a", other))
    assert first != ids(asking("a", Request("t", on="c1s1", x=1)), id="2")


def test_runs_follow_from_a_decision_that_was_read_back() -> None:
    decision = decided(asking("a", Request("t", on="all", x=float("nan"))))
    again = Decision.model_validate_json(decision.model_dump_json(by_alias=True))

    assert plan_runs(again, TARGETS) == plan_runs(decision, TARGETS)
    assert isinstance(again.requests[0], RequestRecord)
