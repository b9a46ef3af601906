"""Output files: their names, what stands in each of them, and small plots."""

# pyright: reportPrivateUsage=false
# (pysmurf and sodetlib keep there what others read)

from __future__ import annotations

import struct
import time
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from labwright.instruments.pysmurf.simulated.config import DetConfig
from labwright.instruments.pysmurf.simulated.control import SmurfControl
from labwright.instruments.pysmurf.simulated.detectors import Floats
from labwright.instruments.pysmurf.simulated.settings import BIAS_LINES

PLOT_WIDTH, PLOT_HEIGHT = 320, 200


def make_filename(S: SmurfControl, name: str, ctime: str | int | None = None, plot: bool = False) -> str:
    """Make the path of an output or plot, `<epoch seconds>_<name>`; one that is taken gets the next free second."""
    folder = Path(S.plot_dir if plot else S.output_dir)
    number = int(ctime or S.get_timestamp())
    while (folder / f"{number}_{name}").exists():
        number += 1
    return str(folder / f"{number}_{name}")


def get_metadata(S: SmurfControl, cfg: DetConfig) -> dict[str, Any]:
    """Collect what every output file tells about the card and its settings."""
    relays = S.get_cryo_card_relays()
    return {
        "tunefile": S.tune_file,
        "high_low_current_ratio": S.high_low_current_ratio,
        "R_sh": S.R_sh,
        "pA_per_phi0": S.pA_per_phi0,
        "rtm_bit_to_volt": S._rtm_slow_dac_bit_to_volt,
        "bias_line_resistance": S.bias_line_resistance,
        "chans_per_band": S.get_number_channels(),
        "high_current_mode": np.array([bool(relays >> line & 1) for line in range(BIAS_LINES)]),
        "timestamp": time.time(),
        "stream_id": cfg.stream_id,
        "action": S.pub._action,
        "action_timestamp": S.pub._action_ts,
        "bgmap_file": cfg.dev.exp.get("bgmap_file"),
        "iv_file": cfg.dev.exp.get("iv_file"),
        "simulated": True,
    }


def validate_and_save(
    fname: str,
    data: dict[str, Any],
    S: SmurfControl | None = None,
    cfg: DetConfig | None = None,
    register: bool = True,
    make_path: bool = True,
) -> str:
    """Save results with their metadata, announce the file, and give its path.

    Raises:
        ValueError: `bands`, `channels` or `sid` is not among the results.
    """
    missing = {"bands", "channels", "sid"} - set(data)
    if missing:
        message = f"results need {', '.join(sorted(missing))}"
        raise ValueError(message)
    whole = {"meta": get_metadata(S, cfg), **data} if S is not None and cfg is not None else data
    path = make_filename(S, fname) if make_path and S is not None else fname
    np.save(path, whole, allow_pickle=True)  # pyright: ignore[reportArgumentType] - numpy boxes a dict
    if S is not None and register:
        S.pub.register_file(path, "sodetlib_data", format="npy")
    return path


def save_plot(S: SmurfControl, name: str, curves: Floats, kind: str) -> str:
    """Draw rows of values as curves in one small picture, announce it, and give its path."""
    path = make_filename(S, name, plot=True)
    Path(path).write_bytes(png(picture(curves)))
    S.pub.register_file(path, kind, format="png", plot=True)
    return path


def picture(curves: Floats) -> NDArray[np.uint8]:
    """Draw curves in shades of grey, (height, width): the darker, the more of them pass."""
    drawn = np.full((PLOT_HEIGHT, PLOT_WIDTH), 255.0)
    finite = curves[np.isfinite(curves)]
    if not finite.size:
        return drawn.astype(np.uint8)
    low, high = np.percentile(finite, [0.5, 99.5])
    columns = np.arange(PLOT_WIDTH)
    for curve in curves:
        places = np.linspace(0, PLOT_WIDTH - 1, len(curve))
        filled = np.nan_to_num(curve, nan=low, posinf=high, neginf=low)
        heights = cast("Floats", np.interp(columns, places, filled))
        rows = np.clip((high - heights) / max(high - low, 1e-30), 0, 1) * (PLOT_HEIGHT - 1)
        drawn[rows.astype(np.int64), columns] *= 0.85
    return drawn.astype(np.uint8)
    low, high = np.percentile(finite, [0.5, 99.5])
    for curve in curves:
        places = np.linspace(0, PLOT_WIDTH - 1, len(curve))
        heights: Floats = np.interp(
            np.arange(PLOT_WIDTH), places, np.nan_to_num(curve, nan=low, posinf=high, neginf=low)
        )
        rows: Floats = np.clip((high - heights) / max(high - low, 1e-30) * (PLOT_HEIGHT - 1), 0, PLOT_HEIGHT - 1)
        drawn[rows.astype(int), np.arange(PLOT_WIDTH)] *= 0.85
    return drawn.astype(np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Write shades of grey as a PNG picture. See https://www.w3.org/TR/png/."""
    height, width = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data)) for tag, data in parts
    )
