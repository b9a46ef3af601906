"""The operations of a pysmurf controller as they run in a child process: sodetlib does the work, the session shows it.

Each gives what becomes its session's result, and puts into the session's data what OCS's controller puts there. They
fail by raising: an inner failure is a failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from labwright.core.errors import TerminalError
from labwright.instruments.pysmurf.on_smurf.smurf import Smurf
from labwright.instruments.pysmurf.on_smurf.statistics import (
    BANDS,
    biased_per_group,
    channels_per_group,
    numbers,
    per_band,
    quantile_record,
    without_large_arrays,
)

Options = Mapping[str, Any] | None


def uxm_setup(smurf: Smurf, *, bands: Any, kwargs: Options) -> dict[str, Any]:
    """Set a UXM up for the first time: amplifiers, attenuations, phase delay, tune, tracking, noise.

    The result is sodetlib's summary; of arrays as large as spectra it has the shape, the files have the rest.
    """
    sodetlib = smurf.library("sodetlib.operations.uxm_setup")
    control, configuration = smurf.control()
    ok, summary = sodetlib.uxm_setup(control, configuration, bands=bands, **(kwargs or {}))
    _refuse_failure("uxm_setup", ok, control)
    return {"summary": without_large_arrays(summary)}


def uxm_relock(smurf: Smurf, *, bands: Any, kwargs: Options) -> dict[str, Any]:
    """Lock the detectors to the tune of before, and count by band which of them track."""
    sodetlib = smurf.library("sodetlib.operations.uxm_relock")
    control, configuration = smurf.control()
    ok, summary = sodetlib.uxm_relock(control, configuration, bands=bands, **(kwargs or {}))
    _refuse_failure("uxm_relock", ok, control)
    found: dict[str, Any] = summary or {}
    tracking: Any = found.get("tracking_setup_results")
    if tracking is None:
        return {"all_det_num": [0] * BANDS, "good_det_num": [0] * BANDS, "filepath": None}
    found = {
        "filepath": str(tracking.filepath),
        "all_det_num": per_band(tracking.bands),
        "good_det_num": per_band(tracking.bands, [bool(good) for good in numbers(tracking.is_good)]),
    }
    smurf.teller.update(found)
    return found


def take_noise(smurf: Smurf, *, duration: float, kwargs: Options, tag: str | None) -> dict[str, Any]:
    """Take a short time stream and fit each channel's white noise level, in pA/rtHz."""
    sodetlib = smurf.library("sodetlib.noise")
    control, configuration = smurf.control()
    _, results = sodetlib.take_noise(control, configuration, duration, **_tagged(kwargs, tag))
    levels = [pars[0] for pars in results["noise_pars"]]
    quantiles = {"white_noise_level": quantile_record("white_noise_level", levels)}
    smurf.teller.update(quantiles=quantiles)
    return {"quantiles": quantiles}


def take_bgmap(smurf: Smurf, *, kwargs: Options, tag: str | None) -> dict[str, Any]:
    """Find out which channel hangs on which bias group; the last count is of those that hang on none."""
    sodetlib = smurf.library("sodetlib.operations.bias_steps")
    control, configuration = smurf.control()
    options = {"show_plots": False, **_tagged(kwargs, tag)}
    analysis = sodetlib.take_bgmap(control, configuration, **options)
    found = {"nchans_per_bg": channels_per_group(analysis.bgmap), "filepath": str(analysis.filepath)}
    smurf.teller.update(found)
    return found


def take_iv(smurf: Smurf, *, kwargs: Options, tag: str | None) -> dict[str, Any]:
    """Take current-voltage curves; `Rn` in ohm and `p_sat` in watt as sodetlib fits them."""
    sodetlib = smurf.library("sodetlib.operations.iv")
    control, configuration = smurf.control()
    analysis = sodetlib.take_iv(control, configuration, **_tagged(kwargs, tag))
    found = {
        "filepath": str(analysis.filepath),
        "quantiles": {
            "Rn": quantile_record("Rn", analysis.R_n),
            "p_sat": quantile_record("p_sat", analysis.p_sat),
        },
    }
    smurf.teller.update(found)
    return found


