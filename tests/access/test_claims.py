"""Claims: pure folds of what is in force, and claims on a real journal and at a real agent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.access.claim_watch import ClaimWatch, read_claims
from labwright.access.claiming import Claiming
from labwright.access.claims import MOST_CLAIMS, MOST_S, SUBJECT, claim_on, claims_of, overlap
from labwright.agents.handle import AgentHandle
from labwright.agents.serving import AgentServer
from labwright.core.errors import (
    ClaimedError,
    ConflictError,
    LabwrightError,
    NotAllowedError,
    NotFoundError,
    UsageError,
)
from labwright.core.model import utc_now
from labwright.core.roles import Role
from labwright.core.selectors import parse_selector
from labwright.journal.records import ClaimEntry, ClaimsChanged, UnknownRecord, decode, encode
from tests.access.conftest import House
from tests.support.waiting import until

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TARGETS = {"pump-1": {"bench": "2"}, "pump-2": {"bench": "2"}, "oven": {"bench": "1"}}


def record(*claims: tuple[str, str, float]) -> ClaimsChanged:
    """Give a record of claims: who has chosen what, and the seconds left."""
    entries = tuple(
        ClaimEntry(id=f"clm_{number}", selector=selector, by=by, since=NOW, seconds=max(left_s, 1.0), left_s=left_s)
        for number, (by, selector, left_s) in enumerate(claims)
    )
    return ClaimsChanged(did="claimed", claim="clm_0", claims=entries)


@given(left_s=st.floats(-1e9, 1e9), age_s=st.floats(-1e6, 1e6), now=st.floats(0, 1e9))
def test_a_claim_never_lasts_longer_than_it_may(left_s: float, age_s: float, now: float) -> None:
    for claim in claims_of(record(("ada", "pump-1", left_s)), age_s=age_s, now=now):
        assert 0 <= claim.left_s(now) <= min(left_s, MOST_S) + 1e-3
        assert claim_on([claim], "pump-1", {}, claim.ends_at) is None


@given(data=st.binary() | st.text().map(str.encode))
def test_nonsense_in_place_of_a_record_is_no_claim(data: bytes) -> None:
    assert not isinstance(decode(data), ClaimsChanged)


@given(selector=st.text(), seconds=st.floats(), reason=st.text())
def test_odd_claims_are_read_back_or_left_out(selector: str, seconds: float, reason: str) -> None:
    made = ClaimEntry.model_construct(
        id="clm_1", selector=selector, by="ada", since=NOW, seconds=seconds, left_s=seconds, reason=reason
    )
    read = decode(
        encode(ClaimsChanged.model_construct(type="claims_changed", did="claimed", claim="c", claims=(made,)))
    )
    if not isinstance(read, UnknownRecord):
        assert isinstance(read, ClaimsChanged)
        for claim in claims_of(read, age_s=0, now=time.monotonic()):
            assert claim.entry.seconds > 0


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [
        ("pump-1", "bench=2", "pump-1"),
        ("pump-*", "oven", None),
        ("elsewhere", "elsewhere", "elsewhere"),
        ("bench=3", "bench=3", "bench=3"),
        ("new", "name=new", "new"),
        ("all", "oven", "oven"),
        ("bench=1", "bench=2", None),
    ],
)
def test_selectors_that_choose_the_same_target_overlap(one: str, other: str, where: str | None) -> None:
    for wanted, claimed in ((one, other), (other, one)):
        (claim,) = claims_of(record(("ada", claimed, 60.0)), age_s=0, now=0.0)
        assert overlap(parse_selector(wanted), claim, TARGETS) == where


def claiming(house: House, by: str, *, is_admin: bool = False) -> Claiming:
    return Claiming(journal=house.journal, by=by, is_admin=is_admin)


async def test_an_overlapping_claim_of_another_is_refused_and_ones_own_is_renewed(house: House) -> None:
    first = await claiming(house, "ada").claim("bench=2", 60, targets=TARGETS, reason="night run")

    with pytest.raises(ClaimedError, match="pump-1 is claimed by ada") as refused:
        await claiming(house, "bob").claim("pump-1", 60, targets=TARGETS)
    renewed = await claiming(house, "ada").claim("bench=2", 120, targets=TARGETS)
    other = await claiming(house, "bob").claim("oven", 60, targets=TARGETS)

    assert "night run" in refused.value.because
    assert refused.value.exit_code == 6
    assert renewed.entry.id == first.entry.id
    _, known = await read_claims(house.journal)
    assert {claim.entry.id for claim in known} == {first.entry.id, other.entry.id}
    assert max(claim.left_s(time.monotonic()) for claim in known) > 100
    did = [getattr(entry.record, "did", "") for entry in await house.journal.read(SUBJECT)]
    assert did == ["claimed", "renewed", "claimed"]


async def test_a_claim_is_renewed_also_where_no_more_can_be_made(house: House) -> None:
    claimed = claiming(house, "ada")
    entries = tuple(
        ClaimEntry(id=f"clm_{n}", selector=f"x{n}", by="ada", since=utc_now(), seconds=60, left_s=60)
        for n in range(MOST_CLAIMS)
    )
    full = ClaimsChanged(did="claimed", claim="clm_0", selector="x0", by="ada", claims=entries)
    await house.journal.append(SUBJECT, full, after=0)

    renewed = await claimed.claim("x7", 120, targets={})
    assert renewed.entry.id == "clm_7"
    with pytest.raises(ConflictError, match=f"there are {MOST_CLAIMS} claims"):
        await claimed.claim("y", 60, targets={})


async def test_claims_that_would_not_fit_into_one_record_are_refused(house: House) -> None:
    """What is cut out of a record is not read by those who follow claims: all claims would be gone for them."""
    many = {f"pump-{number:04}-{'x' * 100}": {"bench": "2"} for number in range(2000)}
    await claiming(house, "ada").claim("oven", 60, targets=TARGETS)

    with pytest.raises(ConflictError, match="too much room"):
        await claiming(house, "ada").claim("bench=2", 60, targets=many)
    await claiming(house, "ada").claim("pump-*", 60, targets=many)

    assert len((await read_claims(house.journal))[1]) == 2


async def test_a_claim_by_labels_stays_on_those_whom_it_chose(house: House) -> None:
    """The site's labels may not be known where it is asked for next, as without `serve`."""
    await claiming(house, "ada").claim("bench=2", 60, targets=TARGETS)
    with pytest.raises(ClaimedError, match="pump-2 is claimed by ada"):
        await claiming(house, "bob").claim("pump-2", 60, targets={})
    await claiming(house, "ada").claim("bench=2", 120, targets={})
    with pytest.raises(ClaimedError, match="pump-2 is claimed by ada"):
        await claiming(house, "bob").claim("pump-2", 60, targets={})
    await claiming(house, "bob").claim("oven", 60, targets={})


