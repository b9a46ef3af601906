"""Making, renewing and giving back claims: each change is one record, fenced, so that no two claims overlap."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from labwright.access.claim_watch import read_claims
from labwright.access.claims import MOST_BYTES, MOST_CLAIMS, MOST_S, SUBJECT, Claim, names_of, overlap, refusal
from labwright.core.clock import lasting
from labwright.core.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from labwright.core.ids import new_id
from labwright.core.model import utc_now
from labwright.core.selectors import Selector, parse_selector
from labwright.journal.journal import Journal, MovedError
from labwright.journal.records import ClaimEntry, ClaimsChanged, encode

PATIENCE_S = 10.0
MOST_REASON = 1000
MOST_SELECTOR = 2000

Targets = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Claiming:
    """Changes the claims of a lab for one person; `is_admin` may give back what others hold."""

    journal: Journal
    by: str
    is_admin: bool = False

    async def claim(self, selector: str, seconds: float, *, targets: Targets, reason: str = "") -> Claim:
        """Claim targets for a time, or renew one's own claim of the same; `targets` are those known, with their labels.

        Raises:
            ClaimedError: somebody else has claimed one of them.
            UsageError: the time or the selector is not valid.
        """
        parsed = _checked(selector, seconds, reason)
        while True:
            seq, known = await read_claims(self.journal)
            now = time.monotonic()
            mine = next((claim for claim in known if self._is_mine(claim) and claim.selector == parsed), None)
            self._check_free(parsed, known, targets, now)
            if mine is None and len(known) >= MOST_CLAIMS:
                raise _too_many()
            entry = ClaimEntry(
                id=mine.entry.id if mine else new_id("clm"),
                selector=str(parsed),
                by=self.by,
                since=mine.entry.since if mine else utc_now(),
                seconds=seconds,
                left_s=seconds,
                reason=reason,
                names=tuple(sorted({*names_of(parsed, targets), *(mine.names if mine else ())})),
            )
            others = _others(known, entry.id, now)
            record = _record("renewed" if mine else "claimed", self.by, reason, entry, (*others, entry))
            if len(encode(record)) > MOST_BYTES:
                raise _too_large(len(entry.names))
            if await self._append(record, seq):
                return Claim(entry=entry, selector=parsed, ends_at=time.monotonic() + seconds)

    async def release(self, claim_id: str, *, reason: str = "") -> Claim:
        """Give a claim back.

        Raises:
            NotFoundError: no claim of that id, or beginning of an id, is in force.
            NotAllowedError: somebody else holds it.
        """
        while True:
            seq, known = await read_claims(self.journal)
            claim = _meant(claim_id, known)
            if not self.is_admin and not self._is_mine(claim):
                raise NotAllowedError(
                    f"{self.by} may not release {claim.entry.id}",
                    because=f"{claim.entry.by} holds it",
                    cure="ask them, or an admin of the lab",
                )
            others = _others(known, claim.entry.id, time.monotonic())
            if await self._append(_record("released", self.by, reason, claim.entry, others), seq):
                return claim

    def _is_mine(self, claim: Claim) -> bool:
        return claim.entry.by == self.by

    def _check_free(self, wanted: Selector, known: Iterable[Claim], targets: Targets, now: float) -> None:
        for claim in known:
            if not self._is_mine(claim) and (name := overlap(wanted, claim, targets)) is not None:
                raise refusal(claim, name, now)

    async def _append(self, record: ClaimsChanged, after: int) -> bool:
        """Write the next record of claims; tells whether nobody else was faster."""
        try:
            await self.journal.append(SUBJECT, record, after=after, patience_s=PATIENCE_S)
        except MovedError:
            return False
        return True


def _too_many() -> ConflictError:
    return ConflictError(
        f"there are {MOST_CLAIMS} claims", because="no more can be in force at once", cure="claim by labels"
    )


def _too_large(names: int) -> ConflictError:
    return ConflictError(
        "the claims in force would take too much room",
        because=f"all of them stand in one record of {MOST_BYTES // 1000} kB, and this one names {names} targets",
        cure="claim fewer at once, or by their names: --on 'pump-*'",
    )


def _checked(selector: str, seconds: float, reason: str) -> Selector:
    if not 0 < seconds <= MOST_S:
        raise UsageError(
            f"a claim cannot last {lasting(seconds)}", because=f"it lasts up to {lasting(MOST_S)}", cure="--for 2h"
        )
    if len(reason) > MOST_REASON or len(selector) > MOST_SELECTOR:
        raise UsageError(
            "the claim is too long",
            because=f"a selector has up to {MOST_SELECTOR} characters, a reason {MOST_REASON}",
            cure="claim by labels",
        )
    return parse_selector(selector)


def _meant(claim_id: str, known: Iterable[Claim]) -> Claim:
    found = [claim for claim in known if claim_id and claim.entry.id.startswith(claim_id)]
    if len(found) != 1:
        ids = ", ".join(claim.entry.id for claim in found or known) or "none"
        what = f"{claim_id!r} is the beginning of several ids" if found else f"no claim {claim_id!r} is in force"
        raise NotFoundError(what, because=f"there are: {ids}", cure="see labwright claims list")
    return found[0]


def _others(known: Iterable[Claim], claim_id: str, now: float) -> tuple[ClaimEntry, ...]:
    """Give the other claims in force, with the time that is left of each now."""
    return tuple(
        claim.entry.model_copy(update={"left_s": claim.left_s(now)})
        for claim in known
        if claim.entry.id != claim_id and claim.left_s(now) > 0
    )


def _record(
    did: Literal["claimed", "renewed", "released"],
    by: str,
    reason: str,
    entry: ClaimEntry,
    claims: tuple[ClaimEntry, ...],
) -> ClaimsChanged:
    return ClaimsChanged(did=did, claim=entry.id, selector=entry.selector, by=by, reason=reason, claims=claims)
