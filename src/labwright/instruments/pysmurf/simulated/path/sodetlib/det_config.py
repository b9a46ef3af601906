"""The configuration under sodetlib's name."""

from labwright.instruments.pysmurf.simulated.config import DetConfig, DeviceConfig, make_parser

__all__ = [
    "DetConfig",
    "DeviceConfig",
    "make_parser",
]
