"""Tracking under sodetlib's name."""

from labwright.instruments.pysmurf.simulated.operations.setup import TrackingResults, setup_tracking_params

__all__ = [
    "TrackingResults",
    "setup_tracking_params",
]
