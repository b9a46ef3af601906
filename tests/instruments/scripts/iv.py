"""Take an IV on the tune of before and bias the detectors to half of their normal resistance."""
# ruff: noqa: T201 - a script talks
# pyright: reportMissingImports=false, reportUnusedImport=false
# (the names are found when the script runs)

import argparse

import numpy as np
import pysmurf.client  # noqa: F401 - as scripts do
import sodetlib as sdl
from sodetlib.det_config import DetConfig
from sodetlib.operations import bias_dets, bias_steps, iv

parser = argparse.ArgumentParser()
parser.add_argument("--bgs", type=int, nargs="+")
parser.add_argument("--bias-step", type=float, default=0.05)
parser.add_argument("--rfrac", type=float, default=0.5)

cfg = DetConfig()
args = cfg.parse_args(parser)
S = cfg.get_smurf_control()
S.load_tune(cfg.dev.exp["tunefile"])

bias_steps.take_bgmap(S, cfg, show_plots=False)
iva = iv.take_iv(S, cfg, bias_groups=args.bgs, bias_step=args.bias_step, show_plots=False)
biases = bias_dets.bias_to_rfrac(S, cfg, rfrac=args.rfrac, bias_groups=args.bgs)
bsa = bias_steps.take_bias_steps(S, cfg, bgs=args.bgs)

in_transition = (bsa.Rfrac > 0.2) & (bsa.Rfrac < 0.9)
sdl.set_session_data(
    S,
    "iv",
    {"filepath": iva.filepath, "R_n": iva.R_n, "biases": biases, "biased_total": np.sum(in_transition)},
)
print(f"biased {np.sum(in_transition)} of {iva.nchans} channels")
