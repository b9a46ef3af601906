"""Relocking under sodetlib's name."""

from labwright.instruments.pysmurf.simulated.operations.setup import reload_tune, uxm_relock

__all__ = [
    "reload_tune",
    "uxm_relock",
]
