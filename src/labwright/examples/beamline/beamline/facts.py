"""What this beamline knows besides the file of facts."""

from collections.abc import Mapping
from typing import Any

from labwright import Event, fact_source

HOSTS = ("cpu-1", "cpu-2")


@fact_source("data_collection.*")
def where_the_images_are(event: Event) -> Mapping[str, Any] | None:
    """Tell which host has the images: the detector's writers take turns, by the number of the data collection."""
    if event.subject is None or not event.subject.isdigit():
        return None
    return {"processing_host": HOSTS[int(event.subject) % len(HOSTS)]}
