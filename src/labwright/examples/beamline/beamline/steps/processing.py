"""Steps that turn images into results. They compute, so they are `def`: each runs in a thread of its own."""

from statistics import fmean
from typing import Any

from labwright import BlockingContext, TerminalError, output_of, step

SPOT = 100
"""The least brightness of a pixel that counts as a spot."""


@step
def find_spots(ctx: BlockingContext, dcid: int, images: int) -> list[int]:
    """Count the spots on each image."""
    detector = ctx.client("detector")
    spots: list[int] = []
    for number in range(1, images + 1):
        spots.append(sum(pixel >= SPOT for pixel in detector.image(dcid, number)))
        ctx.progress(number, images, "images searched")
    return spots


@step
def integrate(ctx: BlockingContext, dcid: int, spots: list[int] = output_of("find_spots")) -> dict[str, Any]:
    """Integrate the spots.

    Raises:
        TerminalError: there are none, and trying again will not bring them back.
    """
    if not any(spots):
        raise TerminalError(f"data collection {dcid} has no spots", because="no image has a bright pixel")
    ctx.log.info("integrated", images=len(spots), spots=sum(spots))
    return {"spots": sum(spots), "per_image": round(fmean(spots), 2), "weakest": min(spots)}


@step
def write_results(
    ctx: BlockingContext, dcid: int, statistics: dict[str, Any] = output_of("integrate")
) -> dict[str, Any]:
    """Write the results to the scratch folder of this host."""
    path = ctx.client("storage").write(dcid, "results", statistics)
    ctx.set_result({**statistics, "file": str(path)})
    return {"file": str(path)}


@step
def score_row(ctx: BlockingContext, dcid: int, first: int, last: int) -> int:
    """Score one row of a grid: its number of spots."""
    detector = ctx.client("detector")
    return sum(pixel >= SPOT for number in range(first, last + 1) for pixel in detector.image(dcid, number))


@step
def mark_crystal(ctx: BlockingContext, dcid: int, row: int, score: int) -> dict[str, int]:
    """Note in which row of the grid the crystal is, for the screen in the control room."""
    found = {"row": row, "score": score}
    ctx.client("storage").write(dcid, "crystal", found)
    return found
