"""Bias steps under sodetlib's name."""

from labwright.instruments.pysmurf.simulated.operations.bias_steps import BiasStepAnalysis, take_bgmap, take_bias_steps

__all__ = [
    "BiasStepAnalysis",
    "take_bgmap",
    "take_bias_steps",
]
