"""Simulated instruments that know what is where: sequences are tried on them, and run dry as on real ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from labwright.core.clock import Clock, SystemClock
from labwright.core.errors import TerminalError

ROOM_C = 22.0
ROUNDING_ML = 1e-9


@dataclass
class Vessel:
    """Some liquid: how many millilitres, and the concentration of what is dissolved, the stock's being 1."""

    volume_ml: float = 0.0
    concentration: float = 0.0

    def take(self, volume_ml: float, name: str) -> Vessel:
        """Take some out.

        Raises:
            TerminalError: there is not so much.
        """
        if volume_ml > self.volume_ml + ROUNDING_ML:
            raise TerminalError(
                f"{name} has run dry",
                because=f"{volume_ml:g} ml were asked for, and {self.volume_ml:g} ml were left",
                cure=f"fill {name}",
            )
        self.volume_ml = max(0.0, self.volume_ml - volume_ml)
        return Vessel(volume_ml, self.concentration)

    def add(self, other: Vessel) -> None:
        """Pour some in, and mix."""
        volume_ml = self.volume_ml + other.volume_ml
        if volume_ml > 0:
            solute = self.volume_ml * self.concentration + other.volume_ml * other.concentration
            self.concentration = solute / volume_ml
        self.volume_ml = volume_ml


@dataclass(kw_only=True)
class SimulatedPump:
    """A syringe pump with vessels; places that are not named hold nothing at first.

    >>> pump = SimulatedPump(capacity_ml=2)
    >>> pump.aspirate(1, "stock")
    >>> pump.dispense(1, "A1")
    >>> pump.vessels["A1"]
    Vessel(volume_ml=1.0, concentration=1.0)
    """

    capacity_ml: float = 5.0
    vessels: dict[str, Vessel] = field(
        default_factory=lambda: {
            "reactor": Vessel(100.0, 1.0),
            "stock": Vessel(100.0, 1.0),
            "solvent": Vessel(1000.0, 0.0),
        }
    )
    moves: list[tuple[str, float, str]] = field(default_factory=list[tuple[str, float, str]])
    """What was done: aspirate or dispense, how many millilitres, and where."""
    syringe: Vessel = field(default_factory=Vessel)

    @property
    def held_ml(self) -> float:
        """How much is in the syringe, in millilitres."""
        return self.syringe.volume_ml

    def aspirate(self, volume_ml: float, source: str) -> None:
        """Draw from a vessel.

        Raises:
            TerminalError: the vessel runs dry, or the syringe would be too full.
        """
        if self.held_ml + volume_ml > self.capacity_ml + ROUNDING_ML:
            raise TerminalError(
                f"the syringe does not take {volume_ml:g} ml",
                because=f"it holds {self.held_ml:g} ml of {self.capacity_ml:g} ml",
                cure="draw less at once",
            )
        self.syringe.add(self._vessel(source).take(volume_ml, source))
        self.moves.append(("aspirate", volume_ml, source))

    def dispense(self, volume_ml: float, target: str) -> None:
        """Push into a vessel.

        Raises:
            TerminalError: the syringe does not hold so much.
        """
        self._vessel(target).add(self.syringe.take(volume_ml, "the syringe"))
        self.moves.append(("dispense", volume_ml, target))

    def _vessel(self, name: str) -> Vessel:
        return self.vessels.setdefault(name, Vessel())


@dataclass
class SimulatedInjector:
    """An injection valve that notes its turns."""

    turns: list[str] = field(default_factory=list[str])

    def load(self) -> None:
        """Connect the loop with the pump."""
        self.turns.append("load")

    def inject(self) -> None:
        """Start a run."""
        self.turns.append("inject")


class SimulatedHeater:
    """A heater that keeps its rate exactly, or only some part of it (`power` below 1)."""

    def __init__(self, clock: Clock | None = None, *, temperature_c: float = ROOM_C, power: float = 1.0) -> None:
        self._clock = clock or SystemClock()
        self._power = power
        self._from_c = self._to_c = temperature_c
        self._rate_c_per_s = 0.0
        self._since_s = self._clock.monotonic()
        self.is_on = False

    @property
    def temperature_c(self) -> float:
        """The temperature now, in degrees Celsius."""
        way_c = self._rate_c_per_s * (self._clock.monotonic() - self._since_s)
        if self._to_c >= self._from_c:
            return min(self._to_c, self._from_c + way_c)
        return max(self._to_c, self._from_c - way_c)

    def ramp_to(self, temperature_c: float, rate_c_per_min: float) -> None:
        """Begin a ramp."""
        self._from_c, self._to_c = self.temperature_c, temperature_c
        self._rate_c_per_s = rate_c_per_min / 60 * self._power
        self._since_s = self._clock.monotonic()
        self.is_on = True

    def off(self) -> None:
        """Stay at the temperature that it has; cooling down is not simulated."""
        self._from_c = self._to_c = self.temperature_c
        self.is_on = False
