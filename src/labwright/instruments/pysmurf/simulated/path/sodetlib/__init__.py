"""The functions of the simulated SMuRF under sodetlib's name."""

from labwright.instruments.pysmurf.publisher import set_action
from labwright.instruments.pysmurf.simulated.config import DetConfig
from labwright.instruments.pysmurf.simulated.operations import noise
from labwright.instruments.pysmurf.simulated.operations.bias_steps import load_bgmap
from labwright.instruments.pysmurf.simulated.operations.biasing import overbias_dets
from labwright.instruments.pysmurf.simulated.operations.outputs import get_metadata, make_filename, validate_and_save
from labwright.instruments.pysmurf.simulated.operations.session import (
    pub_ocs_data,
    pub_ocs_log,
    set_session_data,
    stop_point,
)
from labwright.instruments.pysmurf.simulated.operations.stream import (
    load_session,
    stream_g3_off,
    stream_g3_on,
    take_g3_data,
)
from labwright.instruments.pysmurf.simulated.registers import Registers

__version__ = "simulated"
__all__ = [
    "DetConfig",
    "Registers",
    "get_metadata",
    "load_bgmap",
    "load_session",
    "make_filename",
    "noise",
    "overbias_dets",
    "pub_ocs_data",
    "pub_ocs_log",
    "set_action",
    "set_session_data",
    "stop_point",
    "stream_g3_off",
    "stream_g3_on",
    "take_g3_data",
    "validate_and_save",
]
