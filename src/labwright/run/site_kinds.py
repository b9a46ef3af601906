"""Decisions on their way through a pipe: what is the same for all scenarios of a kind is said once.

Most rules do not match most events, and the rule set knows which ones by the kind of a scenario. Their outcomes are
most of a decision, so the first decision of a kind carries them and later ones name the kind.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

from labwright.decide.rules import RuleSet, Shortlist
from labwright.journal.records import PlannedRunRecord
from labwright.run.site import DecidedEvent, Deciding

MOST_OUTCOMES = 50_000
"""How many outcomes of rules are remembered on both sides before both forget them."""


class KindsSaid:
    """The side that decides."""

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules
        self._most = max(8, MOST_OUTCOMES // (len(rules) + 1))
        self._numbers: dict[int, tuple[int, Shortlist]] = {}

    def encode(self, deciding: Deciding) -> bytes:
        """Write a decision and its runs as JSON, with outcomes that the other side knows left out."""
        decision = deciding.decision
        shortlist = self._rules.shortlist(deciding.scenario)
        number, is_new = self._number(shortlist)
        return b'{"kind":%d,"common":%b,"asked":%b,"decision":%b,"runs":%b}' % (
            number,
            to_json(shortlist.outcomes, by_alias=True) if is_new else b"null",
            to_json([(each.position, decision.rules[each.position]) for each in shortlist.candidates], by_alias=True),
            decision.model_dump_json(by_alias=True, exclude={"rules"}).encode(),
            to_json(deciding.runs, by_alias=True),
        )

    def _number(self, shortlist: Shortlist) -> tuple[int, bool]:
        known = self._numbers.get(id(shortlist))  # kept beside its number, so that no other object can take its id
        if known is not None:
            return known[0], False
        if len(self._numbers) >= self._most:
            self._numbers.clear()
        number = len(self._numbers)
        self._numbers[id(shortlist)] = (number, shortlist)
        return number, True


class KindsHeard:
    """The side that asked."""

    def __init__(self) -> None:
        self._common: dict[int, list[dict[str, Any] | None]] = {}

    def decode(self, said: dict[str, Any]) -> DecidedEvent:
        """Put a decision together. Decisions of one kind share their common outcomes; nobody may change these."""
        if said["common"] is not None:
            if said["kind"] == 0:
                self._common.clear()
            self._common[said["kind"]] = said["common"]
        rules: list[dict[str, Any] | None] = list(self._common[said["kind"]])
        for position, outcome in said["asked"]:
            rules[position] = outcome
        runs = tuple([PlannedRunRecord.model_validate(run) for run in said["runs"]])
        return DecidedEvent(decision={**said["decision"], "rules": rules}, runs=runs)
