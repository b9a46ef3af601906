"""Settings of the simulated SMuRF, all from the environment of the script.

| variable | default | meaning |
|---|---|---|
| `LABWRIGHT_SMURF_DATA` | a folder `labwright-smurf-<user>` for temporary files | stands for `/data`: holds `smurf_data`, `so/timestreams`, and the machine's state |
| `LABWRIGHT_SMURF_SPEED` | 100 | how much faster than life its waits are |
| `LABWRIGHT_SMURF_SEED` | 0 | with the stream id, decides every detector |
| `LABWRIGHT_SMURF_RESONATORS` | 128 | resonators in each of the eight bands, up to 512 |
| `LABWRIGHT_SMURF_STREAM_ID` | crate1slot and the slot | names the card where `sys_config.yml` does not |
| `LABWRIGHT_SMURF_FAULTS` | none | see `faults` |
"""  # noqa: E501 - a table has long rows

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BANDS = 8
CHANNELS = 512
BIAS_LINES = 15
BIAS_GROUPS = 12


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the environment says."""

    data: Path
    speed: float = 100.0
    seed: int = 0
    resonators: int = 128
    faults: str = ""

    @classmethod
    def of(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment.

        Raises:
            ValueError: a number is none, or out of range.
        """
        environ = os.environ if environ is None else environ
        resonators = int(environ.get("LABWRIGHT_SMURF_RESONATORS") or 128)
        speed = float(environ.get("LABWRIGHT_SMURF_SPEED") or 100)
        if not (0 <= resonators <= CHANNELS and speed > 0):
            message = "LABWRIGHT_SMURF_RESONATORS is 0 to 512, LABWRIGHT_SMURF_SPEED above zero"
            raise ValueError(message)
        default = Path(tempfile.gettempdir()) / f"labwright-smurf-{os.getuid()}"
        return cls(
            data=Path(environ.get("LABWRIGHT_SMURF_DATA") or default),
            speed=speed,
            seed=int(environ.get("LABWRIGHT_SMURF_SEED") or 0),
            resonators=resonators,
            faults=environ.get("LABWRIGHT_SMURF_FAULTS", ""),
        )
