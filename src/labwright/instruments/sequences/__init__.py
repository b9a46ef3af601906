"""Ready-made standard operations of a chemistry laboratory, as actions of a `Schedule`: compose them, and give numbers.

They are written against the small protocols in `labwright.instruments.sequences.protocols`, which a driver fits with a
few methods, and are tried on the simulated instruments in `labwright.instruments.sequences.simulated`. Nothing outside
the standard library is imported.
"""

from labwright.instruments.sequences.dilution import dilution_series
from labwright.instruments.sequences.direct_inject import direct_inject
from labwright.instruments.sequences.liquid import rinse, transfer
from labwright.instruments.sequences.temperature import switch_off, temperature_ramp
from labwright.instruments.sequences.waiting import wait

__all__ = ["dilution_series", "direct_inject", "rinse", "switch_off", "temperature_ramp", "transfer", "wait"]
