"""Commands for bias lines and amplifiers of the simulated control object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from labwright.instruments.pysmurf.publisher import set_action
from labwright.instruments.pysmurf.simulated.detectors import R_SHUNT, UNASSIGNED, Floats
from labwright.instruments.pysmurf.simulated.machine import HasMachine, Machine
from labwright.instruments.pysmurf.simulated.settings import BIAS_GROUPS, BIAS_LINES

MOST_VOLT = 20.0
HIGH_LOW_RATIO = 6.08
LINE_OHM = 16_400.0
AMPLIFIERS = {  # name: (gate voltage where the current begins, mA per volt)
    "hemt": (-1.1, 30.0),
    "50k": (-0.78, 60.0),
}


class CryoCard:
    """The card that feeds the amplifiers and switches the relays."""

    list_of_c02_amps = tuple(AMPLIFIERS)
    list_of_c04_amps = ("hemt1", "hemt2", "50k1", "50k2")
    list_of_c02_and_c04_amps = list_of_c02_amps + list_of_c04_amps

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def get_fw_version(self) -> tuple[int, int, int]:
        """Tell the version of its firmware: that of the older card."""
        return 2, 2, 2

    def write_ps_en(self, enables: int) -> None:
        """Switch the amplifiers' supplies, a bit for each."""
        self._machine.hardware.set(power_supply=int(enables))

    def read_ps_en(self) -> int:
        """Tell which supplies are on."""
        return int(self._machine.hardware.get("power_supply"))

    def write_optical(self, enables: int) -> None:
        """Switch the amplifiers at room temperature; they have no part in the simulation."""

    def read_temperature(self) -> float:
        """Tell the card's temperature in degrees Celsius."""
        return 31.5


