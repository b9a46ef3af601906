"""What the tests share: a scenario like those that rules get, and a context like those that steps get."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from beamline.simulated import Detector, Storage, TapeLibrary
from labwright import Event, Scenario
from labwright.testing import FakeContext

ROTATION: Mapping[str, Any] = {
    "beamline": "i00",
    "visit": "mx12345-6",
    "proposal_code": "mx",
    "data_collection_class": "rotation",
    "run_status": "success",
    "detector_class": "eiger",
    "images": 10,
    "processing_host": "cpu-1",
}


@pytest.fixture
def scenario() -> Callable[..., Scenario]:
    """Make the scenario of a rotation that has ended; what is given stands in place of what it has."""

    def make(type: str = "data_collection.end", **facts: Any) -> Scenario:
        event = Event(id="event-1", source="i00/gda", type=type, subject="7", time=datetime(2026, 3, 2, tzinfo=UTC))
        return Scenario.of(event, {**ROTATION, **facts})

    return make


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., FakeContext]:
    """Make a context with clients for a fresh folder, on the target `cpu-1`; facts of the target may be given."""
    made = 0

    def make(**facts: Any) -> FakeContext:
        nonlocal made
        made += 1
        folder = tmp_path / str(made)
        return (
            FakeContext()
            .with_target("cpu-1", **facts)
            .with_client("detector", Detector(folder / "images"))
            .with_client("storage", Storage(folder / "cpu-1"))
            .with_client("tape", TapeLibrary(folder / "tape"))
        )

    return make
