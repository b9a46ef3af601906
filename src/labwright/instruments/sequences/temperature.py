"""Temperature: a ramp at a given rate, and a hold."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from labwright.core.errors import TerminalError
from labwright.instruments.sequences.protocols import Heater
from labwright.instruments.sequences.quantities import finite, positive
from labwright.plan.point_checks import checked_seconds
from labwright.schedule.actions import Action

SECONDS_PER_MINUTE = 60.0


def temperature_ramp(
    heater: Heater,
    *,
    to_c: float,
    rate_c_per_min: float,
    hold_s: float = 0.0,
    settle_s: float = 0.0,
    tolerance_c: float = 1.0,
    label: str = "temperature_ramp",
) -> Action:
    """Make an action that changes the temperature at a rate, and holds it for some seconds.

    It waits as long as the ramp takes from the measured temperature, then `settle_s`, and fails if the temperature is
    not within `tolerance_c` then; after `hold_s` it asks once more. The heater holds the temperature when the action
    has ended: another ramp changes it, `switch_off` ends it. The result tells both temperatures and how long the ramp
    took.

    Raises:
        UsageError: a temperature, a rate, a tolerance or a number of seconds will not do.
    """
    to_c = finite(to_c, "a temperature", "degrees Celsius")
    positive(rate_c_per_min, "a rate", "degrees per minute")
    positive(tolerance_c, "a tolerance", "degrees")
    seconds: dict[str, Any] = {
        "hold_s": checked_seconds(hold_s, "a hold"),
        "settle_s": checked_seconds(settle_s, "a settling"),
    }
    rates: dict[str, Any] = {"rate_c_per_min": rate_c_per_min, "tolerance_c": tolerance_c}
    return Action(_ramp, heater, to_c=to_c, label=label, **rates, **seconds)


def switch_off(heater: Heater, *, label: str = "switch_off") -> Action:
    """Make an action that stops heating; give it to a schedule as its `safe_state`."""
    return Action(_off, heater, label=label)


def _ramp(
    heater: Heater, *, to_c: float, rate_c_per_min: float, hold_s: float, settle_s: float, tolerance_c: float
) -> Generator[float, None, dict[str, float]]:
    from_c = heater.temperature_c
    ramp_s = abs(to_c - from_c) / rate_c_per_min * SECONDS_PER_MINUTE
    heater.ramp_to(to_c, rate_c_per_min)
    yield ramp_s + settle_s
    _check(heater, to_c, tolerance_c)
    if hold_s:
        yield hold_s
        _check(heater, to_c, tolerance_c)
    return {"from_c": from_c, "to_c": heater.temperature_c, "ramp_s": ramp_s}


def _check(heater: Heater, to_c: float, tolerance_c: float) -> None:
    measured_c = heater.temperature_c
    if not abs(measured_c - to_c) <= tolerance_c:
        raise TerminalError(
            f"the temperature is {measured_c:g} C, not {to_c:g} C",
            because=f"the heater is more than {tolerance_c:g} C off when it should have been there",
            cure="choose a lower rate, give settle_s, or look at the heater",
        )


def _off(heater: Heater) -> None:
    heater.off()