def take_bias_steps(smurf: Smurf, *, kwargs: Options, rfrac_range: Sequence[float], tag: str | None) -> dict[str, Any]:
    """Step the biases a little, and see by the answer which detectors are in their transition."""
    sodetlib = smurf.library("sodetlib.operations.bias_steps")
    control, configuration = smurf.control()
    analysis = sodetlib.take_bias_steps(control, configuration, **_tagged(kwargs, tag))
    return _show_biased(smurf, analysis, rfrac_range)


def take_bias_waves(smurf: Smurf, *, kwargs: Options, rfrac_range: Sequence[float], tag: str | None) -> dict[str, Any]:
    """Do as bias steps do, with a sine in place of a step."""
    sodetlib = smurf.library("sodetlib.operations.bias_wave")
    control, configuration = smurf.control()
    analysis = sodetlib.take_bias_waves(control, configuration, **_tagged(kwargs, tag))
    return _show_biased(smurf, analysis, rfrac_range)


def overbias_tes(smurf: Smurf, *, bgs: Any, kwargs: Options) -> dict[str, Any]:
    """Drive detectors normal with a high bias for a moment; without groups, all active ones."""
    sodetlib = smurf.library("sodetlib")
    control, configuration = smurf.control()
    sodetlib.overbias_dets(control, configuration, bias_groups=bgs, **(kwargs or {}))
    return {}


def bias_dets(smurf: Smurf, *, rfrac: Any, kwargs: Options) -> dict[str, Any]:
    """Bias detectors into their transition: to a fraction of the normal resistance, or into a range of it."""
    sodetlib = smurf.library("sodetlib.operations.bias_dets")
    control, configuration = smurf.control()
    if isinstance(rfrac, int | float):
        biases = sodetlib.bias_to_rfrac(control, configuration, rfrac=rfrac, **(kwargs or {}))
    else:
        biases = sodetlib.bias_to_rfrac_range(control, configuration, rfrac_range=tuple(rfrac), **(kwargs or {}))
    found = {"biases": numbers(biases)}
    smurf.teller.update(found)
    return found


def set_biases(smurf: Smurf, *, biases: Mapping[str, float]) -> dict[str, Any]:
    """Set the bias voltage of each group named."""
    control, _ = smurf.control()
    for done, (group, volts) in enumerate(biases.items(), start=1):
        control.set_tes_bias_bipolar(int(group), volts)
        smurf.teller.progress(done, len(biases), f"bias group {group}")
    return {"biases": dict(biases)}


def all_off(smurf: Smurf, *, disable_amps: bool, disable_tones: bool) -> dict[str, Any]:
    """Turn off tones and flux ramp, and the amplifiers' biases."""
    control, _ = smurf.control()
    if disable_tones:
        control.all_off()
    if disable_amps:
        control.C.write_ps_en(0)
    return {"disable_amps": disable_amps, "disable_tones": disable_tones}


def stream(
    smurf: Smurf, *, duration: float | None, kwargs: Options, load_tune: bool, tag: str | None, test_mode: bool
) -> dict[str, Any]:
    """Stream until told to end; `stream_on` is true from the moment that data flow."""
    sodetlib = smurf.library("sodetlib")
    control, configuration = smurf.control(load_tune=load_tune)
    until = None if duration is None else time.monotonic() + duration
    options = {**(kwargs or {}), **({} if tag is None else {"tag": tag})}
    smurf.teller.update(stream_id=configuration.stream_id, stream_on=False, last_updated=time.time())
    try:
        sid = sodetlib.stream_g3_on(control, **options)
        smurf.teller.update(sid=sid, stream_on=True, last_updated=time.time())
        while not smurf.told.is_stopping and (until is None or time.monotonic() < until) and not test_mode:
            smurf.told.wait(1.0 if until is None else min(1.0, max(0.0, until - time.monotonic())))
            smurf.teller.update(last_updated=time.time())
    finally:
        sodetlib.stream_g3_off(control)
        smurf.teller.update(stream_on=False, last_updated=time.time())
    return {"sid": sid}


