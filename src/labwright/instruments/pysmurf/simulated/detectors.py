"""The detectors behind one SMuRF card: everything about each, decided by a seed.

Arrays are indexed by detector (a resonator with its sensor), in the order of band and channel.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labwright.instruments.pysmurf.simulated.settings import BANDS, BIAS_GROUPS, CHANNELS

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]

FIRST_BAND_MHZ = 4250.0
BAND_MHZ = 500.0
R_SHUNT = 4e-4
"""Shunt resistance in parallel to each sensor, ohm."""
UNASSIGNED = -1
UNASSIGNED_PART = 0.04
HALF = 0.5


@dataclass(frozen=True, kw_only=True)
class Detectors:
    """All detectors of one card; powers in W, resistances in ohm, temperatures in K, noise in A/rtHz."""

    bands: Ints
    channels: Ints
    frequency_mhz: Floats
    quality: Floats
    """Loaded quality factor of the resonator."""
    depth: Floats
    """How much of the transmission the dip takes away, 0 to 1."""
    bias_group: Ints
    """Its bias line, 0 to 11; -1 where it hangs on none."""
    polarity: Ints
    r_normal: Floats
    r_parasitic: Floats
    p_sat: Floats
    """Electrical power at which the resistance is 90 % of the normal one."""
    t_critical: Floats
    t_width: Floats
    t_bath: float
    white_level: Floats
    """White noise of the current, A/rtHz."""
    knee_hz: Floats
    """Where the 1/f part is as strong as the white one."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.bands)


def detectors(stream_id: str, seed: int, resonators: int, *, empty_band: int | None = None) -> Detectors:
    """Draw the detectors of a card: equal arguments, equal detectors."""
    digest = hashlib.sha256(f"{seed}:{stream_id}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8]))
    bands = np.repeat(np.arange(BANDS), resonators)
    channels = np.concatenate([np.sort(random.permutation(CHANNELS)[:resonators]) for _ in range(BANDS)])
    count = len(bands)
    spacing = BAND_MHZ / max(resonators, 1)
    place = np.tile(np.arange(resonators) + 0.5, BANDS) * spacing - BAND_MHZ / 2
    normal = random.normal
    group = random.permutation(np.arange(count) % BIAS_GROUPS)
    drawn = Detectors(
        bands=bands,
        channels=channels,
        frequency_mhz=FIRST_BAND_MHZ + BAND_MHZ * bands + place + random.uniform(-0.3, 0.3, count) * spacing,
        quality=_around(normal(0, 0.1, count), 40_000),
        depth=np.clip(normal(0.6, 0.08, count), 0.3, 0.9),
        bias_group=np.where(random.random(count) < UNASSIGNED_PART, UNASSIGNED, group),
        polarity=np.where(random.random(count) < HALF, -1, 1),
        r_normal=_around(normal(0, 0.03, count), 7.5e-3),
        r_parasitic=_around(normal(0, 0.1, count), 2e-5),
        p_sat=_around(normal(0, 0.06, count), 4e-12) * (1 + 0.02 * (group - BIAS_GROUPS / 2) / BIAS_GROUPS),
        t_critical=_around(normal(0, 0.01, count), 0.16),
        t_width=_around(normal(0, 0.05, count), 1.0e-3),
        t_bath=0.1,
        white_level=_around(normal(0, 0.12, count), 65e-12),
        knee_hz=_around(normal(0, 0.2, count), 0.4),
    )
    return drawn if empty_band is None else chosen(drawn, bands != empty_band)


def _around(scatter: Floats, centre: float) -> Floats:
    """Scatter positive values around a centre, no further than three tenths to one third of it."""
    return centre * np.exp(np.clip(scatter, -0.35, 0.35))


def chosen(of: Detectors, rows: NDArray[np.bool_] | Ints) -> Detectors:
    """Choose some of the detectors."""
    columns: dict[str, Any] = {name: value[rows] for name, value in vars(of).items() if name != "t_bath"}
    return Detectors(**columns, t_bath=of.t_bath)
