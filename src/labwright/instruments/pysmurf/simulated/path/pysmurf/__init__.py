"""The simulated SMuRF under pysmurf's name."""

__version__ = "simulated"
