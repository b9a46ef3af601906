"""The setup from scratch under sodetlib's name."""

from labwright.instruments.pysmurf.simulated.operations.setup import (
    estimate_uc_dc_atten,
    setup_amps,
    setup_phase_delay,
    setup_tune,
    uxm_setup,
)

__all__ = [
    "estimate_uc_dc_atten",
    "setup_amps",
    "setup_phase_delay",
    "setup_tune",
    "uxm_setup",
]
