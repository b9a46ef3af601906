"""The simulated control object, which scripts call `S`: pysmurf's `SmurfControl`, as far as common scripts need it."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labwright.instruments.pysmurf.simulated.biases import BiasCommands, CryoCard
from labwright.instruments.pysmurf.simulated.machine import Machine
from labwright.instruments.pysmurf.simulated.registers import ADDRESSES, read_register, write_register
from labwright.instruments.pysmurf.simulated.settings import BANDS, BIAS_LINES
from labwright.instruments.pysmurf.simulated.streaming import StreamCommands
from labwright.instruments.pysmurf.simulated.tones import ToneCommands

DEFAULT_STREAM = "crate1slot2"


class SmurfControl(BiasCommands, ToneCommands, StreamCommands):
    """Controls one simulated card; `data_path_id` is its stream id.

    Outputs go to `<data>/smurf_data/<yyyymmdd>/<stream id>/<epoch seconds>/outputs` and `plots`. With `no_dir` or
    `offline` no folders are made.
    """

    LOG_USER = "user"
    LOG_ERROR = "error"
    LOG_INFO = "info"

    def __init__(
        self,
        epics_root: str | None = None,
        cfg_file: str | None = None,
        data_dir: str | None = None,
        name: str | None = None,
        *,
        data_path_id: str | None = None,
        offline: bool = False,
        no_dir: bool = False,
        **_options: Any,
    ) -> None:
        self.epics_root = epics_root or "smurf_server"
        self.offline = offline
        self.machine = Machine(data_path_id or DEFAULT_STREAM)
        self.pub = self.machine.pub
        self.C = CryoCard(self.machine)
        self._ocs_session: Any = None
        self._sodetlib_cfg: Any = None
        now = datetime.now(UTC)
        self.date = now.strftime("%Y%m%d")
        self.name = name or self.get_timestamp()
        self.start_time = self.name
        self.base_dir = str(Path(data_dir) if data_dir else self.machine.settings.data / "smurf_data")
        folder = Path(self.base_dir) / self.date / self.machine.stream_id / self.name
        self.output_dir, self.plot_dir = str(folder / "outputs"), str(folder / "plots")
        if not (offline or no_dir):
            Path(self.output_dir).mkdir(parents=True, exist_ok=True)
            Path(self.plot_dir).mkdir(parents=True, exist_ok=True)
        self.machine.faults.strike("control")
        self._start_tones()

    def log(self, text: object, level: object = LOG_USER) -> None:
        """Say a line on standard output, with the time before it."""
        sys.stdout.write(f"[ {datetime.now(UTC):%Y-%m-%d %H:%M:%S} ]  {text}\n")
        sys.stdout.flush()

    def get_timestamp(self, **_options: Any) -> str:
        """Tell the time, whole epoch seconds as text."""
        return str(int(time.time()))

    def all_off(self) -> None:
        """Switch tones, flux ramp and biases off."""
        for band in range(BANDS):
            self.band_off(band)
        self.flux_ramp_off()
        self.set_tes_bias_bipolar_array([0.0] * BIAS_LINES)

    def _caget(self, address: str, **_options: Any) -> Any:
        self.machine.faults.strike("register")
        return read_register(self.machine.hardware, address.removeprefix(f"{self.epics_root}:"))

    def _caput(self, address: str, value: Any, **_options: Any) -> None:
        name = address.removeprefix(f"{self.epics_root}:")
        is_change = name == ADDRESSES["open_g3stream"] and bool(value) != bool(
            read_register(self.machine.hardware, name)
        )
        write_register(self.machine.hardware, name, value)
        if is_change and value:
            self.open_stream()
        elif is_change:
            self.close_stream()
