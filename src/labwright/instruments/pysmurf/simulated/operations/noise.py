"""Noise of the detectors: take a stream, find the white level and the knee of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from labwright.instruments.pysmurf.publisher import set_action
from labwright.instruments.pysmurf.simulated.config import DetConfig
from labwright.instruments.pysmurf.simulated.control import SmurfControl
from labwright.instruments.pysmurf.simulated.detectors import Floats
from labwright.instruments.pysmurf.simulated.operations.outputs import save_plot, validate_and_save
from labwright.instruments.pysmurf.simulated.operations.session import set_session_data
from labwright.instruments.pysmurf.simulated.operations.stream import stream_g3_off, stream_g3_on
from labwright.instruments.pysmurf.simulated.settings import BANDS
from labwright.instruments.pysmurf.simulated.spectra import amplitude_spectra, knees, white_levels
from labwright.instruments.pysmurf.simulated.streams import AxisManager

SEGMENT = 1024


def get_noise_params(am: AxisManager, wl_f_range: tuple[float, float] = (10, 30), **_options: Any) -> dict[str, Any]:
    """Find the noise of each channel of a stream, in pA/rtHz.

    `noise_pars` is (channels, 3): white level, exponent (not fitted: NaN), knee in Hz; `f` and `axx` are the spectra;
    `band_medians` are the medians of the white levels.
    """
    rate = 1 / float(np.median(np.diff(am.timestamps)))
    frequencies, spectra = amplitude_spectra(am.signal * 9e6 / (2 * np.pi), rate, SEGMENT)
    levels = white_levels(frequencies, spectra, wl_f_range)
    found = np.stack([levels, np.full_like(levels, np.nan), knees(frequencies, spectra, levels)], axis=1)
    return {
        "noise_pars": found,
        "bands": am.ch_info.band,
        "channels": am.ch_info.channel,
        "band_medians": medians(levels, am),
        "f": frequencies,
        "axx": spectra,
    }


def medians(levels: Floats, am: AxisManager) -> Floats:
    """Give the median of each band, NaN for a band without channels."""
    of_band = [levels[am.ch_info.band == band] for band in range(BANDS)]
    return np.array([np.median(values) if len(values) else np.nan for values in of_band])


@set_action()
def take_noise(
    S: SmurfControl,
    cfg: DetConfig,
    acq_time: float,
    *,
    wl_f_range: tuple[float, float] = (10, 30),
    g3_tag: str | None = None,
    **_options: Any,
) -> tuple[AxisManager, dict[str, Any]]:
    """Take a stream of so many seconds and find the noise of each channel; gives the stream and the results.

    The results are those of `get_noise_params`, with the stream's `sid` and the `filepath` where they are saved.
    """
    S.machine.faults.strike("take_noise")
    at = S.machine.clock.time()
    session = stream_g3_on(S, tag=g3_tag, subtype="noise")
    try:
        S.machine.clock.sleep(acq_time)
        am = S.measure(acq_time, S.bias_currents(), at=at)
    finally:
        stream_g3_off(S)
    results: dict[str, Any] = {**get_noise_params(am, wl_f_range), "sid": session}
    for name in ("noise_pars", "axx", "band_medians"):
        results[name] = S.machine.spoiled(results[name])
    set_session_data(S, "noise", {"band_medians": results["band_medians"]})
    save_plot(S, "band_asds.png", np.log10(results["axx"][:, 1:]), "take_noise")
    results["filepath"] = validate_and_save("take_noise.npy", results, S=S, cfg=cfg)
    return am, results
