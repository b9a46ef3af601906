"""Claims: who has which targets for themselves, and until when. Pure: what is in force after a record, and for whom.

A claim's time is counted as what was left of it when it was heard of, on the hearer's own monotonic clock: no two
hosts' wall clocks are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labwright.core.clock import to_text
from labwright.core.errors import ClaimedError, SelectorError
from labwright.core.model import utc_now
from labwright.journal.records import ClaimEntry, ClaimsChanged

if TYPE_CHECKING:
    from labwright.core.selectors import Selector

SUBJECT = "claim.all"
MOST_S = 31 * 86_400.0
MOST_CLAIMS = 200
MOST_BYTES = 200_000
"""All claims in force stand in one record, which has to stay small: what must be cut out of it nobody reads at once."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim as one process knows it: in force before `ends_at` on its monotonic clock."""

    entry: ClaimEntry
    selector: Selector
    ends_at: float

    @cached_property
    def names(self) -> frozenset[str]:
        """Whom its selector chose by labels when it was made, whatever is known of these labels here and now."""
        return frozenset(self.entry.names)

    def holds(self, name: str, labels: Mapping[str, str]) -> bool:
        """Tell whether it is on a target of that name, with the labels that are known here."""
        return name in self.names or self.selector.matches(name, labels)

    def left_s(self, now: float) -> float:
        """Tell for how many seconds more it is in force."""
        return max(0.0, self.ends_at - now)

    def shown(self, now: float) -> dict[str, Any]:
        """Give it as people see it."""
        until = utc_now() + timedelta(seconds=self.left_s(now))
        left_s = round(self.left_s(now), 1)
        fields = self.entry.model_dump(mode="json", exclude={"seconds", "left_s", "names"})
        return {**fields, "until": to_text(until.replace(microsecond=0)), "left_s": left_s}


def claims_of(record: ClaimsChanged, *, age_s: float, now: float) -> tuple[Claim, ...]:
    """Read which claims are in force, from the newest record of them, which is so old; `now` is monotonic.

    One whose selector cannot be read, as of a newer version, holds nobody off.
    """
    if not record.claims:
        return ()
    from labwright.core.selectors import parse_selector  # an agent that nobody claims does without

    found: list[Claim] = []
    for entry in record.claims:
        left_s = min(entry.left_s, entry.seconds, MOST_S) - max(0.0, age_s)
        try:
            selector = parse_selector(entry.selector)
        except SelectorError:
            continue
        if left_s > 0:
            found.append(Claim(entry=entry, selector=selector, ends_at=now + left_s))
    return tuple(found)


def claim_on(claims: Iterable[Claim], name: str, labels: Mapping[str, str], now: float) -> Claim | None:
    """Find the claim in force on a target, if there is one."""
    for claim in claims:
        if claim.ends_at > now and claim.holds(name, labels):
            return claim
    return None


def overlap(wanted: Selector, claim: Claim, targets: Mapping[str, Mapping[str, str]]) -> str | None:
    """Name a target, by its labels or by a name that stands in both, that both choose; None: there is none."""
    if str(wanted) == str(claim.selector):
        return str(wanted)
    known: dict[str, Mapping[str, str]] = {name: {} for name in (*wanted.names, *claim.selector.names, *claim.names)}
    known.update(targets)
    chosen = (name for name, labels in known.items() if wanted.matches(name, labels) and claim.holds(name, labels))
    return min(chosen, default=None)


def names_of(selector: Selector, targets: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """Name the targets that a selector chooses by their labels, and not by their names alone."""
    by_labels = (name for name, labels in targets.items() if selector.matches(name, labels))
    return tuple(sorted(name for name in by_labels if not selector.matches(name, {})))


def refusal(claim: Claim, what: str, now: float) -> ClaimedError:
    """Make the error for somebody whom a claim holds off."""
    shown = claim.shown(now)
    said = f" ({claim.entry.reason})" if claim.entry.reason else ""
    return ClaimedError(
        f"{what} is claimed by {claim.entry.by}",
        because=f"{claim.entry.selector} is theirs until {shown['until']}{said}",
        cure=f"wait, ask them, or have an admin release it: labwright claims release {claim.entry.id}",
    )


def labels_of(said: Mapping[str, Any]) -> dict[str, str]:
    """Give the labels by which selectors choose an agent, from what it says of itself."""
    labels = {str(label): str(value) for label, value in dict(said.get("labels") or {}).items()}
    return {**labels, "class": str(said.get("class", ""))}
