"""Ready-made operations on simulated instruments, by a clock that is moved by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright import Schedule, Stop, after
from labwright.core.errors import UsageError
from labwright.instruments.sequences import (
    dilution_series,
    direct_inject,
    rinse,
    switch_off,
    temperature_ramp,
    transfer,
    wait,
)
from labwright.instruments.sequences.simulated import SimulatedHeater, SimulatedInjector, SimulatedPump, Vessel
from labwright.testing import ManualClock

LIMIT_S = 30.0


def done(*actions: Any, clock: ManualClock | None = None, seconds: float = 10_000, **options: Any) -> Schedule:
    """Run actions once."""
    clock = clock or ManualClock()
    schedule = Schedule(*actions, journal=None, clock=clock, **options).at(after(0))
    with schedule:
        clock.advance(seconds)
        schedule.join(LIMIT_S)
    return schedule


def test_a_direct_inject_sampling_fills_the_loop_and_leaves_a_clean_line() -> None:
    clock, pump, injector = ManualClock(), SimulatedPump(capacity_ml=1.0), SimulatedInjector()
    schedule = Schedule(
        *direct_inject(pump, injector, sample_ml=0.2, prime_ml=1.5, settle_s=5, rinse_ml=0.5, rinses=2),
        journal=None,
        clock=clock,
    )

    with schedule.every(60, times=2):
        clock.advance(100)
        schedule.fire(aspirate={"volume_ml": 0.4})
        clock.advance(100)
        schedule.join(LIMIT_S)

    assert schedule.rows.outcomes == {"succeeded": 3}
    first = schedule.rows[0]
    assert first.result.as_dict() == {"prime": 1.5, "aspirate": 0.2, "wait": 5, "inject": 0.2, "rinse": 1.0}
    assert first.started_at is not None
    assert first.ended_at is not None
    assert (first.ended_at - first.started_at).total_seconds() == 5
    assert injector.turns == ["load", "inject"] * 3
    assert pump.vessels["loop"].volume_ml == pytest.approx(0.2 + 0.4 + 0.2)
    assert pump.vessels["loop"].concentration == pytest.approx(1.0)
    assert pump.vessels["waste"].volume_ml == pytest.approx(3 * (1.5 + 1.0))
    assert pump.held_ml == pytest.approx(0)


def test_a_sampling_that_was_cut_short_does_not_spoil_the_next_one() -> None:
    clock, pump, injector = ManualClock(), SimulatedPump(), SimulatedInjector()
    schedule = Schedule(
        *direct_inject(pump, injector, sample_ml=0.2, prime_ml=0.3, settle_s=30),
        journal=None,
        clock=clock,
        overlap="replace_running",
    )
    with schedule.at(after([0, 10])):
        clock.advance(100)
        schedule.join(LIMIT_S)

    assert [row.outcome for row in schedule.rows] == ["aborted", "succeeded"]
    assert injector.turns == ["load", "inject"]
    assert pump.vessels["loop"].volume_ml == pytest.approx(0.2)


def test_a_vessel_that_runs_dry_fails_the_point_and_says_which() -> None:
    pump = SimulatedPump(vessels={"reactor": Vessel(1.0, 1.0), "solvent": Vessel(5.0)})

    schedule = done(*direct_inject(pump, SimulatedInjector(), sample_ml=0.8, prime_ml=0.5))

    assert schedule.rows[0].outcome == "failed"
    assert (schedule.rows[0].error or {})["message"] == "reactor has run dry"


@given(
    factor=st.floats(1.1, 50),
    volume_ml=st.floats(0.1, 20),
    capacity_ml=st.floats(0.5, 10),
    number=st.integers(1, 6),
)
def test_each_vial_of_a_dilution_series_is_weaker_by_the_factor(
    factor: float, volume_ml: float, capacity_ml: float, number: int
) -> None:
    vessels = {"stock": Vessel(1e4, 1.0), "solvent": Vessel(1e4)}
    pump = SimulatedPump(capacity_ml=capacity_ml, vessels=vessels)
    vials = [f"A{each}" for each in range(1, number + 1)]

    schedule = done(dilution_series(pump, vials=vials, volume_ml=volume_ml, factor=factor))

    told = schedule.rows[0].result["dilution_series"]
    assert list(told) == vials
    for place, vial in enumerate(vials, 1):
        assert pump.vessels[vial].concentration == pytest.approx(factor**-place)
        assert told[vial] == pytest.approx(factor**-place)
        assert pump.vessels[vial].volume_ml == pytest.approx(volume_ml)


def test_a_ramp_takes_as_long_as_its_rate_and_holds() -> None:
    clock = ManualClock()
    heater = SimulatedHeater(clock, temperature_c=20)
    seen: list[tuple[float, float]] = []

    def measure() -> None:
        seen.append((clock.monotonic(), heater.temperature_c))

    schedule = done(
        temperature_ramp(heater, to_c=60, rate_c_per_min=10, hold_s=120),
        measure,
        temperature_ramp(heater, to_c=25, rate_c_per_min=5),
        measure,
        clock=clock,
        safe_state=switch_off(heater),
    )

    assert seen == [(pytest.approx(240 + 120), pytest.approx(60)), (pytest.approx(360 + 420), pytest.approx(25))]
    assert schedule.rows[0].result["temperature_ramp"]["ramp_s"] == pytest.approx(240)
    assert not heater.is_on


def test_a_heater_that_does_not_follow_fails_the_point() -> None:
    clock = ManualClock()
    heater = SimulatedHeater(clock, temperature_c=20, power=0.5)

    schedule = done(temperature_ramp(heater, to_c=60, rate_c_per_min=10), clock=clock)

    assert schedule.rows[0].outcome == "failed"
    assert (schedule.rows[0].error or {})["message"] == "the temperature is 40 C, not 60 C"


def test_a_ramp_is_cut_short_by_a_stop_now_and_the_heater_is_switched_off() -> None:
    clock = ManualClock()
    heater = SimulatedHeater(clock, temperature_c=20)
    ramp = temperature_ramp(heater, to_c=60, rate_c_per_min=10, hold_s=1000)
    schedule = Schedule(ramp, journal=None, clock=clock, safe_state=switch_off(heater)).at(after(0)).start()

    clock.advance(60)
    schedule.stop(Stop.NOW)
    schedule.join(LIMIT_S)

    assert schedule.rows.outcomes == {"aborted": 1}
    assert not heater.is_on
    assert heater.temperature_c == pytest.approx(30)


def test_transfers_and_rinses_take_as_many_strokes_as_they_need() -> None:
    pump = SimulatedPump(capacity_ml=2.0)

    done(transfer(pump, volume_ml=5, source="stock", target="A1"), wait(3), rinse(pump, volume_ml=1.5, times=2))

    assert [volume for kind, volume, _ in pump.moves if kind == "aspirate"] == [2, 2, 1, 1.5, 1.5]
    assert pump.vessels["A1"].volume_ml == 5
    assert pump.vessels["waste"].volume_ml == 3


PUMP, INJECTOR, HEATER = SimulatedPump(capacity_ml=1.0), SimulatedInjector(), SimulatedHeater(ManualClock())


@pytest.mark.parametrize(
    "make",
    [
        lambda: direct_inject(PUMP, INJECTOR, sample_ml=0, prime_ml=1),
        lambda: direct_inject(PUMP, INJECTOR, sample_ml=2, prime_ml=1),
        lambda: direct_inject(PUMP, INJECTOR, sample_ml=0.5, prime_ml=float("nan")),
        lambda: direct_inject(PUMP, INJECTOR, sample_ml=0.5, prime_ml=1, settle_s=-1),
        lambda: direct_inject(PUMP, INJECTOR, sample_ml=0.5, prime_ml=1, rinses=0),
        lambda: dilution_series(PUMP, vials=[], volume_ml=1, factor=2),
        lambda: dilution_series(PUMP, vials=["A1", "A1"], volume_ml=1, factor=2),
        lambda: dilution_series(PUMP, vials=["A1"], volume_ml=1, factor=1),
        lambda: dilution_series(PUMP, vials=["A1"], volume_ml=-1, factor=2),
        lambda: temperature_ramp(HEATER, to_c=60, rate_c_per_min=0),
        lambda: temperature_ramp(HEATER, to_c=60, rate_c_per_min=1, hold_s=float("inf")),
        lambda: temperature_ramp(HEATER, to_c=float("nan"), rate_c_per_min=1),
        lambda: transfer(PUMP, volume_ml=True, source="a", target="b"),
        lambda: wait(float("nan")),
    ],
)
def test_numbers_that_could_never_work_are_refused_before_anything_moves(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError) as refused:
        make()

    assert refused.value.because
    assert refused.value.cure
    assert PUMP.moves == []


def test_a_plain_script_needs_the_standard_library_alone() -> None:
    script = """
import sys
from labwright import Schedule, after
from labwright.instruments.sequences import direct_inject
from labwright.instruments.sequences.simulated import SimulatedInjector, SimulatedPump

actions = direct_inject(SimulatedPump(), SimulatedInjector(), sample_ml=0.2, prime_ml=0.3, settle_s=0.01)
with Schedule(*actions, journal=None).at(after(0)) as schedule:
    schedule.join()
assert schedule.rows.outcomes == {"succeeded": 1}
foreign = ("pydantic", "nats", "typer", "httpx", "cronsim", "rich", "yaml", "structlog", "psutil", "numpy")
assert not [name for name in foreign if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=LIMIT_S)
