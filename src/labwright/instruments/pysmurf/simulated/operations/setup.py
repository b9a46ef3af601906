"""Setting a card up: amplifiers, attenuators, delays, tune, tracking; from scratch, or by relocking a tune."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from labwright.instruments.pysmurf.publisher import set_action
from labwright.instruments.pysmurf.simulated.config import DetConfig
from labwright.instruments.pysmurf.simulated.control import SmurfControl
from labwright.instruments.pysmurf.simulated.detectors import Floats, Ints
from labwright.instruments.pysmurf.simulated.operations.bias_steps import take_bgmap
from labwright.instruments.pysmurf.simulated.operations.noise import take_noise
from labwright.instruments.pysmurf.simulated.operations.outputs import save_plot, validate_and_save
from labwright.instruments.pysmurf.simulated.operations.session import pub_ocs_log, set_session_data, stop_point
from labwright.instruments.pysmurf.simulated.settings import BANDS

SUPPLIES_ON = 0b11
MOST_TRIES = 50
GATE_RANGE_V = (-2.0, 0.0)
ATTENUATION_S = 60.0
NOISE_S = 30.0
USUAL_ATTENUATION = 12


class TrackingResults:
    """How well each channel follows its resonator through the flux ramp; arrays by channel."""

    bands: Ints
    channels: Ints
    f_ptp: Floats
    df_ptp: Floats
    r2: Floats
    is_good: Ints
    sid: int
    filepath: str

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)

    @property
    def nchans(self) -> int:
        """How many channels there are."""
        return len(self.bands)


# --- steps -----------------------------------------------------------------------------------------------------------


@set_action()
def setup_amps(
    S: SmurfControl, cfg: DetConfig, update_cfg: bool = True, **_options: Any
) -> tuple[bool, dict[str, Any]]:
    """Switch the amplifiers on and bring each to its drain current; gives whether it worked, and a summary."""
    S.machine.faults.strike("setup_amps")
    pub_ocs_log(S, "Starting setup_amps")
    exp = cfg.dev.exp
    S.C.write_ps_en(SUPPLIES_ON)
    S.machine.clock.sleep(exp["amp_enable_wait_time"])
    for amp in sorted(set(S.C.list_of_c02_amps) & set(exp["amps_to_bias"])):
        if not _brings_to_current(S, cfg, amp):
            pub_ocs_log(S, f"Failed determining {amp} gate voltage")
            summary = {"success": False, **S.get_amplifier_biases()}
            set_session_data(S, "setup_amps_summary", summary)
            S.C.write_ps_en(0)
            return False, summary
    found = S.get_amplifier_biases()
    if update_cfg:
        gates = {f"amp_{name}": value for name, value in found.items() if name.endswith("gate_volt")}
        cfg.dev.update_experiment(gates, update_file=True)
    S.C.write_optical(SUPPLIES_ON)
    summary = {"success": True, **found}
    set_session_data(S, "setup_amps_summary", summary)
    return True, summary


def _brings_to_current(S: SmurfControl, cfg: DetConfig, amp: str) -> bool:
    """Search the gate voltage that gives an amplifier's drain current, by halving; tells whether it was found."""
    exp = cfg.dev.exp
    wanted, tolerance = exp[f"amp_{amp}_drain_current"], exp[f"amp_{amp}_drain_current_tolerance"]
    low, high = GATE_RANGE_V
    for _ in range(MOST_TRIES):
        missing = wanted - S.get_amplifier_biases()[f"{amp}_drain_current"]
        if abs(missing) < tolerance:
            return True
        gate = S.get_amplifier_biases()[f"{amp}_gate_volt"]
        low, high = (max(low, gate), high) if missing > 0 else (low, min(high, gate))
        if missing > 0 and gate >= GATE_RANGE_V[1]:
            low, high = GATE_RANGE_V
        S.set_amp_gate_voltage(amp, (low + high) / 2)
        S.machine.clock.sleep(exp["amp_step_wait_time"])
    return False


@set_action()
def setup_phase_delay(
    S: SmurfControl,
    cfg: DetConfig,
    bands: Sequence[int],
    update_cfg: bool = True,
    **_options: Any,
) -> tuple[bool, dict[str, Any]]:
    """Measure the delay of the cables of each band; gives True and a summary."""
    pub_ocs_log(S, f"Estimating phase delay for bands {list(bands)}")
    delays = {int(band): float(S.estimate_phase_delay(band)[0]) for band in bands}
    for band, delay in delays.items():
        S.set_band_delay_us(band, delay)
        cfg.dev.bands[band]["band_delay_us"] = delay
    if update_cfg:
        cfg.dev.update_file()
    summary = {"bands": list(delays), "band_delay_us": list(delays.values())}
    set_session_data(S, "setup_phase_delay", summary)
    return True, summary


