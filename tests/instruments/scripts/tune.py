"""Tune bands: amplifiers, attenuators, resonators, tones, tracking; tell the session what came of it."""
# ruff: noqa: T201 - a script talks
# pyright: reportMissingImports=false, reportUnusedImport=false
# (the names are found when the script runs)

import argparse

import numpy as np
import pysmurf.client
from sodetlib.det_config import DetConfig
from sodetlib.operations import tracking, uxm_setup

if __name__ == "__main__":
    cfg = DetConfig()
    parser = argparse.ArgumentParser()
    parser.add_argument("--bands", type=int, nargs="+")
    args = cfg.parse_args(parser)
    bands = args.bands or cfg.dev.exp["active_bands"]

    S = cfg.get_smurf_control(dump_configs=True, make_logfile=False)
    assert isinstance(S, pysmurf.client.SmurfControl)
    S.all_off()
    success, summary = uxm_setup.setup_amps(S, cfg)
    if not success:
        raise SystemExit("the amplifiers did not reach their currents")

    for band in bands:
        uxm_setup.estimate_uc_dc_atten(S, cfg, band)
        band_delay_us, _ = S.estimate_phase_delay(band, make_plot=True, show_plot=False)
        S.set_band_delay_us(band, band_delay_us)
        S.find_freq(band, tone_power=cfg.dev.bands[band]["tone_power"], make_plot=True, save_plot=True)
        S.setup_notches(band, tone_power=cfg.dev.bands[band]["tone_power"], new_master_assignment=True)
        S.run_serial_gradient_descent(band)
        S.run_serial_eta_scan(band)
        S.pub.publish(f"band {band} tuned", msgtype="session_log")
        S.pub.publish({"bands": {str(band): {"channels": len(S.which_on(band))}}}, msgtype="session_data")

    cfg.dev.update_experiment({"tunefile": S.tune_file}, update_file=True)
    results = tracking.setup_tracking_params(S, cfg, bands)
    S.pub.publish(
        {"tune_file": S.tune_file, "channels_on": int(sum(len(S.which_on(band)) for band in bands))},
        msgtype="session_data",
    )
    print(f"{np.sum(results.is_good)} of {results.nchans} channels track well")
