"""What should happen, and when."""

from collections.abc import Iterator

from labwright import Request, Scenario, rule
from labwright.conditions import event_type, fact

sample_arrived = event_type("sample.arrived")
solid = fact("state", "solid")


@rule(sample_arrived & solid)
def weigh(scenario: Scenario) -> Iterator[Request]:
    """Weigh every solid sample that arrives."""
    yield Request("weigh", on="balance-1", sample=scenario.event.subject, readings_mg=scenario.readings_mg)
