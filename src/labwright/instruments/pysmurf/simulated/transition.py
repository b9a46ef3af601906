"""Superconducting transitions: the current through each sensor at a bias current.

A sensor in steady state is as warm as its electrical power makes it against the bath, P = K (T^n - Tb^n) with n = 3.5,
and its resistance follows its temperature, R(T) = Rn / 2 (1 + tanh((T - Tc) / w)). The bias current splits between the
shunt and the sensor with its parasitic resistance. Where too little bias flows to keep the sensor warm, it is
superconducting. See K. D. Irwin and G. C. Hilton, Transition-Edge Sensors, Topics Appl. Phys. 99 (2005), section 3.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from labwright.instruments.pysmurf.simulated.detectors import R_SHUNT, Detectors, Floats

EXPONENT = 3.5
SATURATED = 0.9
"""The part of the normal resistance at which the saturation power is defined."""
POINTS = 400


class Transitions:
    """The curves of all detectors, ready to be asked."""

    def __init__(self, of: Detectors) -> None:
        self._of = of
        in_transition = np.tanh(np.linspace(-3.5, 3.5, POINTS))[None, :]
        column = np.newaxis
        resistance = of.r_normal[:, column] / 2 * (1 + in_transition)
        temperature = of.t_critical[:, column] + of.t_width[:, column] * np.arctanh(in_transition)
        power = self._conductance()[:, column] * (temperature**EXPONENT - of.t_bath**EXPONENT)
        current = np.sqrt(power / resistance)
        self._bias = current * (R_SHUNT + of.r_parasitic[:, column] + resistance) / R_SHUNT
        self._current = current
        self._lowest = np.argmin(self._bias, axis=1)

    def currents(self, bias: Floats) -> Floats:
        """Give the current through each sensor, (detectors, points) in A, coming from the normal state.

        `bias` is the current of each detector's line, (detectors, points) in A, or one row for all.
        """
        of, lines = self._of, np.broadcast_to(bias, (self._of.count, np.shape(bias)[-1]))
        normal = lines * R_SHUNT / (R_SHUNT + of.r_parasitic + of.r_normal)[:, None]
        superconducting = lines * R_SHUNT / (R_SHUNT + of.r_parasitic)[:, None]
        found = np.empty_like(lines)
        for index in range(of.count):
            start = self._lowest[index]
            curve = self._bias[index, start:]
            size = np.abs(lines[index])
            inside = np.sign(lines[index]) * _between(size, curve, self._current[index, start:])
            is_normal, is_superconducting = size > curve[-1], size < curve[0]
            found[index] = np.where(is_normal, normal[index], inside)
            found[index, is_superconducting] = superconducting[index, is_superconducting]
        return found

    def _conductance(self) -> Floats:
        """Choose K so that the power at 90 % of the normal resistance is the saturation power."""
        of = self._of
        saturated = of.t_critical + of.t_width * np.arctanh(2 * SATURATED - 1)
        return of.p_sat / (saturated**EXPONENT - of.t_bath**EXPONENT)


def _between(at: Floats, bias: Floats, current: Floats) -> Floats:
    return cast("Floats", np.interp(at, bias, current))
