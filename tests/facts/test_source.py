"""Sources of facts: who is asked, who wins, and what their failures mean."""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from labwright.core.errors import NotFoundError, TerminalError, TransientError, UsageError
from labwright.core.model import Event
from labwright.facts.source import SiteFactSource, fact_source, gather

EVENT = Event(id="1", source="test", type="data_collection.end", subject="5", time=datetime(2026, 1, 1, tzinfo=UTC))


@fact_source("data_collection.*")
def beamline(event: Event) -> Mapping[str, Any]:
    """Know the beamline."""
    return {"beamline": "i03", "subject": event.subject}


@fact_source("data_collection.*")
async def images(event: Event) -> Mapping[str, Any]:
    return {"images": 5, "beamline": "i04"}


@fact_source("moon.*")
def moon(event: Event) -> Mapping[str, Any]:
    return {"phase": "full"}


@fact_source("*")
def nothing(event: Event) -> None:
    return None


def raising(error: BaseException) -> SiteFactSource:
    def source(event: Event) -> None:
        raise error

    return fact_source("*")(source)


async def test_the_sources_whose_pattern_fits_are_asked_and_the_later_wins_with_a_note() -> None:
    gathered = await gather(EVENT, [beamline, images, moon, nothing])

    assert gathered.facts == {"beamline": "i04", "subject": "5", "images": 5}
    assert gathered.notes == (f"beamline: {__name__}:images overrides {__name__}:beamline",)


async def test_every_source_is_asked_on_demand() -> None:
    assert (await gather(EVENT, [beamline, moon], every=True)).facts["phase"] == "full"


async def test_sources_that_agree_need_no_note() -> None:
    assert (await gather(EVENT, [beamline, beamline])).notes == ()


def test_a_site_function_keeps_its_name_pattern_and_purpose() -> None:
    assert (beamline.name, beamline.pattern, beamline.doc) == (
        f"{__name__}:beamline",
        "data_collection.*",
        "Know the beamline.",
    )


async def test_a_plain_function_does_not_hold_up_the_loop() -> None:
    @fact_source("*")
    def slow(event: Event) -> Mapping[str, Any]:
        time.sleep(0.2)
        return {"slow": True}

    began = time.perf_counter()
    await asyncio.gather(*(gather(EVENT, [slow]) for _ in range(4)))

    assert time.perf_counter() - began < 0.7


@pytest.mark.parametrize("error", [ConnectionRefusedError("refused"), TimeoutError("slow"), OSError("no route")])
async def test_a_source_that_cannot_be_reached_may_work_later(error: Exception) -> None:
    with pytest.raises(TransientError, match=r"the fact source .*raising\.source"):
        await gather(EVENT, [raising(error)])


async def test_a_source_that_does_not_answer_may_work_later() -> None:
    @fact_source("*")
    async def silent(event: Event) -> None:
        await asyncio.sleep(60)

    with pytest.raises(TransientError, match="silent did not answer"):
        await gather(EVENT, [silent], patience_s=0.05)


async def test_a_source_that_fails_otherwise_needs_somebodys_help() -> None:
    with pytest.raises(TerminalError, match=r"raising\.source failed") as raised:
        await gather(EVENT, [raising(KeyError("x"))])

    assert raised.value.because == "KeyError: 'x'"
    assert raised.value.cure


@pytest.mark.parametrize("error", [NotFoundError("no such thing"), TransientError("busy"), TerminalError("never")])
async def test_what_a_source_says_in_our_words_comes_through(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        await gather(EVENT, [raising(error)])

    assert raised.value is error


@pytest.mark.parametrize("found", [5, "text", [("a", 1)], {5: 1}])
async def test_facts_that_are_no_mapping_are_refused(found: Any) -> None:
    @fact_source("*")
    def odd(event: Event) -> Any:
        return found

    with pytest.raises(TerminalError, match="odd returned"):
        await gather(EVENT, [odd])


def test_only_a_function_under_a_pattern_can_be_a_source() -> None:
    with pytest.raises(UsageError):
        fact_source("")
    with pytest.raises(UsageError):
        fact_source("*")(5)  # type: ignore[arg-type]
