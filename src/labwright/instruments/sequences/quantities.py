"""Numbers with units that a person may have got wrong, refused before anything moves."""

from __future__ import annotations

import math

from labwright.core.errors import UsageError


def finite(value: float, what: str, unit: str) -> float:
    """Return a finite number.

    Raises:
        UsageError: it is none.
    """
    if not _is_finite(value):
        raise UsageError(
            f"{what} cannot be {value!r}", because=f"it is a finite number of {unit}", cure=f"give it in {unit}"
        )
    return float(value)


def positive(value: float, what: str, unit: str) -> float:
    """Return a finite number above zero.

    Raises:
        UsageError: it is none.
    """
    if not _is_finite(value) or value <= 0:
        raise UsageError(
            f"{what} cannot be {value!r}",
            because=f"it is a finite number of {unit}, more than 0",
            cure=f"give it in {unit}",
        )
    return float(value)


def whole(value: int, what: str) -> int:
    """Return a whole number from 1.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:  # pyright: ignore[reportUnnecessaryIsInstance] - users' scripts are not typed
        raise UsageError(
            f"{what} cannot be {value!r}", because="it is a whole number, 1 or more", cure="write it like 3"
        )
    return value


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
