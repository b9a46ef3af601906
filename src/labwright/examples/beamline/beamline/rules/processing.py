"""Which data are processed, where, and how urgently."""

from collections.abc import Iterator

from beamline.conditions import collection_ended, grid_scan, has_data, rotation, serial
from labwright import Request, Scenario, rule

INDUSTRY = 10
"""Industrial users pay for their time: their runs go first."""


@rule(collection_ended & rotation & has_data)
def reduce(scenario: Scenario) -> Iterator[Request]:
    """Reduce every rotation, on the host that has its images."""
    yield Request(
        "reduce",
        dcid=scenario.dcid,
        images=scenario.images,
        visit=scenario.visit,
        on=scenario.processing_host,
        priority=INDUSTRY if scenario.proposal_code == "in" else 0,
    )


@rule(collection_ended & grid_scan & has_data)
def find_crystal(scenario: Scenario) -> Iterator[Request]:
    """Find where in the grid the crystal is while its user waits at the screen, so before everything else."""
    yield Request(
        "find-crystal", dcid=scenario.dcid, images=scenario.images, rows=scenario.grid_rows, priority=INDUSTRY + 1
    )


@rule(collection_ended & serial)
def reduce_serial(scenario: Scenario) -> Iterator[Request]:
    """Reduce serial data on the host with a GPU. There is no jet yet, so decisions show why this rule did not match."""
    yield Request("reduce", dcid=scenario.dcid, images=scenario.images, visit=scenario.visit, on="gpu=yes")
