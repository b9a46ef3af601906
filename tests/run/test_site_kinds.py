"""Decisions put together again on the other side of a pipe."""

from __future__ import annotations

from labwright.core.request import Request
from labwright.decide.conditions import fact
from labwright.decide.decision import decide
from labwright.decide.rules import Rule, RuleSet
from labwright.decide.scenario import Scenario
from labwright.run.site import Deciding
from labwright.run.site_kinds import KindsHeard, KindsSaid
from labwright.run.site_wire import FrameReader
from tests.run.site_support import NOW, event


def test_kinds_that_were_forgotten_are_told_again() -> None:
    rules = RuleSet(
        Rule(f"m:r{number}", fact("n", number), lambda scenario: Request("t", n=scenario.n)) for number in range(30)
    )
    said, heard, reader = KindsSaid(rules), KindsHeard(), FrameReader()
    said._most = 8
    for number in [*range(30), *range(30), 5, 5, 6]:
        scenario = Scenario.of(event(n=number), {})
        decision = decide(scenario, rules, at=NOW)
        text = said.encode(Deciding(scenario=scenario, decision=decision, runs=()))
        (message,) = reader.feed(len(text).to_bytes(4) + text)
        assert heard.decode(message).decision == decision.model_dump(mode="json", by_alias=True)
