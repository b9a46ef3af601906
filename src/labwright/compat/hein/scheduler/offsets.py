"""Where time points come to stand when they are inserted: by hein_control's documentation, and by its code.

The two differ for points that are put between others: the code sorts them in first and then moves whatever stands at
the later places, at times the new points themselves.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from labwright.compat.hein.errors import WrongValueError

END = -1
PAIR = 2


@dataclass(frozen=True, kw_only=True)
class Insertion:
    """New points, by their seconds after the start, and by how much those from `position` on move."""

    offsets: tuple[float, ...]
    position: int
    shift_s: float


def insertion(
    known: Sequence[float], time_delta: object, *, position: int, relative_to: str, shift: bool, count: object
) -> Insertion:
    """Place new points among those that are known, each `time_delta` seconds after the one before.

    >>> insertion([5.0, 10.0], 2, position=1, relative_to="previous", shift=True, count=1)
    Insertion(offsets=(7.0,), position=1, shift_s=2.0)

    Raises:
        WrongValueError: a number will not do, or there is no such place.
    """
    delta = checked_delta(time_delta)
    number = _checked_number(count)
    place = len(known) if position == END else position
    if not 0 <= place <= len(known):
        raise WrongValueError(
            f"there is no position {position} among {len(known)} time points",
            because="positions are numbered from 0, and -1 is the end",
            cure=f"choose one up to {len(known)}",
        )
    before = known[place - 1] if _is_relative_to_previous(relative_to) and place else 0.0
    offsets = tuple(before + (each + 1) * delta for each in range(number))
    if min(offsets) < 0:
        raise WrongValueError(
            f"a time point cannot be {min(offsets):g} s after the start",
            because="nothing can be done before the sequence starts",
            cure="give a number of seconds from 0",
        )
    return Insertion(offsets=offsets, position=place, shift_s=number * delta if shift else 0.0)


def meant(known: Sequence[float], new: Insertion) -> list[float]:
    """Give the offsets of all points as the documentation has them."""
    later = [each + new.shift_s for each in known[new.position :]]
    return sorted([*known[: new.position], *new.offsets, *later])


def literal(known: Sequence[float], new: Insertion) -> list[float]:
    """Give the offsets of all points as hein_control's code has them."""
    all_of_them = list(known)
    for offset in new.offsets:
        bisect.insort(all_of_them, offset)
    first = new.position + len(new.offsets)
    return sorted([*all_of_them[:first], *(each + new.shift_s for each in all_of_them[first:])])


def spacings(pairs: Sequence[object]) -> Iterator[float]:
    """Give the seconds before each point of pairs of how many and how far apart: `3, 10, 5, 20` or `(3, 10), (5, 20)`.

    >>> list(spacings([2, 10, 1, 20]))
    [10.0, 10.0, 20.0]

    Raises:
        WrongValueError: these are no such pairs.
    """
    for pair in _paired(pairs):
        if len(pair) != PAIR:
            raise _no_pairs(pairs)
        number, time_delta = pair
        yield from [checked_delta(time_delta)] * _checked_number(number)


def checked_delta(value: object) -> float:
    """Return a finite number of seconds.

    Raises:
        WrongValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WrongValueError(
            f"a time point cannot be at {value!r}",
            because="its time_delta is a finite number of seconds",
            cure="give it in seconds, such as 60",
        )
    return float(value)


def _paired(given: Sequence[Any]) -> Sequence[Sequence[Any]]:
    if given and all(isinstance(each, tuple | list) for each in given):
        return given
    if not given or len(given) % PAIR:
        raise _no_pairs(given)
    return [given[place : place + PAIR] for place in range(0, len(given), PAIR)]


def _no_pairs(given: object) -> WrongValueError:
    return WrongValueError(
        f"{given!r} are no pairs",
        because="a pair is how many points and how many seconds apart",
        cure="write 3, 10, 5, 20 or (3, 10), (5, 20)",
    )


def _checked_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise WrongValueError(
            f"there cannot be {value!r} time points",
            because="the number of points is a whole number from 1",
            cure="leave the insertion out where there are none",
        )
    return value


def _is_relative_to_previous(relative_to: object) -> bool:
    match str(relative_to).lower():
        case "previous":
            return True
        case "start":
            return False
        case _:
            raise WrongValueError(
                f"points cannot be relative to {relative_to!r}",
                because="they are relative to the start of the sequence or to the point before",
                cure="say relative_to='start' or relative_to='previous'",
            )
