"""IV curves under sodetlib's name."""

from labwright.instruments.pysmurf.simulated.operations.iv import IVAnalysis, analyze_iv, take_iv

__all__ = [
    "IVAnalysis",
    "analyze_iv",
    "take_iv",
]
