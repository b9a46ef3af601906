"""IV curves: sweep the bias from the normal state down, and find resistances and saturation powers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labwright.instruments.pysmurf.publisher import set_action
from labwright.instruments.pysmurf.simulated.config import DetConfig
from labwright.instruments.pysmurf.simulated.control import SmurfControl
from labwright.instruments.pysmurf.simulated.detectors import Floats, Ints
from labwright.instruments.pysmurf.simulated.operations.bias_steps import load_bgmap, take_bgmap
from labwright.instruments.pysmurf.simulated.operations.outputs import get_metadata, save_plot, validate_and_save
from labwright.instruments.pysmurf.simulated.operations.session import stop_point
from labwright.instruments.pysmurf.simulated.operations.stream import stream_g3_off, stream_g3_on
from labwright.instruments.pysmurf.simulated.settings import BIAS_GROUPS, BIAS_LINES
from labwright.instruments.pysmurf.simulated.streaming import amperes_per_radian

SAVED = (
    "meta", "bands", "channels", "sid", "start_times", "stop_times", "run_kwargs", "biases_cmd", "bias_groups",
    "nbiases", "nchans", "bgmap", "polarity", "resp", "v_bias", "i_bias", "R", "R_n", "R_L", "idxs", "p_tes", "v_tes",
    "i_tes", "p_sat",
)  # fmt: skip
LEAST_POINTS = 8


class IVAnalysis:
    """An IV of all channels: (channels, biases) in SI units, biases rising, in low-current-mode volts.

    `R_n` normal resistance, `R_L` what is not of the sensor, `p_sat` power where R crosses 90 % of `R_n`; NaN where a
    channel has no transition.
    """

    meta: dict[str, Any]
    run_kwargs: dict[str, Any]
    sid: int
    start_times: Floats
    stop_times: Floats
    bands: Ints
    channels: Ints
    bgmap: Ints
    polarity: Ints
    bias_groups: Ints
    biases_cmd: Floats
    v_bias: Floats
    i_bias: Floats
    resp: Floats
    R: Floats
    R_n: Floats
    R_L: Floats
    p_tes: Floats
    v_tes: Floats
    i_tes: Floats
    p_sat: Floats
    idxs: Ints
    filepath: str

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)

    @property
    def nchans(self) -> int:
        """How many channels it has."""
        return len(self.bands)

    @property
    def nbiases(self) -> int:
        """How many biases it has."""
        return len(self.v_bias)

    def save(self, S: SmurfControl, cfg: DetConfig, *, update_cfg: bool) -> None:
        """Save it, and note its path in the device's configuration."""
        self.filepath = validate_and_save(
            "iv_analysis.npy", {name: getattr(self, name) for name in SAVED}, S=S, cfg=cfg
        )
        if update_cfg:
            cfg.dev.update_experiment({"iv_file": self.filepath}, update_file=True)

    @classmethod
    def load(cls, path: str) -> IVAnalysis:
        """Load a saved one."""
        saved: dict[str, Any] = np.load(path, allow_pickle=True).item()
        return cls(**{name: value for name, value in saved.items() if name not in {"nchans", "nbiases"}}, filepath=path)


def analyze_iv(iva: IVAnalysis, psat_level: float = 0.9, **_options: Any) -> None:
    """Find currents, resistances and powers from the responses of an IV; the fields of `iva` are set."""
    shape = iva.resp.shape
    amperes = iva.resp * iva.polarity[:, None] * amperes_per_radian()
    iva.i_tes, iva.R, iva.v_tes, iva.p_tes = (np.full(shape, np.nan) for _ in range(4))
    iva.R_n, iva.R_L, iva.p_sat = (np.full(shape[0], np.nan) for _ in range(3))
    iva.idxs = np.full((shape[0], 3), -1)
    for channel in range(shape[0]):
        _analyze_channel(iva, channel, amperes[channel], psat_level)


