"""Tune a readout slot: amplifiers, resonators, tones and tracking of some bands, and tell the session as it goes.

An ordinary script in the idiom of sodetlib: it knows nothing of Labwright, and runs on a real SMuRF as it is.
"""
# ruff: noqa: INP001, T201 - a script, which talks
# pyright: reportMissingImports=false
# (pysmurf and sodetlib are found when the script runs)

import argparse

import numpy as np
from sodetlib.det_config import DetConfig
from sodetlib.operations import tracking, uxm_setup

if __name__ == "__main__":
    cfg = DetConfig()
    parser = argparse.ArgumentParser()
    parser.add_argument("--bands", type=int, nargs="+", default=[0, 1])
    args = cfg.parse_args(parser)

    S = cfg.get_smurf_control(dump_configs=True, make_logfile=False)
    S.all_off()
    success, summary = uxm_setup.setup_amps(S, cfg)
    if not success:
        raise SystemExit(f"the amplifiers did not reach their currents: {summary}")

    for band in args.bands:
        uxm_setup.estimate_uc_dc_atten(S, cfg, band)
        S.estimate_phase_delay(band, make_plot=True, show_plot=False)
        S.find_freq(band, tone_power=cfg.dev.bands[band]["tone_power"], make_plot=True, save_plot=True)
        S.setup_notches(band, tone_power=cfg.dev.bands[band]["tone_power"], new_master_assignment=True)
        S.run_serial_gradient_descent(band)
        S.run_serial_eta_scan(band)
        S.pub.publish({"bands": {str(band): {"channels": len(S.which_on(band))}}}, msgtype="session_data")
        print(f"band {band}: {len(S.which_on(band))} channels on", flush=True)

    cfg.dev.update_experiment({"tunefile": S.tune_file}, update_file=True)
    results = tracking.setup_tracking_params(S, cfg, args.bands)
    S.pub.publish({"tune_file": S.tune_file, "tracking": int(np.sum(results.is_good))}, msgtype="session_data")
    print(f"{np.sum(results.is_good)} of {results.nchans} channels track well")
