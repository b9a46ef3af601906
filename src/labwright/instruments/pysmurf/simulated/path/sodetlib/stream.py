"""Streams under sodetlib's name."""

from labwright.instruments.pysmurf.simulated.operations.stream import (
    load_session,
    stream_g3_off,
    stream_g3_on,
    take_g3_data,
)

__all__ = [
    "load_session",
    "stream_g3_off",
    "stream_g3_on",
    "take_g3_data",
]
