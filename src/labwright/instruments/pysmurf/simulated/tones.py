"""Commands for resonators and tones of the simulated control object: find them, set tones on them, follow them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labwright.instruments.pysmurf.simulated.detectors import BAND_MHZ, FIRST_BAND_MHZ, Floats, Ints
from labwright.instruments.pysmurf.simulated.machine import HasMachine
from labwright.instruments.pysmurf.simulated.settings import BANDS, CHANNELS

SUBBANDS = 512
STEP_MHZ = 0.02
DEEP = 0.1
FIND_S = 120.0
NOTCHES_S = 180.0
DESCENT_S = 60.0
RELOCK_S = 240.0
TRACKING_S = 20.0
DELAY_S = 60.0
TONE_POWER = 12


class ToneCommands(HasMachine):
    """Resonators, tones and attenuators."""

    _bands = tuple(range(BANDS))
    output_dir: str
    plot_dir: str
    pub: Any

    def _start_tones(self) -> None:
        self.tune_file: str | None = self.machine.hardware.get("tune_file")
        self.freq_resp: dict[int, dict[str, Any]] = {
            band: {"resonances": self._resonances(band), "find_freq": {"resonance": []}} for band in self._bands
        }
        self.amplitude_scale = dict.fromkeys(self._bands, TONE_POWER)

    # --- resonators --------------------------------------------------------------------------------------------------

    def full_band_ampl_sweep(
        self,
        band: int,
        subband: Sequence[int] | Ints,
        tone_power: int = TONE_POWER,
        n_read: int = 2,
        n_step: int | None = None,
        **_options: Any,
    ) -> tuple[Floats, NDArray[np.complex128]]:
        """Measure the transmission over subbands: MHz from the centre and complex response, both (subbands, n)."""
        width = BAND_MHZ / SUBBANDS
        steps = n_step or int(np.ceil(width / STEP_MHZ))
        starts = np.asarray(subband, dtype=float)[:, None] * width - BAND_MHZ / 2
        offsets = starts + np.arange(steps)[None, :] * width / steps
        response = self._transmission(band, offsets.ravel()).reshape(offsets.shape)
        attenuation = 10 ** (-(self.get_att_uc(band) + self.get_att_dc(band)) / 40)
        scatter = self.machine.random.standard_normal((2, *offsets.shape)) * 2e-3 / np.sqrt(max(n_read, 1))
        return offsets, (response + scatter[0] + 1j * scatter[1]) * attenuation * 2.0 ** ((tone_power - TONE_POWER) / 2)

    def find_freq(self, band: int, subband: Any = None, tone_power: int | None = None, **_options: Any) -> Floats:
        """Find the resonators of a band by their dips; gives MHz."""
        self.machine.faults.strike("find_freq")
        subbands = np.arange(SUBBANDS) if subband is None else np.asarray(subband)
        offsets, response = self.full_band_ampl_sweep(band, subbands, tone_power or TONE_POWER)
        self.machine.clock.sleep(FIND_S)
        found = FIRST_BAND_MHZ + BAND_MHZ * band + dips(offsets.ravel(), np.abs(response).ravel())
        self.freq_resp[band]["find_freq"] = {"resonance": found.tolist(), "timestamp": self.get_timestamp()}
        self._save_text(f"amp_sweep_resonance_b{band}.txt", found, "sweep")
        self.log(f"Band {band}: {len(found)} resonators found")
        return found

    def setup_notches(self, band: int, *, tone_power: int | None = None, **_options: Any) -> None:
        """Measure each resonator that was found, assign it a channel, and set a tone on it."""
        self.machine.faults.strike("setup_notches")
        found = np.asarray(self.freq_resp[band]["find_freq"]["resonance"], dtype=float)
        self.machine.clock.sleep(NOTCHES_S)
        resonances = self._measured(band, found)
        self.freq_resp[band]["resonances"] = resonances
        power = tone_power or self.amplitude_scale[band]
        tones = {str(item["channel"]): power for item in resonances.values()}
        centers = {str(item["channel"]): item["offset"] for item in resonances.values()}
        stored = {str(index): item for index, item in resonances.items()}

        def change(state: dict[str, Any]) -> None:
            state["amplitude"][str(band)] = tones
            state["center"][str(band)] = centers
            state["resonances"][str(band)] = stored

        self.machine.hardware.change(change)
        assignment = np.array([[item["freq"], 0, item["channel"], -1] for item in resonances.values()])
        self._save_text(f"channel_assignment_b{band}.txt", assignment, "channel_assignment")
        self.save_tune()

    def run_serial_gradient_descent(self, band: int, **_options: Any) -> None:
        """Move each tone of a band to the bottom of its dip."""
        self.machine.clock.sleep(DESCENT_S)
        self._center_tones(band)

    def run_serial_eta_scan(self, band: int, **_options: Any) -> None:
        """Measure how each tone answers to a shift of its resonator."""
        self.machine.clock.sleep(DESCENT_S)

    def relock(self, band: int, **_options: Any) -> None:
        """Set the tones of a band as the tune says."""
        self.machine.faults.strike("relock")
        self.machine.clock.sleep(RELOCK_S)
        resonances = self.freq_resp[band]["resonances"]
        tones = {str(item["channel"]): self.amplitude_scale[band] for item in resonances.values()}
        self.machine.hardware.change(lambda state: state["amplitude"].update({str(band): tones}))
        self._center_tones(band)

    def tracking_setup(self, band: int, channel: Any = None, **_options: Any) -> tuple[Floats, Floats, Ints]:
        """Follow the resonators through the flux ramp.

        Gives frequencies and errors, (samples, 512) in MHz, and the samples at which a ramp begins.
        """
        self.machine.faults.strike("tracking_setup")
        self.machine.clock.sleep(TRACKING_S)
        samples, periods = 2048, 5
        phase = np.linspace(0, 2 * np.pi * periods, samples)[:, None]
        is_on = self.get_amplitude_scale_array(band) > 0
        frequency = np.where(is_on, 0.05 * np.sin(phase), 0.0)
        error = np.where(is_on, 1.5e-3 * self.machine.random.standard_normal((samples, CHANNELS)), 0.0)
        self.machine.hardware.change(lambda state: state["flux_ramp"].update(is_on=True, fraction=0.4))
        return frequency, error, np.arange(0, samples, samples // periods)

    def estimate_phase_delay(self, band: int, **_options: Any) -> tuple[float, float]:
        """Measure the delay of the cables of a band; gives it in microseconds, and that of the electronics."""
        self.machine.faults.strike("estimate_phase_delay")
        self.machine.clock.sleep(DELAY_S)
        delay = 6.9 + 0.02 * band + float(self.machine.random.normal(0, 0.01))
        return delay, 0.35

    # --- tunes -------------------------------------------------------------------------------------------------------

    def save_tune(self, update_last_tune: bool = True, **_options: Any) -> str:
        """Write the tune into a file, and tell its path."""
        folder = self.machine.settings.data / "smurf_data" / "tune"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.get_timestamp()}_{self.machine.stream_id}_tune.npy"
        np.save(path, self.freq_resp, allow_pickle=True)  # pyright: ignore[reportArgumentType] - numpy boxes it
        self.pub.register_file(str(path), "tune", format="npy")
        self.tune_file = str(path)
        if update_last_tune:
            self.machine.hardware.set(tune_file=self.tune_file)
        return self.tune_file

    def load_tune(self, filename: str | None = None, *, band: Any = None, **_options: Any) -> None:
        """Load the tune of a file, or the newest.

        Raises:
            FileNotFoundError: there is none.
        """
        path = filename or self.machine.hardware.get("tune_file")
        if path is None or not Path(path).exists():
            message = f"no tune file {path}" if path else "no tune file yet: run uxm_setup or setup_notches first"
            raise FileNotFoundError(message)
        tune: dict[int, dict[str, Any]] = np.load(path, allow_pickle=True).item()
        self.freq_resp.update(
            {number: of for number, of in tune.items() if band is None or number in np.atleast_1d(band)}
        )
        self.tune_file = str(path)
        self.log(f"Loading tune: {path}")

    # --- tones -------------------------------------------------------------------------------------------------------

    def which_on(self, band: int) -> Ints:
        """List the channels of a band that have a tone."""
        return np.flatnonzero(self.get_amplitude_scale_array(band))

    def get_amplitude_scale_array(self, band: int, **_options: Any) -> Ints:
        """Tell the power of each channel's tone, 0 for none."""
        return self._by_channel("amplitude", band, int)

    def set_amplitude_scale_array(self, band: int, values: Sequence[int] | Ints, **_options: Any) -> None:
        """Set the power of each channel's tone."""
        tones = {str(channel): int(value) for channel, value in enumerate(values) if value}
        self.machine.hardware.change(lambda state: state["amplitude"].update({str(band): tones}))

    def get_center_frequency_array(self, band: int, **_options: Any) -> Floats:
        """Tell each tone's distance from the middle of its subband, MHz."""
        return self._by_channel("center", band, float)

    def set_center_frequency_array(self, band: int, values: Sequence[float] | Floats, **_options: Any) -> None:
        """Set each tone's distance from the middle of its subband, MHz."""
        centers = {str(channel): float(value) for channel, value in enumerate(values) if value}
        self.machine.hardware.change(lambda state: state["center"].update({str(band): centers}))

    def channel_to_freq(self, band: int, channel: int, **_options: Any) -> float | None:
        """Tell the frequency of a channel's resonator in MHz, None where the tune has none."""
        found = (item["freq"] for item in self.freq_resp[band]["resonances"].values() if item["channel"] == channel)
        return next(found, None)

    def get_band_center_mhz(self, band: int) -> float:
        """Tell the middle of a band."""
        return FIRST_BAND_MHZ + BAND_MHZ * band

    def get_number_channels(self, band: int | None = None) -> int:
        """Tell how many channels a band has."""
        return CHANNELS

    def band_off(self, band: int, **_options: Any) -> None:
        """Switch all tones of a band off."""
        self.set_amplitude_scale_array(band, [0] * CHANNELS)

    def channel_off(self, band: int, channel: int, **_options: Any) -> None:
        """Switch one tone off."""
        tones = self.get_amplitude_scale_array(band)
        tones[channel] = 0
        self.set_amplitude_scale_array(band, tones)

    # --- per band ----------------------------------------------------------------------------------------------------

    def get_att_uc(self, band: int, **_options: Any) -> int:
        """Tell the attenuation on the way up."""
        return int(self.machine.hardware.get("att_uc")[band])

    def get_att_dc(self, band: int, **_options: Any) -> int:
        """Tell the attenuation on the way down."""
        return int(self.machine.hardware.get("att_dc")[band])

    def set_att_uc(self, band: int, value: int, **_options: Any) -> None:
        """Set the attenuation on the way up."""
        self._set_of_band("att_uc", band, int(value))

    def set_att_dc(self, band: int, value: int, **_options: Any) -> None:
        """Set the attenuation on the way down."""
        self._set_of_band("att_dc", band, int(value))

    def set_band_delay_us(self, band: int, value: float | None, **_options: Any) -> None:
        """Set the delay of the cables of a band."""
        self._set_of_band("band_delay_us", band, None if value is None else float(value))

    def get_band_delay_us(self, band: int, **_options: Any) -> float | None:
        """Tell the delay of the cables of a band."""
        delay: float | None = self.machine.hardware.get("band_delay_us")[band]
        return delay

    def set_feedback_enable(self, band: int, value: int, **_options: Any) -> None:
        """Let the tones of a band follow their resonators, or not."""
        self._set_of_band("feedback_enable", band, int(value))

    def get_feedback_enable(self, band: int, **_options: Any) -> int:
        """Tell whether the tones of a band follow their resonators."""
        return int(self.machine.hardware.get("feedback_enable")[band])

    def set_synthesis_scale(self, band: int, value: int, **_options: Any) -> None:
        """Set the scale of the synthesis; it has no part in the simulation."""

    # --- inside ------------------------------------------------------------------------------------------------------

    def _transmission(self, band: int, offsets_mhz: Floats) -> NDArray[np.complex128]:
        """Tell the transmission at frequencies of a band: each resonator takes its Lorentzian out."""
        of = self.machine.detectors
        chosen = of.bands == band
        centers = of.frequency_mhz[chosen]
        frequency = self.get_band_center_mhz(band) + offsets_mhz
        response = np.ones(len(frequency), dtype=complex)
        for center, quality, depth in zip(centers, of.quality[chosen], of.depth[chosen], strict=True):
            near = np.abs(frequency - center) < 40 * center / quality
            response[near] -= depth / (1 + 2j * quality * (frequency[near] - center) / center)
        return response

    def _measured(self, band: int, found: Floats) -> dict[int, dict[str, Any]]:
        of = self.machine.detectors
        indices = np.flatnonzero(of.bands == band)
        resonances: dict[int, dict[str, Any]] = {}
        for number, frequency in enumerate(found.tolist()):
            nearest = indices[np.argmin(np.abs(of.frequency_mhz[indices] - frequency))]
            offset = (frequency - self.get_band_center_mhz(band)) % (BAND_MHZ / SUBBANDS)
            resonances[number] = {
                "freq": frequency,
                "channel": int(of.channels[nearest]),
                "subband": int((frequency - self.get_band_center_mhz(band) + BAND_MHZ / 2) // (BAND_MHZ / SUBBANDS)),
                "offset": offset,
                "eta_phase": float(self.machine.random.uniform(-180, 180)),
                "eta_scaled": float(self.machine.random.normal(0.5, 0.05)),
                "r2": 0.999,
            }
        return resonances

    def _resonances(self, band: int) -> dict[int, dict[str, Any]]:
        stored: dict[str, dict[str, Any]] = self.machine.hardware.get("resonances").get(str(band), {})
        return {int(number): item for number, item in stored.items()}

    def _center_tones(self, band: int) -> None:
        centers = {str(item["channel"]): item["offset"] for item in self.freq_resp[band]["resonances"].values()}
        self.machine.hardware.change(lambda state: state["center"].update({str(band): centers}))

    def _by_channel(self, name: str, band: int, kind: type[Any]) -> NDArray[Any]:
        values = np.zeros(CHANNELS, dtype=kind)
        for channel, value in self.machine.hardware.get(name).get(str(band), {}).items():
            values[int(channel)] = value
        return values

    def _set_of_band(self, name: str, band: int, value: float | None) -> None:
        self.machine.hardware.change(lambda state: state[name].__setitem__(band, value))

    def _save_text(self, name: str, values: Floats, kind: str) -> None:
        path = Path(self.output_dir) / f"{self.get_timestamp()}_{name}"
        np.savetxt(path, values)
        self.pub.register_file(str(path), kind, format="txt")


def dips(positions: Floats, strength: Floats) -> Floats:
    """Find where a transmission has its dips: minima that are a tenth of the usual strength below it."""
    if len(strength) < 3:  # noqa: PLR2004 - a minimum has two neighbours
        return np.array([])
    usual = np.median(strength)
    inner = strength[1:-1]
    is_lowest = (inner <= strength[:-2]) & (inner < strength[2:]) & (inner < usual * (1 - DEEP))
    candidates = np.flatnonzero(is_lowest) + 1
    chosen: list[int] = []
    for index in candidates.tolist():
        if chosen and positions[index] - positions[chosen[-1]] < 10 * STEP_MHZ:
            chosen[-1] = index if strength[index] < strength[chosen[-1]] else chosen[-1]
        else:
            chosen.append(index)
    return positions[chosen]
