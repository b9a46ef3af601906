"""Bias waves under sodetlib's name."""

from labwright.instruments.pysmurf.simulated.operations.bias_steps import take_bias_waves

__all__ = [
    "take_bias_waves",
]