async def test_of_many_claims_at_once_one_holds(house: House) -> None:
    async def claim(by: str) -> str:
        try:
            await claiming(house, by).claim("pump-1", 60, targets=TARGETS)
        except ClaimedError:
            return ""
        return by

    won = [by for by in await asyncio.gather(*(claim(f"user-{number}") for number in range(8))) if by]

    _, known = await read_claims(house.journal)
    assert [claim.entry.by for claim in known] == won


async def test_a_claim_is_given_back_by_its_holder_or_an_admin(house: House) -> None:
    claim = await claiming(house, "ada").claim("pump-1", 60, targets={})

    with pytest.raises(NotAllowedError, match="bob may not release") as refused:
        await claiming(house, "bob").release(claim.entry.id)
    assert refused.value.because == "ada holds it"
    await claiming(house, "root", is_admin=True).release(claim.entry.id[:12])
    with pytest.raises(NotFoundError):
        await claiming(house, "ada").release(claim.entry.id)

    assert await read_claims(house.journal) == (2, ())


@pytest.mark.parametrize("seconds", [0.0, -1.0, MOST_S + 1, float("nan"), float("inf")])
async def test_a_claim_lasts_a_sensible_time(house: House, seconds: float) -> None:
    with pytest.raises(UsageError):
        await claiming(house, "ada").claim("pump-1", seconds, targets={})


async def test_how_long_a_claim_would_last_is_told_in_words(house: House) -> None:
    with pytest.raises(UsageError, match=r"cannot last 699,993.1 days\nbecause: it lasts up to \d+ days"):
        await claiming(house, "ada").claim("pump-1", 60_479_400_000, targets={})


async def test_a_claim_expires_by_itself(house: House) -> None:
    await claiming(house, "ada").claim("pump-1", 0.3, targets={})

    await until(lambda: read_nothing(house))
    await claiming(house, "bob").claim("pump-1", 60, targets={})


async def read_nothing(house: House) -> bool:
    return not (await read_claims(house.journal))[1]


async def test_a_follower_hears_of_claims_and_knows_those_from_before(house: House) -> None:
    before = await claiming(house, "ada").claim("oven", 60, targets={})
    watch = ClaimWatch(house.journal)
    running = asyncio.create_task(watch.run())
    try:
        await asyncio.wait_for(watch.is_known.wait(), 30)
        assert [claim.entry.id for claim in watch.claims] == [before.entry.id]
        await claiming(house, "ada").claim("pump-1", 60, targets={})
        await until(lambda: len(watch.claims) == 2)
    finally:
        running.cancel()


