"""The clients that steps get with `ctx.client(...)`. A real beamline changes this module and leaves the steps alone."""

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from beamline.simulated import Detector, Storage, TapeLibrary
from labwright import provides


def scratch_folder() -> Path:
    """Tell where files go: the folder named by BEAMLINE_SCRATCH, else `scratch` in the site's own folder."""
    named = os.environ.get("BEAMLINE_SCRATCH")
    return Path(named) if named else Path(__file__).parents[1] / "scratch"


@provides("detector")
async def detector(_target: Any) -> AsyncGenerator[Detector]:
    """Give the detector's file writer."""
    yield Detector(scratch_folder() / "images")


@provides("storage")
async def storage(target: Any) -> AsyncGenerator[Storage]:
    """Give the scratch folder of the host that the run is on; without a target, the one that all hosts share."""
    yield Storage(scratch_folder() / (target.name if target else "shared"))


@provides("tape")
async def tape(_target: Any) -> AsyncGenerator[TapeLibrary]:
    """Give the tape library."""
    yield TapeLibrary(scratch_folder() / "tape")
