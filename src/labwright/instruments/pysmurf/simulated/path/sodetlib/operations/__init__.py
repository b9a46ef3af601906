"""The operations of the simulated SMuRF under sodetlib's name."""
