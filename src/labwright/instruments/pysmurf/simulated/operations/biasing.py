"""Biasing detectors into their transition, from what the newest IV found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from labwright.instruments.pysmurf.simulated.config import DetConfig
from labwright.instruments.pysmurf.simulated.control import SmurfControl
from labwright.instruments.pysmurf.simulated.detectors import Floats, Ints
from labwright.instruments.pysmurf.simulated.operations.iv import IVAnalysis

REASONABLE_OHM = (5e-3, 12e-3)


def overbias_dets(
    S: SmurfControl, cfg: DetConfig, bias_groups: Sequence[int] | Ints | None = None, **options: Any
) -> None:
    """Drive detectors normal and let them cool at the voltage of their group."""
    exp = cfg.dev.exp
    groups = np.atleast_1d(np.asarray(exp["active_bgs"] if bias_groups is None else bias_groups, dtype=int))
    wanted = {
        "overbias_voltage": cfg.dev.bias_groups[int(groups[0])]["overbias_voltage"],
        "overbias_wait": exp["overbias_wait"],
        "tes_bias": cfg.dev.bias_groups[int(groups[0])]["cool_voltage"],
        "cool_wait": exp["cool_wait"],
        "high_current_mode": False,
    }
    S.overbias_tes_all(groups.tolist(), **{**wanted, **options})


def bias_to_rfrac(
    S: SmurfControl,
    cfg: DetConfig,
    rfrac: float = 0.5,
    bias_groups: Sequence[int] | None = None,
    *,
    iva: IVAnalysis | None = None,
    overbias: bool = True,
    Rn_range: tuple[float, float] = REASONABLE_OHM,
    math_only: bool = False,
    **_options: Any,
) -> Floats:
    """Bias each group so that half of its detectors stand above that part of their normal resistance.

    Gives the voltages of all lines, in low-current mode. With `math_only` nothing is set.
    """
    S.machine.faults.strike("bias_dets")
    iva, groups = _iv_and_groups(cfg, iva, bias_groups)
    biases = S.get_tes_bias_bipolar_array()
    fractions = iva.R / iva.R_n[:, None]
    for group in groups.tolist():
        channels = _usable(iva, group, Rn_range)
        targets = [iva.v_bias[np.nanargmin(np.abs(fractions[channel] - rfrac))] for channel in channels]
        if targets:
            biases[group] = np.median(targets)
    return _applied(S, cfg, biases, groups, overbias=overbias, math_only=math_only)


def bias_to_rfrac_range(
    S: SmurfControl,
    cfg: DetConfig,
    rfrac_range: tuple[float, float] = (0.3, 0.6),
    bias_groups: Sequence[int] | None = None,
    *,
    iva: IVAnalysis | None = None,
    overbias: bool = True,
    Rn_range: tuple[float, float] = REASONABLE_OHM,
    math_only: bool = False,
    **_options: Any,
) -> Floats:
    """Bias each group so that most of its detectors stand within that part of their normal resistance.

    Gives the voltages of all lines, in low-current mode. With `math_only` nothing is set.
    """
    S.machine.faults.strike("bias_dets")
    iva, groups = _iv_and_groups(cfg, iva, bias_groups)
    biases = S.get_tes_bias_bipolar_array()
    fractions = iva.R / iva.R_n[:, None]
    is_inside = (rfrac_range[0] < fractions) & (fractions < rfrac_range[1])
    for group in groups.tolist():
        channels = _usable(iva, group, Rn_range)
        if len(channels):
            biases[group] = iva.v_bias[np.argmax(is_inside[channels].sum(axis=0))]
    return _applied(S, cfg, biases, groups, overbias=overbias, math_only=math_only)


def _iv_and_groups(
    cfg: DetConfig, iva: IVAnalysis | None, bias_groups: Sequence[int] | None
) -> tuple[IVAnalysis, Ints]:
    if iva is None:
        path = cfg.dev.exp.get("iv_file")
        if path is None:
            message = "no IV is known to choose biases from: run take_iv first"
            raise ValueError(message)
        iva = IVAnalysis.load(path)
    groups = cfg.dev.exp["active_bgs"] if bias_groups is None else bias_groups
    return iva, np.atleast_1d(np.asarray(groups, dtype=int))


def _usable(iva: IVAnalysis, group: int, reasonable: tuple[float, float]) -> Ints:
    return np.flatnonzero((iva.bgmap == group) & (reasonable[0] < iva.R_n) & (iva.R_n < reasonable[1]))


def _applied(
    S: SmurfControl,
    cfg: DetConfig,
    biases: Floats,
    groups: Ints,
    *,
    overbias: bool,
    math_only: bool,
) -> Floats:
    if math_only:
        return biases
    for group in groups.tolist():
        S.log(f"BG {group}: {biases[group]:.2f} V")
    if overbias:
        overbias_dets(S, cfg, groups)
    S.set_tes_bias_low_current(groups.tolist())
    S.set_tes_bias_bipolar_array(biases)
    return biases
