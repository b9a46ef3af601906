"""A simulated SMuRF: enough of pysmurf and sodetlib that typical scripts run on it unchanged.

Scripts find it under the names that they know, `pysmurf.client` and `sodetlib`, because `environment` puts the folder
`path` on their PYTHONPATH; agents never import it (it needs numpy, they do not). The physics is simple and seeded:
eight bands of up to 512 channels, resonator dips, superconducting transitions on twelve bias lines, white noise with a
1/f part. What is set (biases, tones, amplifiers, registers) outlives the script, as on the real machine: it stands in
the data folder.

| name in a script | signature | gives |
|---|---|---|
| `sodetlib.det_config.DetConfig` | `DetConfig(slot=None, sys_file=None, dev_file=None, ...)` | `.parse_args(parser)`, `.load_config_files(slot=)`, `.get_smurf_control(dump_configs=, epics_root=, **kwargs)` (S), `.dev.exp`, `.dev.bands[b]`, `.dev.bias_groups[g]`, `.dev.update_experiment(data, update_file=True)`, `.sys`, `.slot`, `.stream_id` |
| `pysmurf.client.SmurfControl` | `SmurfControl(epics_root=, cfg_file=, data_path_id=, offline=, no_dir=)` | S |
| `S` | `log pub output_dir plot_dir get_timestamp load_tune(path) find_freq setup_notches run_serial_gradient_descent run_serial_eta_scan relock tracking_setup estimate_phase_delay which_on all_off stream_data_on/off take_stream_data` | |
| `S` biases | `set_tes_bias_bipolar(group, volt)`, `set_tes_bias_bipolar_array(volts)`, `get_...`, `overbias_tes_all(bias_groups=, overbias_wait=, tes_bias=, cool_wait=, ...)` | volts, 15 lines of which 12 have detectors |
| `sodetlib.operations.uxm_setup` | `uxm_setup(S, cfg, bands=None, show_plots=True, update_cfg=True, ...)`, `setup_amps(S, cfg)` | `(ok, summary)` |
| `sodetlib.operations.uxm_relock` | `uxm_relock(S, cfg, bands=None, setup_notches=False, ...)` | `(ok, summary)`; `summary["tracking_setup_results"]` has `.bands .channels .is_good .filepath` |
| `sodetlib.noise` | `take_noise(S, cfg, acq_time, g3_tag=None, ...)` | `(am, results)`; `results["noise_pars"]` is (channels, 3): white level in pA/rtHz, n, knee in Hz; `band_medians`, `filepath` |
| `sodetlib.operations.iv` | `take_iv(S, cfg, bias_groups=None, bias_high=18, bias_low=0, bias_step=0.025, wait_time=0.1, g3_tag=None, ...)` | `IVAnalysis`: `.filepath .bands .channels .bgmap .R_n .R_L .p_sat .R .v_bias` |
| `sodetlib.operations.bias_steps` | `take_bgmap(S, cfg, ...)`, `take_bias_steps(S, cfg, bgs=None, g3_tag=None, ...)` | `BiasStepAnalysis`: `.filepath .bgmap .polarity .R0 .Rfrac .Si .I0 .Pj` |
| `sodetlib.operations.bias_wave` | `take_bias_waves(S, cfg, bgs=None, g3_tag=None, ...)` | as bias steps |
| `sodetlib.operations.bias_dets` | `bias_to_rfrac(S, cfg, rfrac=0.5, bias_groups=None, ...)`, `bias_to_rfrac_range(S, cfg, rfrac_range=(0.3, 0.6), ...)` | biases in volts, by line |
| `sodetlib` | `overbias_dets(S, cfg, bias_groups=None)`, `stream_g3_on(S, tag=None, subtype="stream")`, `stream_g3_off(S)`, `take_g3_data(S, dur)`, `load_session(stream_id, sid)` | sid: the id of the stream session |
| `sodetlib` | `set_session_data(S, key, value)`, `pub_ocs_data(S, data)`, `pub_ocs_log(S, text)`, `stop_point(S)`, `Registers(S)` | told to `S._ocs_session` (an object with `.data` and `add_message`), where there is none published through `S.pub` |

What an operation of sodetlib tells its session by itself: `timestamps`, `setup_amps_summary`, `setup_phase_delay`,
`noise: {band_medians}`, `reload_tune`. What a caller adds (`filepath`, quantiles, counts) it takes from the results.

Settings, all from the environment: see `settings`; faults: see `faults`.
"""  # noqa: E501 - a table has long rows

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def import_path() -> Path:
    """Give the folder that holds `pysmurf` and `sodetlib`, for a script's PYTHONPATH."""
    return Path(__file__).parent / "path"


DEFAULT_SLOT = 2


def usual_stream_id(crate: str = "", slot: object = None) -> str:
    """Name the card of a slot as the simulator does where no configuration says its stream id.

    >>> usual_stream_id(slot=3)
    'crate1slot3'
    """
    return f"crate{crate or 1}slot{slot or DEFAULT_SLOT}"


def environment(
    data_dir: Path | None = None,
    *,
    speed: float | None = None,
    seed: int | None = None,
    resonators: int | None = None,
    faults: str = "",
    stream_id: str = "",
    outer: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Make the variables under which a script finds the simulator; `outer` (default: ours) is what they extend.

    `speed` is how much faster than life its time runs, `resonators` how many each band has, `stream_id` names the card
    where no configuration does.
    """
    outer = os.environ if outer is None else outer
    paths = [str(import_path()), *filter(None, [outer.get("PYTHONPATH")])]
    wanted = {
        "LABWRIGHT_SMURF_DATA": data_dir,
        "LABWRIGHT_SMURF_SPEED": speed,
        "LABWRIGHT_SMURF_SEED": seed,
        "LABWRIGHT_SMURF_RESONATORS": resonators,
        "LABWRIGHT_SMURF_FAULTS": faults or None,
        "LABWRIGHT_SMURF_STREAM_ID": stream_id or None,
    }
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        **{name: str(value) for name, value in wanted.items() if value is not None},
    }
