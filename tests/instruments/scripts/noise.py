"""Take noise for a while, and a stream with pysmurf's own commands beside it."""
# ruff: noqa: T201 - a script talks
# pyright: reportMissingImports=false, reportUnusedImport=false
# (the names are found when the script runs)

import argparse

import numpy as np
import pysmurf.client  # noqa: F401 - as scripts do
import sodetlib as sdl
from sodetlib.det_config import DetConfig

cfg = DetConfig()
parser = argparse.ArgumentParser()
parser.add_argument("--acq-time", type=float, default=30.0)
args = cfg.parse_args(parser)

S = cfg.get_smurf_control()
S.load_tune(cfg.dev.exp["tunefile"])
S.set_downsample_factor(20)
S.set_filter_disable(0)

am, outdict = sdl.noise.take_noise(S, cfg, args.acq_time, show_plot=False, save_plot=True)
datafile = S.take_stream_data(5)
sid = sdl.take_g3_data(S, 10)
stream = sdl.load_session(cfg.stream_id, sid, base_dir=cfg.sys["g3_dir"])

assert stream.ch_info.channel.tolist() == am.ch_info.channel.tolist()
S.pub.publish({"datafile": datafile, "sid": sid, "channels": len(am.signal)}, msgtype="session_data")
print(f"median white noise {np.nanmedian(outdict['noise_pars'][:, 0]):.1f} pA/rtHz")
