"""What keeps the processing hosts fit."""

from collections.abc import Iterator

from beamline.conditions import collection_ended
from labwright import Request, Scenario, rule


@rule(collection_ended)
def make_room(_scenario: Scenario) -> Iterator[Request]:
    """Make room on every processing host: one request, one run on each target that the selector chooses."""
    yield Request("make-room", on="role=processing", priority=-5)
