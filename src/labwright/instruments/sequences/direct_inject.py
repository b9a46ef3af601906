"""Direct-inject sampling: a sample goes from the reactor into the loop of a chromatograph, and the line is washed."""

from __future__ import annotations

from labwright.instruments.sequences.liquid import check_stroke, draw, empty, move, rinse
from labwright.instruments.sequences.protocols import Injector, Pump
from labwright.instruments.sequences.quantities import positive
from labwright.instruments.sequences.waiting import wait
from labwright.schedule.actions import Action


def direct_inject(
    pump: Pump,
    injector: Injector,
    *,
    sample_ml: float,
    prime_ml: float,
    settle_s: float = 5.0,
    rinse_ml: float = 1.0,
    rinses: int = 2,
    reactor: str = "reactor",
    loop: str = "loop",
    solvent: str = "solvent",
    waste: str = "waste",
) -> list[Action]:
    """Make the five actions of one sampling: `prime`, `aspirate`, `wait`, `inject`, `rinse`.

    `prime` empties the syringe, fills the line with `prime_ml` from the reactor and discards them, `aspirate` draws
    `sample_ml`, `wait` lets bubbles settle, `inject` fills the loop with all that was drawn and starts the
    chromatograph, and `rinse` washes syringe and line. Give them to a schedule, in which each can be given other
    numbers for a point: `schedule.fire(aspirate={"volume_ml": 0.5})`.

    >>> from labwright.instruments.sequences.simulated import SimulatedInjector, SimulatedPump
    >>> actions = direct_inject(SimulatedPump(), SimulatedInjector(), sample_ml=0.2, prime_ml=0.3)
    >>> [action.label for action in actions]
    ['prime', 'aspirate', 'wait', 'inject', 'rinse']

    Raises:
        UsageError: a number will not do.
    """
    check_stroke(pump, sample_ml)
    positive(prime_ml, "a volume", "millilitres")
    return [
        Action(prime, pump, volume_ml=prime_ml, source=reactor, waste=waste, label="prime"),
        Action(draw, pump, volume_ml=sample_ml, source=reactor, label="aspirate"),
        wait(settle_s),
        Action(inject, pump, injector, loop=loop, label="inject"),
        rinse(pump, volume_ml=rinse_ml, times=rinses, solvent=solvent, waste=waste),
    ]


def prime(pump: Pump, *, volume_ml: float, source: str, waste: str) -> float:
    """Empty the syringe, fill the line from a place, and give how many millilitres of that were discarded."""
    empty(pump, waste=waste)
    return move(pump, volume_ml=volume_ml, source=source, target=waste)


def inject(pump: Pump, injector: Injector, *, loop: str) -> float:
    """Push what the syringe holds into the loop, start the chromatograph, and give how many millilitres that were."""
    volume_ml = pump.held_ml
    injector.load()
    pump.dispense(volume_ml, loop)
    injector.inject()
    return volume_ml