@set_action()
def setup_tune(S: SmurfControl, cfg: DetConfig, bands: Sequence[int], **_options: Any) -> tuple[bool, dict[str, Any]]:
    """Find the resonators of bands, set tones on them, and save the tune; gives True and the counts."""
    pub_ocs_log(S, f"Starting setup_tune for bands {list(bands)}")
    counts: dict[str, int] = {}
    for band in bands:
        stop_point(S)
        pub_ocs_log(S, f"Find Freq: band {band}")
        counts[str(band)] = len(S.find_freq(band, tone_power=cfg.dev.bands[band]["tone_power"]))
        S.setup_notches(band, tone_power=cfg.dev.bands[band]["tone_power"], new_master_assignment=True)
        S.run_serial_gradient_descent(band)
        S.run_serial_eta_scan(band)
    cfg.dev.update_experiment({"tunefile": S.tune_file}, update_file=True)
    return True, {"resonators": counts}


@set_action()
def reload_tune(
    S: SmurfControl,
    cfg: DetConfig,
    bands: Sequence[int],
    *,
    setup_notches: bool = False,
    tunefile: str | None = None,
    update_cfg: bool = True,
    **_options: Any,
) -> tuple[bool, None]:
    """Load the tune and set its tones again."""
    S.load_tune(tunefile or cfg.dev.exp["tunefile"])
    for band in bands:
        stop_point(S)
        pub_ocs_log(S, f"Relocking tune: Band {band}")
        if setup_notches:
            S.find_freq(band)
            S.setup_notches(band)
        else:
            S.relock(band)
        S.run_serial_gradient_descent(band)
        S.run_serial_eta_scan(band)
    if setup_notches and update_cfg:
        cfg.dev.update_experiment({"tunefile": S.tune_file}, update_file=True)
    return True, None


@set_action()
def setup_tracking_params(S: SmurfControl, cfg: DetConfig, bands: Sequence[int], **_options: Any) -> TrackingResults:
    """Follow the resonators of bands through the flux ramp, and judge each channel."""
    exp = cfg.dev.exp
    columns: list[tuple[Ints, Ints, Floats, Floats]] = []
    for band in bands:
        stop_point(S)
        S.set_feedback_enable(band, 1)
        frequency, error, _marks = S.tracking_setup(band, reset_rate_khz=exp["flux_ramp_rate_khz"])
        channels = S.which_on(band)
        swing, scatter = (np.ptp(values[:, channels], axis=0) * 1e3 for values in (frequency, error))
        columns.append((np.full(len(channels), band), channels, swing, scatter))
        cfg.dev.bands[band].update(
            frac_pp=exp["init_frac_pp"], lms_freq_hz=exp["flux_ramp_rate_khz"] * exp["nphi0"] * 1e3
        )
    numbers, channels, f_ptp, df_ptp = (np.concatenate(column) for column in zip(*columns, strict=True))
    r2 = np.clip(1 - (df_ptp / np.maximum(f_ptp, 1e-9)) ** 2 / 12, 0, 1)
    is_good = (f_ptp > exp["f_ptp_range"][0]) & (f_ptp < exp["f_ptp_range"][1]) & (r2 > exp["r2_min"])
    results = TrackingResults(
        bands=numbers, channels=channels, f_ptp=f_ptp, df_ptp=df_ptp, r2=r2, is_good=is_good, sid=0
    )
    results.filepath = validate_and_save("tracking_results.npy", dict(vars(results)), S=S, cfg=cfg)
    save_plot(S, "tracking_r2.png", np.sort(r2)[None, :], "tracking")
    cfg.dev.update_file()
    return results


def estimate_uc_dc_atten(S: SmurfControl, cfg: DetConfig, band: int, **_options: Any) -> bool:
    """Choose the attenuations of a band; tells whether that worked."""
    S.machine.clock.sleep(ATTENUATION_S)
    cfg.dev.update_band(band, {"uc_att": USUAL_ATTENUATION, "dc_att": USUAL_ATTENUATION}, update_file=True)
    S.set_att_uc(band, USUAL_ATTENUATION)
    S.set_att_dc(band, USUAL_ATTENUATION)
    return True