class BiasCommands(HasMachine):
    """Bias lines, relays and amplifiers."""

    R_sh = R_SHUNT
    high_low_current_ratio = HIGH_LOW_RATIO
    bias_line_resistance = LINE_OHM
    _n_bias_groups = BIAS_LINES
    _rtm_slow_dac_bit_to_volt = 10 / 2**19
    _bias_group_to_pair = np.array([[line, 2 * line + 1, 2 * line + 2] for line in range(BIAS_LINES)])

    # --- bias lines --------------------------------------------------------------------------------------------------

    def get_tes_bias_bipolar(self, bias_group: int, **_options: Any) -> float:
        """Tell the voltage of a line."""
        return float(self.machine.hardware.get("tes_bias")[bias_group])

    def get_tes_bias_bipolar_array(self, **_options: Any) -> Floats:
        """Tell the voltages of all lines."""
        return np.array(self.machine.hardware.get("tes_bias"), dtype=float)

    def set_tes_bias_bipolar(self, bias_group: int, volts: float, **_options: Any) -> None:
        """Set the voltage of a line."""
        biases = self.get_tes_bias_bipolar_array()
        biases[bias_group] = volts
        self.set_tes_bias_bipolar_array(biases)

    def set_tes_bias_bipolar_array(self, volts: Sequence[float] | Floats, **_options: Any) -> None:
        """Set the voltages of all lines; beyond 20 V they are cut, as the converter does.

        Raises:
            ValueError: there are not as many as lines, or one is not finite.
        """
        wanted = np.asarray(volts, dtype=float)
        if wanted.shape not in {(BIAS_LINES,), (BIAS_GROUPS,)} or not np.isfinite(wanted).all():
            message = f"{BIAS_LINES} finite voltages are needed, not {wanted.tolist()}"
            raise ValueError(message)
        if np.abs(wanted).max() > MOST_VOLT:
            self.log(f"Biases beyond {MOST_VOLT} V are cut: {wanted.tolist()}", "error")
        cut = np.clip(wanted, -MOST_VOLT, MOST_VOLT)
        self.machine.hardware.change(lambda state: state["tes_bias"].__setitem__(slice(len(cut)), cut.tolist()))

    def set_tes_bias_high_current(self, bias_group: int | Sequence[int], **_options: Any) -> None:
        """Take the filter out of lines, so that a volt drives more current."""
        self._switch_relays(bias_group, is_high=True)

    def set_tes_bias_low_current(self, bias_group: int | Sequence[int], **_options: Any) -> None:
        """Put the filter back into lines."""
        self._switch_relays(bias_group, is_high=False)

    def get_cryo_card_relays(self) -> int:
        """Tell which lines are in high-current mode, a bit for each."""
        return sum(1 << line for line, is_high in enumerate(self.machine.hardware.get("high_current")) if is_high)

    def bias_currents(self, volts: Floats | None = None) -> Floats:
        """Tell the current in each detector's line, A; zero where it hangs on none. Not a command of pysmurf."""
        volts = self.get_tes_bias_bipolar_array() if volts is None else volts
        ratio = np.where(self.machine.hardware.get("high_current"), HIGH_LOW_RATIO, 1.0)
        group = self.machine.detectors.bias_group
        return np.where(group == UNASSIGNED, 0.0, (volts * ratio / LINE_OHM)[group])

    @set_action()
    def overbias_tes_all(
        self,
        bias_groups: Sequence[int] | None = None,
        overbias_voltage: float = 19.9,
        overbias_wait: float = 5.0,
        tes_bias: float = 19.9,
        cool_wait: float = 20.0,
        *,
        high_current_mode: bool = True,
        **_options: Any,
    ) -> None:
        """Drive detectors normal, then go to a bias and let them cool."""
        groups = np.arange(BIAS_GROUPS) if bias_groups is None else np.atleast_1d(np.asarray(bias_groups, dtype=int))
        biases = self.get_tes_bias_bipolar_array()
        self.set_tes_bias_high_current(groups.tolist())
        biases[groups] = overbias_voltage
        self.set_tes_bias_bipolar_array(biases)
        self.log(f"Driving high current through TES. Waiting {overbias_wait} s")
        self.machine.clock.sleep(overbias_wait)
        if not high_current_mode:
            self.set_tes_bias_low_current(groups.tolist())
        biases[groups] = tes_bias
        self.set_tes_bias_bipolar_array(biases)
        self.log(f"Waiting {cool_wait} s to cool")
        self.machine.clock.sleep(cool_wait)

    def overbias_tes(self, bias_group: int, **options: Any) -> None:
        """Drive the detectors of one line normal."""
        self.overbias_tes_all([bias_group], **options)

    def _switch_relays(self, bias_group: int | Sequence[int], *, is_high: bool) -> None:
        def switch(state: dict[str, Any]) -> None:
            for line in np.atleast_1d(np.asarray(bias_group, dtype=int)):
                state["high_current"][int(line)] = is_high

        self.machine.hardware.change(switch)

    # --- amplifiers --------------------------------------------------------------------------------------------------

    def get_amplifier_biases(self, **_options: Any) -> dict[str, float]:
        """Tell gate voltages (V) and drain currents (mA) of the amplifiers."""
        self.machine.faults.strike("register")
        amplifiers = self.machine.hardware.get("amplifiers")
        found: dict[str, float] = {}
        for name, (begins, slope) in AMPLIFIERS.items():
            gate = float(amplifiers[name]["gate_volt"])
            current = max(0.0, slope * (gate - begins)) if self.machine.hardware.get("power_supply") else 0.0
            found[f"{name}_gate_volt"] = gate
            found[f"{name}_drain_current"] = 0.4 if self.machine.faults.value("amps") is not None else current
        return found

    def set_amp_gate_voltage(self, amp: str, voltage: float, **_options: Any) -> None:
        """Set the gate voltage of an amplifier."""
        self.machine.hardware.change(lambda state: state["amplifiers"][amp].update(gate_volt=float(voltage)))

    def set_hemt_gate_voltage(self, voltage: float, **_options: Any) -> None:
        """Set the gate voltage of the amplifier at 4 K."""
        self.set_amp_gate_voltage("hemt", voltage)

    def set_50k_amp_gate_voltage(self, voltage: float, **_options: Any) -> None:
        """Set the gate voltage of the amplifier at 50 K."""
        self.set_amp_gate_voltage("50k", voltage)
