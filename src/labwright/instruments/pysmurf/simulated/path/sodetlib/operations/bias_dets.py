"""Biasing under sodetlib's name."""

from labwright.instruments.pysmurf.simulated.operations.biasing import bias_to_rfrac, bias_to_rfrac_range

__all__ = [
    "bias_to_rfrac",
    "bias_to_rfrac_range",
]