# --- whole procedures ------------------------------------------------------------------------------------------------


class Steps:
    """The steps of a procedure with the moment each began, as the session shows them."""

    def __init__(self, S: SmurfControl) -> None:
        self._control = S
        self.begun: list[tuple[str, float]] = []

    def begin(self, name: str) -> None:
        """Note that a step begins, unless the session was asked to stop."""
        stop_point(self._control)
        self.begun.append((name, self._control.machine.clock.time()))
        set_session_data(self._control, "timestamps", self.begun)


@set_action()
def uxm_setup(
    S: SmurfControl,
    cfg: DetConfig,
    bands: Sequence[int] | int | None = None,
    *,
    modify_attens: bool = True,
    skip_phase_delay: bool = False,
    skip_setup_amps: bool = False,
    **_options: Any,
) -> tuple[bool, dict[str, Any]]:
    """Set bands (default: all) up from scratch; gives whether it worked, and a summary.

    Steps: amplifiers, attenuators, delays, tune, tracking, noise. Where one does not work, those after it are left out.
    """
    S.machine.faults.strike("uxm_setup")
    wanted = _bands(cfg, bands)
    _reset(S, cfg)
    steps, summary = Steps(S), dict[str, Any]()
    summary["timestamps"] = steps.begun
    if not skip_setup_amps:
        steps.begin("setup_amps")
        is_success, summary["setup_amps"] = setup_amps(S, cfg)
        if not is_success:
            return False, summary
    steps.begin("estimate_attens")
    for band in wanted:
        if modify_attens or cfg.dev.bands[band]["uc_att"] is None:
            estimate_uc_dc_atten(S, cfg, band)
    if not skip_phase_delay:
        steps.begin("setup_phase_delay")
        _, summary["setup_phase_delay"] = setup_phase_delay(S, cfg, wanted)
    steps.begin("setup_tune")
    _, summary["setup_tune"] = setup_tune(S, cfg, wanted)
    if not sum(summary["setup_tune"]["resonators"].values()):
        pub_ocs_log(S, "No resonators were found")
        return False, summary
    steps.begin("setup_tracking_params")
    summary["tracking_setup_results"] = setup_tracking_params(S, cfg, wanted)
    steps.begin("noise")
    _, summary["noise"] = take_noise(S, cfg, NOISE_S, g3_tag="uxm_setup")
    steps.begin("end")
    return True, summary


@set_action()
def uxm_relock(
    S: SmurfControl,
    cfg: DetConfig,
    bands: Sequence[int] | int | None = None,
    *,
    setup_notches: bool = False,
    skip_setup_amps: bool = False,
    **_options: Any,
) -> tuple[bool, dict[str, Any]]:
    """Set the tones of the tune again on bands (default: all); gives whether it worked, and a summary.

    Steps: amplifiers, tune, tracking, noise, map of bias groups.
    """
    S.machine.faults.strike("uxm_relock")
    wanted = _bands(cfg, bands)
    _reset(S, cfg)
    steps, summary = Steps(S), dict[str, Any]()
    summary["timestamps"] = steps.begun
    if not skip_setup_amps:
        steps.begin("setup_amps")
        is_success, summary["amps"] = setup_amps(S, cfg)
        if not is_success:
            return False, summary
    steps.begin("load_tune")
    _, summary["reload_tune"] = reload_tune(S, cfg, wanted, setup_notches=setup_notches)
    set_session_data(S, "reload_tune", summary["reload_tune"])
    steps.begin("tracking_setup")
    summary["tracking_setup_results"] = setup_tracking_params(S, cfg, wanted)
    steps.begin("noise")
    _, summary["noise"] = take_noise(S, cfg, NOISE_S, g3_tag="post_relock")
    steps.begin("bg_map")
    summary["bg_map"] = take_bgmap(S, cfg)
    steps.begin("end")
    return True, summary


def _reset(S: SmurfControl, cfg: DetConfig) -> None:
    S.all_off()
    S.set_filter_disable(0)
    S.set_downsample_factor(cfg.dev.exp["downsample_factor"])


def _bands(cfg: DetConfig, bands: Sequence[int] | int | None) -> list[int]:
    wanted = [int(band) for band in np.atleast_1d(np.asarray(cfg.dev.exp["active_bands"] if bands is None else bands))]
    if not set(wanted) <= set(range(BANDS)):
        message = f"bands are 0 to {BANDS - 1}, not {wanted}"
        raise ValueError(message)
    return wanted
