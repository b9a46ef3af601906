"""Commands for streams and the flux ramp of the simulated control object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labwright.instruments.pysmurf.publisher import set_action
from labwright.instruments.pysmurf.simulated.biases import BiasCommands
from labwright.instruments.pysmurf.simulated.detectors import Floats, Ints
from labwright.instruments.pysmurf.simulated.detectors import chosen as chosen_of
from labwright.instruments.pysmurf.simulated.machine import HasMachine
from labwright.instruments.pysmurf.simulated.registers import ADDRESSES, read_register, write_register
from labwright.instruments.pysmurf.simulated.settings import BANDS, CHANNELS
from labwright.instruments.pysmurf.simulated.spectra import noise
from labwright.instruments.pysmurf.simulated.streams import (
    FILE_S,
    MOST_BYTES,
    AxisManager,
    ChannelInfo,
    stream_folder,
    write_stream,
)

RAMP_HZ = 4000.0
PA_PER_PHI0 = 9e6
CHUNK = 128


class StreamCommands(HasMachine):
    """Streams, their registers, and the flux ramp."""

    pA_per_phi0 = PA_PER_PHI0
    output_dir: str
    pub: Any

    # --- what streams ------------------------------------------------------------------------------------------------

    def streaming(self) -> NDArray[np.bool_]:
        """Tell which detectors have a tone. Not a command of the real object."""
        of = self.machine.detectors
        amplitudes: dict[str, dict[str, int]] = self.machine.hardware.get("amplitude")
        tones = np.zeros((BANDS, CHANNELS), dtype=bool)
        for band, channels in amplitudes.items():
            tones[int(band), [int(channel) for channel in channels]] = True
        return tones[of.bands, of.channels]

    def rate_hz(self) -> float:
        """Tell how many samples a stream has in a second. Not a command of the real object."""
        return RAMP_HZ / self.get_downsample_factor()

    def measure(self, seconds: float, bias: Floats, *, at: float, tags: tuple[str, ...] = ()) -> AxisManager:
        """Take samples of all detectors that have a tone, at a steady bias. Not a command of the real object.

        `bias` is the current in each detector's line, A. Gives radians.

        Raises:
            RuntimeError: no detector has a tone.
        """
        of, chosen = self.machine.detectors, np.flatnonzero(self.streaming())
        if not len(chosen):
            message = "no channel has a tone, so there is nothing to stream: run uxm_setup or relock first"
            raise RuntimeError(message)
        rate = self.rate_hz()
        samples = max(2, round(seconds * rate))
        steady = self.machine.transitions.currents(bias[:, None])[chosen, 0]
        signal = np.empty((len(chosen), samples), dtype=np.float32)
        for start in range(0, len(chosen), CHUNK):
            rows = slice(start, start + CHUNK)
            part = noise(chosen_of(of, chosen[rows]), samples, rate, self.machine.random) + steady[rows, None]
            signal[rows] = part * of.polarity[chosen[rows], None] / amperes_per_radian()
        return AxisManager(
            timestamps=at + np.arange(samples) / rate,
            signal=signal,
            ch_info=ChannelInfo(band=of.bands[chosen], channel=of.channels[chosen]),
            tags=tags,
        )

    # --- g3 streams --------------------------------------------------------------------------------------------------

    def open_stream(self) -> int:
        """Begin a stream session, as the streamer does when its register is set. Not a command of the real object."""

        def begin(state: dict[str, Any]) -> None:
            session = max(int(self.get_timestamp()), state["newest_session"] + 1)
            state["newest_session"] = session
            state["registers"][ADDRESSES["g3_session_id"]] = session
            state["registers"][ADDRESSES["g3_filepath"]] = str(self._stream_file(session, 0))
            state["stream_since"] = self.machine.clock.time()

        self.machine.hardware.change(begin)
        session = int(read_register(self.machine.hardware, ADDRESSES["g3_session_id"]))
        self._stream_file(session, 0).parent.mkdir(parents=True, exist_ok=True)
        return session

    def close_stream(self, volts: Floats | None = None) -> None:
        """End the stream session: its files are written and announced. Not a command of the real object."""
        hardware = self.machine.hardware
        session = int(read_register(hardware, ADDRESSES["g3_session_id"]))
        if session and self.streaming().any():
            self._write_files(session, volts)
        write_register(hardware, ADDRESSES["g3_session_id"], 0)

    def _write_files(self, session: int, volts: Floats | None) -> None:
        begun = float(self.machine.hardware.get("stream_since"))
        taken_s = max(1 / self.rate_hz(), self.machine.clock.time() - begun)
        commands = self if isinstance(self, BiasCommands) else None
        bias = commands.bias_currents(volts) if commands else np.zeros(self.machine.detectors.count)
        tags = tuple(str(read_register(self.machine.hardware, ADDRESSES["stream_tag"])).split(","))
        most_s = MOST_BYTES / 4 / max(1, int(self.streaming().sum())) / self.rate_hz()
        for number, start in enumerate(np.arange(0, taken_s, FILE_S).tolist()):
            length = min(FILE_S, taken_s - start)
            stream = self.measure(min(length, most_s), bias, at=begun + start, tags=tags)
            path = self._stream_file(session, number)
            about = {"stream_id": self.machine.stream_id, "session_id": session, "action": self.pub._action}
            write_stream(path, stream, rate_hz=self.rate_hz(), about=about, samples=round(length * self.rate_hz()))
            self._announce(path, begun + start)

    def _announce(self, path: Path, at: float) -> None:
        pub = self.pub
        payload = {
            "path": str(path),
            "type": "g3",
            "format": "g3",
            "timestamp": at,
            "action": pub._action,
            "action_ts": pub._action_ts,
            "plot": False,
            "archive_name": "timestreams",
        }
        pub.publish(payload, "g3_file")

    def _stream_file(self, session: int, number: int) -> Path:
        folder = stream_folder(self.machine.timestreams, self.machine.stream_id, session)
        return folder / f"{session}_{number:03}.g3"

    # --- pysmurf's own streams ---------------------------------------------------------------------------------------

    def stream_data_on(self, **_options: Any) -> str:
        """Let data flow; gives the path of the file that `stream_data_off` writes."""
        path = str(Path(self.output_dir) / f"{self.get_timestamp()}.dat")
        self.machine.hardware.set(data_file=path, data_since=self.machine.clock.time())
        return path

    def stream_data_off(self, **_options: Any) -> None:
        """Stop the flow of data."""
        self.machine.hardware.set(data_file=None)

    @set_action()
    def take_stream_data(self, meas_time: float, **_options: Any) -> str:
        """Take data for so many seconds, and give the path of their file; `streams` tells its format."""
        path = self.stream_data_on()
        at = self.machine.clock.time()
        self.machine.clock.sleep(meas_time)
        bias = self.bias_currents() if isinstance(self, BiasCommands) else np.zeros(self.machine.detectors.count)
        stream = self.measure(meas_time, bias, at=at)
        write_stream(Path(path), stream, rate_hz=self.rate_hz(), about={}, samples=stream.signal.shape[1])
        self.stream_data_off()
        self.pub.register_file(path, "data", format="dat")
        return path

    # --- settings of streams -----------------------------------------------------------------------------------------

    def get_channel_mask(self, **_options: Any) -> Ints:
        """List the channels that stream, counted over all bands."""
        self.machine.faults.strike("register")
        of, chosen = self.machine.detectors, self.streaming()
        return of.bands[chosen] * CHANNELS + of.channels[chosen]

    def get_downsample_factor(self, **_options: Any) -> int:
        """Tell how many ramps make one sample."""
        return int(self.machine.hardware.get("downsample_factor"))

    def set_downsample_factor(self, factor: int, **_options: Any) -> None:
        """Set how many ramps make one sample."""
        self.machine.hardware.set(downsample_factor=max(1, int(factor)))

    def set_downsample_mode(self, mode: str, **_options: Any) -> None:
        """Set how samples are triggered; it has no part in the simulation."""
        self.machine.hardware.set(downsample_mode=str(mode))

    def set_downsample_filter(self, order: int, cutoff: float, **_options: Any) -> None:
        """Set the filter before downsampling; it has no part in the simulation."""

    def get_filter_disable(self, **_options: Any) -> int:
        """Tell whether the filter is off."""
        return int(self.machine.hardware.get("filter_disable"))

    def set_filter_disable(self, value: int, **_options: Any) -> None:
        """Switch the filter off or on."""
        self.machine.hardware.set(filter_disable=int(value))

    def set_stream_enable(self, value: int, **_options: Any) -> None:
        """Let the electronics stream; it has no part in the simulation."""

    # --- flux ramp ---------------------------------------------------------------------------------------------------

    def flux_ramp_setup(self, reset_rate_khz: float, fraction_full_scale: float, **_options: Any) -> None:
        """Set rate and height of the flux ramp, and start it."""
        ramp = {"rate_khz": float(reset_rate_khz), "is_on": True, "fraction": float(fraction_full_scale)}
        self.machine.hardware.change(lambda state: state["flux_ramp"].update(ramp))

    def flux_ramp_on(self, **_options: Any) -> None:
        """Start the flux ramp."""
        self.machine.hardware.change(lambda state: state["flux_ramp"].update(is_on=True))

    def flux_ramp_off(self, **_options: Any) -> None:
        """Stop the flux ramp."""
        self.machine.hardware.change(lambda state: state["flux_ramp"].update(is_on=False))

    def get_flux_ramp_freq(self, **_options: Any) -> float:
        """Tell the rate of the flux ramp in kHz."""
        return float(self.machine.hardware.get("flux_ramp")["rate_khz"])

    def get_fraction_full_scale(self, **_options: Any) -> float:
        """Tell the height of the flux ramp."""
        return float(self.machine.hardware.get("flux_ramp")["fraction"])

    def set_fixed_flux_ramp_bias(self, fractional_amplitude: float, **_options: Any) -> None:
        """Stop the flux ramp at a height."""
        fixed = {"is_on": False, "fixed_bias": float(fractional_amplitude)}
        self.machine.hardware.change(lambda state: state["flux_ramp"].update(fixed))

    def set_mode_dc(self) -> None:
        """Couple the flux ramp directly; it has no part in the simulation."""

    def set_mode_ac(self) -> None:
        """Couple the flux ramp by a capacitor; it has no part in the simulation."""

    def set_rtm_arb_waveform_enable(self, value: int, **_options: Any) -> None:
        """Play a waveform on bias lines; it has no part in the simulation."""


def amperes_per_radian() -> float:
    """Tell what a radian of the readout means in A."""
    return PA_PER_PHI0 * 1e-12 / (2 * np.pi)
