"""Bias steps: small steps on bias lines tell which line a channel hangs on, and where in its transition it is.

The formulae for current and power from the ratio of the current's step to the bias's are those of sodetlib: with
r = dI / dIb, in transition I = Ib r / (2 r - 1) (constant power), else I = Ib r.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from labwright.instruments.pysmurf.publisher import set_action
from labwright.instruments.pysmurf.simulated.config import DetConfig
from labwright.instruments.pysmurf.simulated.control import SmurfControl
from labwright.instruments.pysmurf.simulated.detectors import R_SHUNT, UNASSIGNED, Floats, Ints
from labwright.instruments.pysmurf.simulated.operations.outputs import save_plot, validate_and_save
from labwright.instruments.pysmurf.simulated.operations.stream import stream_g3_off, stream_g3_on
from labwright.instruments.pysmurf.simulated.settings import BIAS_GROUPS

SETTLE_S = 3.0


class BiasStepAnalysis:
    """Bias steps of all channels, in SI units.

    `bgmap` is each channel's line (-1: none), `polarity` the sign of its response; `R0 I0 Pj Si` resistance, current,
    power and responsivity (1/V) at the bias, `Rfrac` the part of the normal resistance that the newest IV found.
    """

    bands: Ints
    channels: Ints
    sid: int
    bgs: Ints
    bgmap: Ints
    polarity: Ints
    Ibias: Floats
    dIbias: Floats
    dItes: Floats
    R0: Floats
    I0: Floats
    Pj: Floats
    Si: Floats
    Rfrac: Floats
    R_n_IV: Floats
    filepath: str

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)

    def save(self, name: str, S: SmurfControl, cfg: DetConfig) -> None:
        """Save it; `filepath` tells where."""
        self.filepath = validate_and_save(name, dict(vars(self)), S=S, cfg=cfg)

    @classmethod
    def load(cls, path: str) -> BiasStepAnalysis:
        """Load a saved one."""
        return cls(**np.load(path, allow_pickle=True).item(), filepath=path)


def load_bgmap(bands: Ints, channels: Ints, bgmap_file: str | None) -> tuple[Ints, Ints]:
    """Give line and polarity of channels from a saved map: -1 and 1 for those that it does not have."""
    known: dict[tuple[int, int], tuple[int, int]] = {}
    if bgmap_file is not None:
        saved: dict[str, Ints] = np.load(bgmap_file, allow_pickle=True).item()
        names = ("bands", "channels", "bgmap", "polarity")
        for band, channel, group, sign in zip(*(saved[name].tolist() for name in names), strict=True):
            known[band, channel] = group, sign
    found = [known.get(key, (UNASSIGNED, 1)) for key in zip(bands.tolist(), channels.tolist(), strict=True)]
    pairs = np.array(found, dtype=int).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


@set_action()
def take_bgmap(
    S: SmurfControl,
    cfg: DetConfig,
    bgs: Sequence[int] | None = None,
    *,
    dc_voltage: float = 0.3,
    step_voltage: float = 0.01,
    step_duration: float = 0.05,
    nsteps: int = 20,
    g3_tag: str | None = None,
    **_options: Any,
) -> BiasStepAnalysis:
    """Find which line each channel hangs on: steps on one line after the other, the detectors superconducting."""
    S.machine.faults.strike("take_bgmap")
    groups = _groups(cfg, bgs)
    of = S.machine.detectors
    session = stream_g3_on(S, tag=g3_tag, subtype="bgmap")
    try:
        chosen = _with_tones(S)
        responses = np.zeros((len(chosen), BIAS_GROUPS))
        for group in groups.tolist():
            low, high = np.zeros((2, len(S.get_tes_bias_bipolar_array())))
            low[group], high[group] = dc_voltage, dc_voltage + step_voltage
            S.set_tes_bias_bipolar_array(low)
            S.machine.clock.sleep(nsteps * step_duration)
            responses[:, group] = _steps(S, low, high, nsteps * step_duration)[0][chosen] * of.polarity[chosen]
    finally:
        S.set_tes_bias_bipolar_array(np.zeros_like(S.get_tes_bias_bipolar_array()))
        stream_g3_off(S)
    strongest = np.argmax(np.abs(responses), axis=1)
    response = responses[np.arange(len(chosen)), strongest]
    step = step_voltage / S.bias_line_resistance
    is_assigned = np.abs(response) > 0.3 * step
    bsa = BiasStepAnalysis(
        bands=of.bands[chosen],
        channels=of.channels[chosen],
        sid=session,
        bgs=groups,
        bgmap=np.where(is_assigned, strongest, UNASSIGNED),
        polarity=np.where(response < 0, -1, 1),
        dItes=response,
    )
    bsa.save("bg_map.npy", S, cfg)
    cfg.dev.update_experiment({"bgmap_file": bsa.filepath}, update_file=True)
    save_plot(S, "bg_assignments.png", np.abs(responses.T), "bgmap")
    return bsa


@set_action()
def take_bias_steps(
    S: SmurfControl,
    cfg: DetConfig,
    bgs: Sequence[int] | None = None,
    *,
    step_voltage: float = 0.05,
    step_duration: float = 0.05,
    nsteps: int = 20,
    g3_tag: str | None = None,
    **_options: Any,
) -> BiasStepAnalysis:
    """Step the bias around where it stands and find the state of each detector."""
    S.machine.faults.strike("take_bias_steps")
    return _measured(S, cfg, bgs, step_voltage, nsteps * step_duration, "bias_step_analysis.npy", "bias_steps", g3_tag)


@set_action()
def take_bias_waves(
    S: SmurfControl,
    cfg: DetConfig,
    bgs: Sequence[int] | None = None,
    *,
    amp_wave: float = 0.05,
    duration: float = 10.0,
    g3_tag: str | None = None,
    **_options: Any,
) -> BiasStepAnalysis:
    """Swing the bias around where it stands, slowly against the detectors, and find the state of each."""
    S.machine.faults.strike("take_bias_waves")
    return _measured(S, cfg, bgs, amp_wave, duration, "bias_wave_analysis.npy", "bias_waves", g3_tag)


def _measured(
    S: SmurfControl,
    cfg: DetConfig,
    bgs: Sequence[int] | None,
    step_voltage: float,
    duration: float,
    name: str,
    subtype: str,
    tag: str | None,
) -> BiasStepAnalysis:
    groups = _groups(cfg, bgs)
    of = S.machine.detectors
    session = stream_g3_on(S, tag=tag, subtype=subtype)
    try:
        chosen = _with_tones(S)
        S.machine.clock.sleep(SETTLE_S + duration)
        high, low = (_shifted(S, groups, shift) for shift in (step_voltage / 2, -step_voltage / 2))
        steps, bias_steps = _steps(S, low, high, duration)
        bias = S.bias_currents()[chosen]
    finally:
        stream_g3_off(S)
    bgmap, polarity = load_bgmap(of.bands[chosen], of.channels[chosen], cfg.dev.exp.get("bgmap_file"))
    state = _state(bias, steps[chosen], bias_steps[chosen], S)
    normal = _normal_resistances(of.bands[chosen], of.channels[chosen], cfg.dev.exp.get("iv_file"))
    bsa = BiasStepAnalysis(
        bands=of.bands[chosen],
        channels=of.channels[chosen],
        sid=session,
        bgs=groups,
        bgmap=bgmap,
        polarity=polarity,
        Ibias=bias,
        dIbias=bias_steps[chosen],
        dItes=steps[chosen],
        **state,
        Rfrac=S.machine.spoiled(state["R0"] / normal),
        R_n_IV=normal,
    )
    bsa.save(name, S, cfg)
    save_plot(S, f"{subtype}_rfrac.png", np.sort(np.nan_to_num(bsa.Rfrac))[None, :], subtype)
    return bsa


def _state(bias: Floats, step: Floats, bias_step: Floats, S: SmurfControl) -> dict[str, Floats]:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(bias_step == 0, np.nan, step / bias_step)
        current = np.where(ratio < 0, bias * ratio / (2 * ratio - 1), bias * ratio)
        power = current * R_SHUNT * (bias - current)
        resistance = np.where(current == 0, 0.0, power / current**2)
        responsivity = np.where(ratio < 0, -1 / (current * (resistance - R_SHUNT)), np.nan)
    spoiled = S.machine.spoiled
    return {"I0": current, "Pj": power, "R0": spoiled(resistance), "Si": spoiled(responsivity)}


def _steps(S: SmurfControl, low: Floats, high: Floats, seconds: float) -> tuple[Floats, Floats]:
    """Give the step of each detector's current and of its line's, A, measured for so many seconds."""
    of = S.machine.detectors
    bias = np.stack([S.bias_currents(low), S.bias_currents(high)], axis=1)
    current = S.machine.transitions.currents(bias)
    scatter = of.white_level / np.sqrt(max(seconds, 0.01))
    step = current[:, 1] - current[:, 0] + scatter * S.machine.random.standard_normal(of.count)
    return step, bias[:, 1] - bias[:, 0]


def _shifted(S: SmurfControl, groups: Ints, shift: float) -> Floats:
    volts = S.get_tes_bias_bipolar_array()
    volts[groups] += shift / np.where(
        np.array(S.machine.hardware.get("high_current"))[groups], S.high_low_current_ratio, 1
    )
    return volts


def _normal_resistances(bands: Ints, channels: Ints, iv_file: str | None) -> Floats:
    if iv_file is None:
        return np.full(len(bands), np.nan)
    saved: dict[str, Any] = np.load(iv_file, allow_pickle=True).item()
    keys = zip(saved["bands"].tolist(), saved["channels"].tolist(), strict=True)
    known = dict(zip(keys, saved["R_n"].tolist(), strict=True))
    return np.array([known.get(key, np.nan) for key in zip(bands.tolist(), channels.tolist(), strict=True)])


def _groups(cfg: DetConfig, bgs: Sequence[int] | None) -> Ints:
    return np.atleast_1d(np.asarray(cfg.dev.exp["active_bgs"] if bgs is None else bgs, dtype=int))


def _with_tones(S: SmurfControl) -> Ints:
    chosen = np.flatnonzero(S.streaming())
    if not len(chosen):
        message = "no channel has a tone, so nothing can be measured: run uxm_setup or relock first"
        raise RuntimeError(message)
    return chosen
