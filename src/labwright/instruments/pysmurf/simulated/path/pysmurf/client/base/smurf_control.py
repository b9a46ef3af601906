"""The simulated control object under pysmurf's name."""

from labwright.instruments.pysmurf.simulated.control import SmurfControl

__all__ = ["SmurfControl"]
