"""What the sequences need of instruments; a driver with these methods fits, whoever has written it.

Methods may block as long as the movement takes, and raise whatever a driver raises.
"""

from __future__ import annotations

from typing import Protocol


class Pump(Protocol):
    """A syringe pump whose valve, or whose robot arm, reaches places by name."""

    @property
    def capacity_ml(self) -> float:
        """How much the syringe holds, in millilitres."""
        ...

    @property
    def held_ml(self) -> float:
        """How much is in the syringe, in millilitres."""
        ...

    def aspirate(self, volume_ml: float, source: str) -> None:
        """Draw that many millilitres from a place."""
        ...

    def dispense(self, volume_ml: float, target: str) -> None:
        """Push that many millilitres to a place."""
        ...


class Injector(Protocol):
    """The injection valve of a chromatograph, with a loop that a pump fills."""

    def load(self) -> None:
        """Connect the loop with the pump."""
        ...

    def inject(self) -> None:
        """Flush the loop into the column, and start the run of the chromatograph."""
        ...


class Heater(Protocol):
    """A heating block, a bath or an oven that ramps by itself."""

    @property
    def temperature_c(self) -> float:
        """The temperature as it is measured, in degrees Celsius."""
        ...

    def ramp_to(self, temperature_c: float, rate_c_per_min: float) -> None:
        """Begin to change the temperature at that rate, and hold it when it is reached; return at once."""
        ...

    def off(self) -> None:
        """Stop heating."""
        ...