async def test_a_follower_asks_again_while_nats_server_cannot_tell_its_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a cluster that has no leader just now; an agent goes on meanwhile."""
    await claiming(house, "ada").claim("oven", 60, targets={})
    asked: list[str] = []

    async def api(verb: str, _: object = None) -> dict[str, object]:
        asked.append(verb)
        return {"error": {"code": 503, "description": "JetStream system temporarily unavailable"}}

    watch = ClaimWatch(house.journal)
    with monkeypatch.context() as unwell:
        unwell.setattr(house.journal, "api", api)
        running = asyncio.create_task(watch.run())
        await until(lambda: asked or running.done())
    try:
        await asyncio.wait({running, asyncio.create_task(watch.is_known.wait())}, return_when=asyncio.FIRST_COMPLETED)
        assert [claim.entry.selector for claim in watch.claims] == ["oven"]
    finally:
        running.cancel()


async def test_a_word_that_the_journal_refused_is_forgotten(house: House) -> None:
    watch = ClaimWatch(house.journal)
    running = asyncio.create_task(watch.run())
    try:
        await asyncio.wait_for(watch.is_known.wait(), 30)
        data = encode(record(("mallory", "pump-1", 60.0)))
        headers = {"Nats-Expected-Last-Subject-Sequence": "77"}
        await house.journal.connection.request(SUBJECT, data, headers=headers)
        await until(lambda: not watch.claims)
    finally:
        running.cancel()


# --- at an agent -----------------------------------------------------------------------------------------------------


async def test_a_stolen_claim_is_refused_and_recorded(house: House, pump: AgentServer) -> None:
    await claiming(house, "ada").claim("bench=2", 600, targets={})
    async with (
        house.raw("ada", Role.OPERATOR) as ada,
        house.raw("mallory", Role.EXPERT) as mallory,
        house.raw("root", Role.ADMIN) as root,
    ):
        await until(lambda: pump._claims.claims)
        session = (await ada.start("pump-1", "stir"))["session"]["id"]
        start = await mallory.start("pump-1", "dispense", by="ada")
        stop = await mallory.command("pump-1", None, do="stop", session=session, by="ada")
        abort = await mallory.command("pump-1", "stir", do="abort", by="ada")
        by_admin = await root.start("pump-1", "dispense", wait=True)
        await ada.command("pump-1", None, do="stop", session=session)

    for reply in (start, stop, abort):
        assert reply["error"]["kind"] == "claimed"
        assert reply["exit_code"] == 6
        assert "ada" in reply["error"]["message"]
        assert "until" in reply["error"]["because"]
    assert "error" not in by_admin
    assert [refusal.by for refusal in await house.refusals(3)] == ["mallory"] * 3


async def test_a_claim_by_the_sites_labels_holds_at_an_agent_that_does_not_know_them(
    house: House, pump: AgentServer
) -> None:
    await claiming(house, "ada").claim("room=4", 600, targets={"pump-1": {"bench": "2", "room": "4"}})
    await until(lambda: pump._claims.claims)
    async with house.raw("mallory", Role.EXPERT) as mallory, house.raw("ada", Role.OPERATOR) as ada:
        refused = await mallory.start("pump-1", "dispense")
        own = await ada.start("pump-1", "dispense", wait=True)

    assert refused["error"]["kind"] == "claimed"
    assert "error" not in own


async def test_on_one_machine_a_claim_holds_off_other_users_too(
    house: House, pump: AgentServer, handle: Callable[[str], AgentHandle]
) -> None:
    await claiming(house, "ada@bench").claim("class=Pump", 600, targets={})
    await until(lambda: pump._claims.claims)

    with pytest.raises(ClaimedError):
        await handle("bob@bench").operation("dispense").start()
    stirring = await handle("ada@bench").operation("stir").start()
    await handle("bob@bench").operation("stir").abort("the beaker leaks")  # whoever stands before it may always end it

    assert (await stirring.wait(30)).state == "aborted"


async def test_an_agent_knows_the_claims_from_before_after_nats_server_was_away(
    house: House, pump: AgentServer, handle: Callable[[str], AgentHandle]
) -> None:
    await claiming(house, "ada@bench").claim("all", 600, targets={})
    await house.server.restart()
    await house.server.start()

    async def refused() -> bool:
        try:
            await handle("bob@bench").operation("dispense").start()
        except ClaimedError:
            return True
        except LabwrightError:
            return False
        raise AssertionError("it was started on a claimed agent")

    await until(refused)
