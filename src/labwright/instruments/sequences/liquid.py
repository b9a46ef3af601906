"""Moving liquid with a syringe pump: in as many strokes as its syringe needs."""

from __future__ import annotations

from labwright.core.errors import UsageError
from labwright.instruments.sequences.protocols import Pump
from labwright.instruments.sequences.quantities import positive, whole
from labwright.schedule.actions import Action

LEAST_ML = 1e-9
"""What is left after the last stroke is rounding."""


def transfer(pump: Pump, *, volume_ml: float, source: str, target: str, label: str = "transfer") -> Action:
    """Make an action that moves millilitres from one place to another; it gives how many.

    Raises:
        UsageError: the volume is no positive number.
    """
    positive(volume_ml, "a volume", "millilitres")
    return Action(move, pump, volume_ml=volume_ml, source=source, target=target, label=label)


def rinse(
    pump: Pump,
    *,
    volume_ml: float,
    times: int = 2,
    solvent: str = "solvent",
    waste: str = "waste",
    label: str = "rinse",
) -> Action:
    """Make an action that washes the syringe and its line with a solvent, a number of times; it gives the millilitres.

    Raises:
        UsageError: the volume is no positive number, or the number of times is not from 1.
    """
    positive(volume_ml, "a volume", "millilitres")
    whole(times, "a number of rinses")
    return Action(wash, pump, volume_ml=volume_ml, times=times, solvent=solvent, waste=waste, label=label)


def move(pump: Pump, *, volume_ml: float, source: str, target: str) -> float:
    """Move millilitres from one place to another, and give how many."""
    left_ml = positive(volume_ml, "a volume", "millilitres")
    _refuse_when_full(pump)
    while left_ml > LEAST_ML:
        stroke_ml = min(left_ml, pump.capacity_ml)
        pump.aspirate(stroke_ml, source)
        pump.dispense(stroke_ml, target)
        left_ml -= stroke_ml
    return volume_ml


def empty(pump: Pump, *, waste: str) -> float:
    """Push to the waste what an action that was aborted or has failed left in the syringe, and give how much."""
    held_ml = pump.held_ml
    if held_ml > LEAST_ML:
        pump.dispense(held_ml, waste)
    return held_ml


def wash(pump: Pump, *, volume_ml: float, times: int, solvent: str, waste: str) -> float:
    """Move solvent to the waste a number of times, and give how many millilitres went there."""
    for _ in range(whole(times, "a number of rinses")):
        move(pump, volume_ml=volume_ml, source=solvent, target=waste)
    return times * volume_ml


def draw(pump: Pump, *, volume_ml: float, source: str) -> float:
    """Fill the syringe with millilitres that the next action needs, and give how many."""
    check_stroke(pump, volume_ml)
    _refuse_when_full(pump)
    pump.aspirate(volume_ml, source)
    return volume_ml


def check_stroke(pump: Pump, volume_ml: float) -> None:
    """Refuse a volume that the syringe cannot take at once.

    Raises:
        UsageError: it is too much, or no positive number.
    """
    if positive(volume_ml, "a volume", "millilitres") > pump.capacity_ml:
        raise UsageError(
            f"{volume_ml:g} ml do not fit into the syringe",
            because=f"it holds {pump.capacity_ml:g} ml",
            cure="draw less, or use a larger syringe",
        )


def _refuse_when_full(pump: Pump) -> None:
    if pump.held_ml > LEAST_ML:
        raise UsageError(
            f"the syringe holds {pump.held_ml:g} ml already",
            because="what is in it would be mixed with what is drawn",
            cure="empty it first, as `prime` of direct_inject does",
        )
