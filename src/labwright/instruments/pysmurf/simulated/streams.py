"""Streams of the simulated SMuRF: files named as the real ones, `<sid>_NNN.g3`, in a format of our own.

The library that reads real G3 files is not needed here and their frames are not imitated. A file is one line of JSON
(what the stream is, which channels, how many samples were taken and how many are kept) and then the kept samples:
32-bit little-endian floats in radians, channel by channel. Of each file no more than `MOST_BYTES` of samples are kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labwright.instruments.pysmurf.simulated.detectors import Floats, Ints

MOST_BYTES = 2 * 1024 * 1024
FILE_S = 600.0
FORMAT = "labwright-simulated-stream-1"


@dataclass(frozen=True, kw_only=True)
class ChannelInfo:
    """Which channel each row of a signal is of."""

    band: Ints
    channel: Ints


@dataclass(kw_only=True)
class AxisManager:
    """A stream in memory: `signal` is (channels, samples) in radians, `timestamps` in epoch seconds."""

    timestamps: Floats
    signal: Floats
    ch_info: ChannelInfo
    tags: tuple[str, ...] = ()


def stream_folder(timestreams: Path, stream_id: str, session_id: int) -> Path:
    """Give the folder of a stream session: `<timestreams>/<first five digits>/<stream id>`."""
    return timestreams / str(session_id)[:5] / stream_id


def stream_files(timestreams: Path, stream_id: str, session_id: int) -> list[Path]:
    """List the files of a stream session, in their order."""
    return sorted(stream_folder(timestreams, stream_id, session_id).glob(f"{session_id}_*.g3"))


def write_stream(path: Path, stream: AxisManager, *, rate_hz: float, about: dict[str, Any], samples: int) -> None:
    """Write a file of a stream of which `samples` samples were taken."""
    per_sample = max(1, 4 * len(stream.ch_info.band))
    kept = min(stream.signal.shape[1], MOST_BYTES // per_sample)
    header = {
        "format": FORMAT,
        **about,
        "rate_hz": rate_hz,
        "start": float(stream.timestamps[0]) if len(stream.timestamps) else None,
        "bands": stream.ch_info.band.tolist(),
        "channels": stream.ch_info.channel.tolist(),
        "samples_taken": samples,
        "samples_kept": kept,
        "tags": list(stream.tags),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        file.write(np.ascontiguousarray(stream.signal[:, :kept], dtype="<f4").tobytes())


def read_stream(path: Path) -> tuple[dict[str, Any], AxisManager]:
    """Read a file of a stream: what it says of itself, and the samples that it keeps."""
    with path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.readline())
        samples: Floats = np.frombuffer(file.read(), dtype="<f4")
    signal = samples.reshape(len(header["channels"]), header["samples_kept"])
    start = float(header["start"] or 0.0)
    return header, AxisManager(
        timestamps=start + np.arange(int(header["samples_kept"])) / float(header["rate_hz"]),
        signal=signal,
        ch_info=ChannelInfo(band=np.array(header["bands"], dtype=int), channel=np.array(header["channels"], dtype=int)),
        tags=tuple(header["tags"]),
    )
