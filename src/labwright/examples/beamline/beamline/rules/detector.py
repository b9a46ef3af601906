"""What the detector must do before images come."""

from collections.abc import Iterator

from beamline.conditions import collection_started
from labwright import Request, Scenario, rule
from labwright.conditions import fact


@rule(collection_started & fact("detector_class", "eiger"))
def arm(scenario: Scenario) -> Iterator[Request]:
    """Arm the detector for the images that are about to come."""
    yield Request("arm-detector", dcid=scenario.dcid, images=scenario.images, on="role=detector")