def _analyze_channel(iva: IVAnalysis, channel: int, current: Floats, level: float) -> None:
    """Tell the branches apart: superconducting up to the jump, normal above the least current; then Ohm's law."""
    bias, shunt = iva.i_bias, float(iva.meta["R_sh"])
    jump = int(np.argmax(np.abs(np.diff(current)))) + 1
    least = jump + int(np.argmin(current[jump:]))
    normal = slice((len(bias) + least) // 2, None)
    if jump < LEAST_POINTS or len(bias[normal]) < LEAST_POINTS or iva.bgmap[channel] < 0:
        return
    offset = np.polyfit(bias[normal], current[normal], 1)[1]
    current = current - offset
    current[:jump] -= np.polyfit(bias[:jump], current[:jump], 1)[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        resistance = shunt * (bias / current - 1)
    power = current**2 * resistance
    iva.i_tes[channel], iva.R[channel], iva.p_tes[channel] = current, resistance, power
    iva.v_tes[channel] = current * resistance
    iva.R_n[channel] = np.mean(resistance[normal])
    iva.R_L[channel] = np.nanmean(resistance[1:jump])
    fraction = resistance / iva.R_n[channel]
    above = np.flatnonzero(fraction[jump:] > level)
    crossing = jump + int(above[0]) if len(above) else -1
    iva.idxs[channel] = jump, least, crossing
    if crossing > jump:
        pair = slice(crossing - 1, crossing + 1)
        iva.p_sat[channel] = np.interp(level, fraction[pair], power[pair])


@set_action()
def take_iv(
    S: SmurfControl,
    cfg: DetConfig,
    bias_groups: Sequence[int] | None = None,
    *,
    overbias_voltage: float = 18.0,
    overbias_wait: float = 5.0,
    high_current_mode: bool = True,
    cool_wait: float = 30.0,
    cool_voltage: float | None = None,
    biases: Sequence[float] | None = None,
    bias_high: float = 18.0,
    bias_low: float = 0.0,
    bias_step: float = 0.025,
    wait_time: float = 0.1,
    run_analysis: bool = True,
    g3_tag: str | None = None,
    **analysis_kwargs: Any,
) -> IVAnalysis:
    """Take an IV of bias groups (default: all), analyse and save it.

    Biases are in low-current-mode volts, waits in seconds. It needs the map of bias groups, and takes it first where
    none is known.
    """
    S.machine.faults.strike("take_iv")
    if cfg.dev.exp.get("bgmap_file") is None:
        S.log("No map of bias groups is known, so it is taken first")
        take_bgmap(S, cfg)
    groups = np.arange(BIAS_GROUPS) if bias_groups is None else np.atleast_1d(np.asarray(bias_groups, dtype=int))
    steps = np.sort(np.arange(bias_high, bias_low - bias_step / 2, -bias_step) if biases is None else np.array(biases))
    ratio = S.high_low_current_ratio if high_current_mode else 1.0
    session = stream_g3_on(S, tag=g3_tag, subtype="iv")
    try:
        if overbias_voltage > 0:
            S.overbias_tes_all(
                groups.tolist(),
                overbias_voltage=overbias_voltage,
                overbias_wait=overbias_wait,
                tes_bias=float(steps.max() / ratio) if cool_voltage is None else cool_voltage,
                cool_wait=cool_wait,
                high_current_mode=high_current_mode,
            )
        S.log("Starting TES bias ramp", S.LOG_USER)
        begun = S.machine.clock.time()
        response, chosen = _swept(S, steps / ratio, groups, wait_time)
    finally:
        volts = S.get_tes_bias_bipolar_array()
        volts[groups] = 0
        S.set_tes_bias_bipolar_array(volts)
        stream_g3_off(S)
    of = S.machine.detectors
    bgmap, polarity = load_bgmap(of.bands[chosen], of.channels[chosen], cfg.dev.exp["bgmap_file"])
    starts = begun + np.arange(len(steps)) * wait_time
    iva = IVAnalysis(
        meta=get_metadata(S, cfg),
        run_kwargs={
            "bias_groups": groups,
            "biases": steps,
            "wait_time": wait_time,
            "high_current_mode": high_current_mode,
        },
        sid=session,
        start_times=starts,
        stop_times=starts + wait_time,
        bands=of.bands[chosen],
        channels=of.channels[chosen],
        bgmap=bgmap,
        polarity=polarity,
        bias_groups=groups,
        biases_cmd=steps,
        v_bias=steps,
        i_bias=steps / S.bias_line_resistance,
        resp=response,
    )
    if run_analysis:
        analyze_iv(iva, **analysis_kwargs)
        iva.R_n, iva.p_sat = S.machine.spoiled(iva.R_n), S.machine.spoiled(iva.p_sat)
        iva.save(S, cfg, update_cfg=analysis_kwargs.get("update_cfg", True))
        save_plot(S, "iv_rfracs.png", iva.R / iva.R_n[:, None], "iv")
    return iva


def _swept(S: SmurfControl, volts: Floats, groups: Ints, wait_time: float) -> tuple[Floats, NDArray[np.int64]]:
    """Go down through the voltages and give the mean response at each, (channels, biases) in rad, biases rising."""
    of, clock = S.machine.detectors, S.machine.clock
    chosen = np.flatnonzero(S.streaming())
    if not len(chosen):
        message = "no channel has a tone, so there is no IV to take: run uxm_setup or relock first"
        raise RuntimeError(message)
    lines = np.zeros((len(volts), BIAS_LINES))
    lines[:, groups] = volts[:, None]
    bias = np.stack([S.bias_currents(line) for line in lines], axis=1)
    parts = np.array_split(np.arange(len(volts))[::-1], 20)
    for part in parts:
        stop_point(S)
        if len(part):
            S.set_tes_bias_bipolar_array(lines[part[-1]])
            clock.sleep(wait_time * len(part))
    current = S.machine.transitions.currents(bias)[chosen]
    scatter = of.white_level[chosen] / np.sqrt(2 * wait_time)
    current += scatter[:, None] * S.machine.random.standard_normal(current.shape)
    offsets = S.machine.random.uniform(-np.pi, np.pi, len(chosen))
    return current * of.polarity[chosen, None] / amperes_per_radian() + offsets[:, None], chosen
