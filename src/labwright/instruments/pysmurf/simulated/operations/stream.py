"""Streams in sodetlib's way: begin, end, take for a while, load again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from labwright.instruments.pysmurf.publisher import set_action
from labwright.instruments.pysmurf.simulated.control import SmurfControl
from labwright.instruments.pysmurf.simulated.registers import Registers
from labwright.instruments.pysmurf.simulated.settings import Settings
from labwright.instruments.pysmurf.simulated.streams import AxisManager, read_stream, stream_files

OBSERVING = frozenset({"stream", "cmb", "cal"})
START_S = 2.0


@set_action()
def stream_g3_on(
    S: SmurfControl,
    *,
    tag: str | None = None,
    downsample_factor: int | None = None,
    filter_disable: bool = False,
    stream_type: str | None = None,
    subtype: str = "stream",
    **_options: Any,
) -> int:
    """Begin a stream and give the id of its session."""
    S.machine.faults.strike("stream_g3_on")
    of_type = stream_type or ("obs" if subtype in OBSERVING else "oper")
    registers = Registers(S)
    if registers.open_g3stream.get():
        S.log("A stream was left open and is ended first")
        stream_g3_off(S)
    registers.pysmurf_action.set(S.pub._action)
    registers.pysmurf_action_timestamp.set(S.pub._action_ts)
    registers.stream_tag.set(",".join(filter(None, [of_type, subtype, tag])))
    if downsample_factor is not None:
        S.set_downsample_factor(downsample_factor)
    S.set_filter_disable(int(filter_disable))
    S.machine.clock.sleep(START_S)
    registers.open_g3stream.set(1)
    session = int(registers.g3_session_id.get())
    S.log(f"Session id: {session}")
    return session


@set_action()
def stream_g3_off(S: SmurfControl, **_options: Any) -> int:
    """End the stream, wait for its files, and give the id of its session."""
    registers = Registers(S)
    session = int(registers.g3_session_id.get())
    registers.open_g3stream.set(0)
    for register, value in ((registers.pysmurf_action, ""), (registers.stream_tag, "")):
        register.set(value)
    registers.pysmurf_action_timestamp.set(0)
    return session


@set_action()
def take_g3_data(S: SmurfControl, dur: float, **stream_kw: Any) -> int:
    """Stream for so many seconds, and give the id of the session."""
    stream_g3_on(S, **stream_kw)
    try:
        S.machine.clock.sleep(dur)
    finally:
        session = stream_g3_off(S)
    return session


def load_session(
    stream_id: str, session_id: int, idx: int | None = None, base_dir: str | None = None, **_options: Any
) -> AxisManager:
    """Load what is kept of a stream, or of the file `idx` of it.

    Raises:
        FileNotFoundError: there is no such stream.
    """
    timestreams = Path(base_dir) if base_dir else Settings.of().data / "so" / "timestreams"
    files = stream_files(timestreams, stream_id, session_id)
    if not files:
        message = f"no files of the stream {stream_id} {session_id} under {timestreams}"
        raise FileNotFoundError(message)
    parts = [read_stream(path)[1] for path in (files if idx is None else [files[idx]])]
    return AxisManager(
        timestamps=np.concatenate([part.timestamps for part in parts]),
        signal=np.concatenate([part.signal for part in parts], axis=1),
        ch_info=parts[0].ch_info,
        tags=parts[0].tags,
    )
