"""A step is a function too: call it with a fake context that has what the step needs, and no more."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from beamline.facts import where_the_images_are
from beamline.simulated import Detector
from beamline.steps.detector import arm_detector, flush_images, images_are_written
from beamline.steps.processing import find_spots, integrate
from beamline.steps.storage import disks_are_young, remove_old_collections, tape_is_mounted
from labwright import Event, Finding, NotApplicable, TerminalError, TransientError
from labwright.core.errors import NotProvidedError
from labwright.testing import FakeContext, ManualClock

MakeContext = Callable[..., FakeContext]


def test_images_are_not_written_before_the_detector_was_told_to(context: MakeContext) -> None:
    assert asyncio.run(images_are_written(context(), dcid=7)) is False


def test_every_image_is_searched_for_spots(context: MakeContext) -> None:
    ctx = context()
    asyncio.run(flush_images(ctx, dcid=7, images=3))

    spots = find_spots(ctx.blocking, dcid=7, images=3)

    assert len(spots) == 3
    assert all(count > 0 for count in spots)
    assert ctx.progressed[-1] == (3, 3, "images searched")


def test_no_spots_is_an_error_that_will_not_pass(context: MakeContext) -> None:
    with pytest.raises(TerminalError, match="no spots"):
        integrate(context().blocking, dcid=7, spots=[0, 0])


def test_a_tape_that_is_still_fetched_is_an_error_that_may_pass(context: MakeContext) -> None:
    with pytest.raises(TransientError, match="not mounted yet") as caught:
        asyncio.run(tape_is_mounted(context(), visit="mx12345-6"))

    assert caught.value.retry_after == 0.5


def test_the_newest_collections_stay(context: MakeContext) -> None:
    ctx = context(keep_collections=2)
    storage = asyncio.run(ctx.client("storage"))
    for dcid in (1, 2, 3):
        storage.write(dcid, "results", {})

    removed = asyncio.run(remove_old_collections(ctx))

    assert removed == [1]
    assert storage.collections() == [2, 3]


def test_with_nothing_to_remove_the_step_does_not_apply(context: MakeContext) -> None:
    with pytest.raises(NotApplicable, match="has no older ones"):
        asyncio.run(remove_old_collections(context(keep_collections=2)))


def test_old_disks_are_a_finding() -> None:
    clock = ManualClock(datetime(2026, 3, 2, tzinfo=UTC))
    ctx = FakeContext(clock=clock).with_target("gpu-1", disks_since=2016)

    with pytest.raises(Finding, match="10 years old"):
        asyncio.run(disks_are_young(ctx))


def test_a_step_that_asks_for_what_it_was_not_given_says_so() -> None:
    with pytest.raises(NotProvidedError, match="a client of kind 'detector' was not provided"):
        asyncio.run(arm_detector(FakeContext(), dcid=7, images=3))


def test_arming_is_logged(context: MakeContext) -> None:
    ctx = context(frames_per_second=500)

    asyncio.run(arm_detector(ctx, dcid=7, images=100))

    assert ctx.lines[0].text == "armed"
    assert ctx.lines[0].fields["seconds"] == 0.2
    assert isinstance(asyncio.run(ctx.client("detector")), Detector)


@pytest.mark.parametrize(("subject", "host"), [("1000", "cpu-1"), ("1001", "cpu-2")])
def test_the_writers_take_turns(subject: str, host: str) -> None:
    time = datetime(2026, 3, 2, tzinfo=UTC)
    event = Event(id="event-1", source="i00/gda", type="data_collection.end", subject=subject, time=time)

    facts = asyncio.run(where_the_images_are.facts(event))

    assert facts == {"processing_host": host}
