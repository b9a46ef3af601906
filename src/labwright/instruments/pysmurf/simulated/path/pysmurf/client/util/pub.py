"""The publisher under pysmurf's name."""

from labwright.instruments.pysmurf.publisher import Publisher, set_action

__all__ = ["Publisher", "set_action"]
