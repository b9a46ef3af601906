"""Full decisions with reasons for 50 rules on mixed scenarios, in one process.

Prints one JSON line. The rules are of the kind that a beamline has: an event type, a class, a beamline, a few numbers
and patterns, here and there a function; one to two of them fire. Every decision holds every rule's outcome with its
reasons, and the requests with their ids.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import cycle, islice

from labwright.conditions import Condition, event_type, fact, when
from labwright.core.model import Event
from labwright.core.request import Request
from labwright.decide.decision import decide
from labwright.decide.rules import Rule, RuleSet
from labwright.decide.scenario import Scenario

ROUNDS = 5
DECISIONS = 20_000
RULES = 50
TARGET = 20_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BEAMLINES = ("i03", "i04", "i19", "i24", "b21")
CLASSES = ("rotation", "screening", "grid", "characterization")


def condition(number: int) -> Condition:
    """Make one of the conditions that a beamline has."""
    ended = event_type("data_collection.end" if number % 5 else "data_collection.start")
    kind = fact("data_collection_class", CLASSES[number % len(CLASSES)])
    by_number: list[Condition] = [
        fact("beamline", BEAMLINES[number // 5 % len(BEAMLINES)]) & fact("images").at_least(10 * (number % 7)),
        fact("images").at_most(20 * number) & ~fact("beamline").is_in("i03", "i24"),
        fact("visit").matches("cm*") & fact("beamline", "i04") & (fact("sample") | fact("run_status", "failure")),
        (fact("beamline", "i19") | fact("beamline", "i24")) & fact("run_status", "success"),
        when(lambda scenario: scenario.images % 2 == 0, "an even number of images") & fact("beamline").matches("i*"),
    ]
    return ended & kind & by_number[number % len(by_number)]


def make_rule(number: int) -> Rule:
    """Make a rule that asks for one run."""

    def ask(scenario: Scenario) -> Iterator[Request]:
        yield Request(f"task-{number}", dcid=scenario.dcid)

    return Rule(f"bench:rule_{number}", condition(number), ask)


def scenarios() -> list[tuple[Event, dict[str, object]]]:
    """List events with their facts, of all beamlines and classes."""
    return [
        (
            Event(
                id=str(number),
                source="bench",
                type=f"data_collection.{'start' if number % 3 == 0 else 'end'}",
                subject=str(number),
                time=NOW,
            ),
            {
                "beamline": BEAMLINES[number % 5],
                "visit": f"{'cm' if number % 2 else 'mx'}{number}-1",
                "data_collection_class": CLASSES[number % 4],
                "run_status": "success" if number % 7 else "failure",
                "images": number * 37 % 3600,
                "sample": number if number % 4 else None,
                "sweeps": [{"dcid": number, "start": 1, "end": 100}],
            },
        )
        for number in range(1_000)
    ]


def measure(work: Callable[[], int]) -> float:
    """Tell how many things per second the work does: the median of several rounds."""
    work()
    rates: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        done = work()
        rates.append(done / (time.perf_counter() - began))
    return statistics.median(rates)


def main() -> None:
    """Measure and print."""
    rules = RuleSet(make_rule(number) for number in range(RULES))
    mixed = scenarios()
    ready = [Scenario.of(event, facts) for event, facts in mixed]
    leaves = [leaf for each in rules for leaf in each.condition.leaves()]

    def decisions() -> int:
        for scenario in islice(cycle(ready), DECISIONS):
            decide(scenario, rules, at=NOW)
        return DECISIONS

    def decisions_from_facts() -> int:
        for event, facts in islice(cycle(mixed), DECISIONS):
            decide(Scenario.of(event, facts), rules, at=NOW)
        return DECISIONS

    def conditions() -> int:
        for scenario in ready[:500]:
            for leaf in leaves:
                leaf.evaluate(scenario, [])
        return 500 * len(leaves)

    fired = sum(len(decide(scenario, rules, at=NOW).requests) for scenario in ready) / len(ready)
    value = measure(decisions)
    thousand = RuleSet(
        Rule(f"bench:rule_{number}", fact("instrument", number // 2) & condition(number), make_rule(number).function)
        for number in range(1_000)
    )
    few_match = [Scenario.of(event, {**facts, "instrument": place % 500}) for place, (event, facts) in enumerate(mixed)]

    def many_rules() -> int:
        for scenario in few_match:
            decide(scenario, thousand, at=NOW)
        return len(few_match)

    print(
        json.dumps(
            {
                "name": "decide: full decisions with reasons, 50 rules, mixed scenarios",
                "value": round(value),
                "unit": "decisions/s",
                "target": TARGET,
                "details": {
                    "conditions_per_s": round(measure(conditions)),
                    "conditions_decided_per_s": round(value * len(leaves)),
                    "requests_per_decision": round(fired, 2),
                    "decisions_per_s_from_event_and_facts": round(measure(decisions_from_facts)),
                    "decisions_per_s_1000_rules_few_match": round(measure(many_rules)),
                    "rounds": ROUNDS,
                },
            }
        )
    )


if __name__ == "__main__":
    main()
