"""Which voltage each bias group is to have, from the ways in which it may be asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labwright.core.errors import ParameterError

GROUPS = 12
LINES = 15
"""Bias lines that a card has; detectors hang on the first twelve."""


def biases_by_group(bias: float | Sequence[float], groups: int | Sequence[int] | None) -> dict[str, float]:
    """Give each group's voltage (V): one for all of them, or as many as there are groups.

    >>> biases_by_group([1.0, 2.5], [0, 3])
    {'0': 1.0, '3': 2.5}

    Raises:
        ParameterError: the numbers differ, a group does not exist or stands twice, or a voltage is not finite.
    """
    chosen = range(GROUPS) if groups is None else (groups,) if isinstance(groups, int) else tuple(groups)
    biases = [bias] * len(chosen) if isinstance(bias, int | float) else list(bias)
    findings = [f"bgs: there is no bias group {group}; they are 0 to {LINES - 1}" for group in chosen if _is_odd(group)]
    if len(set(chosen)) < len(chosen):
        findings.append("bgs: a bias group stands twice")
    if len(biases) != len(chosen):
        findings.append(f"bias: {len(biases)} biases for {len(chosen)} bias groups")
    findings += [f"bias: {value!r} is no voltage" for value in biases if not math.isfinite(value)]
    if findings:
        raise ParameterError("the biases do not fit", findings=tuple(findings), cure="give one bias for each group")
    return {str(group): float(value) for group, value in zip(chosen, biases, strict=True)}


def _is_odd(group: int) -> bool:
    return not 0 <= group < LINES