def check_state(smurf: Smurf, *, poll_interval: float, test_mode: bool) -> dict[str, Any]:
    """Read what the SMuRF is doing, again and again; changes nothing there."""
    sodetlib = smurf.library("sodetlib")
    control, configuration = smurf.control(load_tune=False, no_dir=True)
    registers = sodetlib.Registers(control)
    while not smurf.told.is_stopping:
        smurf.teller.update(_state(control, configuration, registers))
        if test_mode:
            break
        smurf.told.wait(poll_interval)
    return {}


def restart_rssi(smurf: Smurf) -> dict[str, Any]:
    """Restart the link to the board's registers, and see whether they answer."""
    control, _ = smurf.control(load_tune=False)
    root = f"{control.epics_root}:AMCc"
    control._caput(f"{root}:RestartRssi", 1)  # noqa: SLF001 - pysmurf has no public name for a register's address
    try:
        control._caget(f"{root}:FpgaTopLevel:AmcCarrierCore:AxiVersion:UpTimeCnt", timeout=2)  # noqa: SLF001
        is_responsive = True
    except Exception as error:  # noqa: BLE001 - EPICS, or what stands for it, may raise anything
        smurf.teller.log(f"the registers do not answer: {error}", level="warning")
        is_responsive = False
    smurf.teller.update(rssi_responsive=is_responsive, last_updated=time.time())
    if not is_responsive:
        raise TerminalError(
            "the board's registers do not answer after the restart",
            because="a read timed out after 2 s",
            cure="power-cycle the board",
        )
    return {"rssi_responsive": True}


def run_test_func(smurf: Smurf) -> dict[str, Any]:
    """Do nothing with the hardware, to see that child processes work."""
    smurf.teller.update(test=10)
    return {"test": 10}


OPERATIONS: Mapping[str, Callable[..., dict[str, Any]]] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            *(uxm_setup, uxm_relock, take_noise, take_bgmap, take_iv, take_bias_steps, take_bias_waves),
            *(overbias_tes, bias_dets, set_biases, all_off, stream, check_state, restart_rssi, run_test_func),
        )
    }
)
"""All of them by name."""


def _tagged(options: Options, tag: str | None) -> dict[str, Any]:
    """Add the tag of the time stream; given by itself it counts before one among the options."""
    return {**(options or {}), **({} if tag is None else {"g3_tag": tag})}


def _refuse_failure(name: str, ok: Any, control: Any) -> None:
    if ok:
        return
    steps: Any = control._ocs_session.data.get("timestamps") or []  # noqa: SLF001 - we have put it there
    raise TerminalError(
        f"{name} failed" + (f" in its step {steps[-1][0]}" if steps else ""),
        because="sodetlib says so; the session's data and log tell more",
        cure="see the session's data, mend what it names, and start it again",
    )


def _show_biased(smurf: Smurf, analysis: Any, rfrac_range: Sequence[float]) -> dict[str, Any]:
    biased = biased_per_group(analysis.bgmap, analysis.Rfrac, rfrac_range)
    low, high = rfrac_range
    arrays = {"Rfrac": analysis.Rfrac, "Si": analysis.Si, "Rtes": analysis.R0}
    found = {
        "filepath": str(analysis.filepath),
        "biased_total": sum(low < fraction < high for fraction in numbers(analysis.Rfrac)),
        "biased_per_bg": biased,
        "quantiles": {name: quantile_record(name, values) for name, values in arrays.items()},
    }
    smurf.teller.update(found)
    return found


def _state(control: Any, configuration: Any, registers: Any) -> dict[str, Any]:
    once = {"retry_on_fail": False}
    mask = numbers(control.get_channel_mask(**once))
    return {
        "channel_mask": [int(channel) for channel in mask],
        "num_active_channels": len(mask),
        "downsample_factor": control.get_downsample_factor(**once),
        "agg_time": registers.agg_time.get(**once),
        "open_g3stream": registers.open_g3stream.get(**once),
        "pysmurf_action": registers.pysmurf_action.get(**once, as_string=True),
        "pysmurf_action_timestamp": registers.pysmurf_action_timestamp.get(**once),
        "stream_tag": registers.stream_tag.get(**once, as_string=True),
        "last_update": time.time(),
        "stream_id": configuration.stream_id,
        "reachable": True,
        "last_error": None,
    }
