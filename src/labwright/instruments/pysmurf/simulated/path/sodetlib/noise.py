"""Noise under sodetlib's name."""

from labwright.instruments.pysmurf.simulated.operations.noise import get_noise_params, take_noise

__all__ = [
    "get_noise_params",
    "take_noise",
]
