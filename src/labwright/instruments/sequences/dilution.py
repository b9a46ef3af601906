"""A dilution series: each vial holds what is in the one before it, a given factor weaker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labwright.core.errors import UsageError
from labwright.instruments.sequences.liquid import empty, move, wash
from labwright.instruments.sequences.protocols import Pump
from labwright.instruments.sequences.quantities import positive, whole
from labwright.schedule.actions import Action


def dilution_series(
    pump: Pump,
    *,
    vials: Sequence[str],
    volume_ml: float,
    factor: float,
    mixes: int = 3,
    rinse_ml: float = 1.0,
    rinses: int = 2,
    stock: str = "stock",
    solvent: str = "solvent",
    waste: str = "waste",
    label: str = "dilution_series",
) -> Action:
    """Make an action that fills vials one after another, each `factor` times weaker than the one before.

    Into each vial go `volume_ml` of solvent and `volume_ml / (factor - 1)` of the vial before, at first of the stock;
    they are mixed by `mixes` strokes, and the syringe is rinsed. What the last vial has too much goes to the waste, so
    that all hold `volume_ml` in the end. The result is the concentration in each vial as a part of the stock's.

    Raises:
        UsageError: there is no vial, the factor is not above 1, or a volume is no positive number.
    """
    names = tuple(vials)
    if not names or len(set(names)) < len(names):
        raise UsageError(
            f"a dilution series cannot fill the vials {list(names)}",
            because="it fills at least one, and each of them once",
            cure="name them, as in vials=['A1', 'A2', 'A3']",
        )
    if positive(factor, "a factor of dilution", "times") <= 1:
        raise UsageError(
            f"a factor of dilution cannot be {factor!r}",
            because="each vial is weaker than the one before",
            cure="give how many times weaker, such as 10",
        )
    positive(volume_ml, "a volume", "millilitres")
    positive(rinse_ml, "a volume", "millilitres")
    whole(mixes, "a number of mixing strokes")
    whole(rinses, "a number of rinses")
    given: dict[str, Any] = {"volume_ml": volume_ml, "factor": factor, "mixes": mixes}
    given |= {"rinse_ml": rinse_ml, "rinses": rinses, "stock": stock, "solvent": solvent, "waste": waste}
    return Action(_dilute, pump, vials=names, label=label, **given)


def _dilute(
    pump: Pump,
    *,
    vials: Sequence[str],
    volume_ml: float,
    factor: float,
    mixes: int,
    rinse_ml: float,
    rinses: int,
    stock: str,
    solvent: str,
    waste: str,
) -> dict[str, float]:
    carried_ml = volume_ml / (factor - 1)
    empty(pump, waste=waste)
    for vial in vials:
        move(pump, volume_ml=volume_ml, source=solvent, target=vial)
    for before, vial in zip((stock, *vials), vials, strict=False):
        move(pump, volume_ml=carried_ml, source=before, target=vial)
        stroke_ml = min(volume_ml, pump.capacity_ml)
        for _ in range(mixes):
            move(pump, volume_ml=stroke_ml, source=vial, target=vial)
        wash(pump, volume_ml=rinse_ml, times=rinses, solvent=solvent, waste=waste)
    move(pump, volume_ml=carried_ml, source=vials[-1], target=waste)
    return {vial: factor ** -(number + 1) for number, vial in enumerate(vials)}
