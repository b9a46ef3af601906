"""What scripts take from sodetlib's `util`."""

from labwright.instruments.pysmurf.simulated.operations.outputs import get_metadata, make_filename, validate_and_save
from labwright.instruments.pysmurf.simulated.operations.session import set_session_data, stop_point
from labwright.instruments.pysmurf.simulated.registers import Registers

__all__ = ["Registers", "get_metadata", "make_filename", "set_session_data", "stop_point", "validate_and_save"]
