"""Summaries of arrays of many detectors: quantiles without NaN, counts by bias group, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

QUANTILES = (10, 25, 50, 75, 90)
"""The quantiles of a record, in percent."""
BIAS_GROUPS = 12
"""Bias lines that have detectors."""
BANDS = 8
MOST_NUMBERS = 10_000
"""An array of more is not told, only its shape: it lies in a file."""


def numbers(values: Any) -> list[float]:
    """Give an array's or a nested list's numbers in one flat list, NaN among them."""
    plain = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(plain, list | tuple):
        return [number for value in cast("Sequence[Any]", plain) for number in numbers(value)]
    return [math.nan if plain is None else float(plain)]


def quantile_record(name: str, values: Any, quantiles: Sequence[int] = QUANTILES) -> dict[str, Any]:
    """Summarise a distribution; `total` counts the finite values, and with none every quantile is None.

    >>> quantile_record("Rfrac", [0.1, 0.3, 0.2, float("nan")], [50])
    {'name': 'Rfrac', 'quantiles': [50], 'values': [0.2], 'total': 3}
    """
    finite = sorted(value for value in numbers(values) if math.isfinite(value))
    found = [_quantile(finite, percent / 100) if finite else None for percent in quantiles]
    return {"name": name, "quantiles": list(quantiles), "values": found, "total": len(finite)}


def _quantile(ordered: Sequence[float], fraction: float) -> float:
    """Interpolate between the nearest two, as numpy does by default."""
    place = fraction * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def sample_of(record: dict[str, Any]) -> dict[str, float]:
    """Write a quantile record as a feed's sample: `<name>_q10` ... `<name>_total`."""
    name: str = record["name"]
    pairs = zip(record["quantiles"], record["values"], strict=True)
    sample = {f"{name}_q{percent}": value for percent, value in pairs if value is not None}
    return {**sample, f"{name}_total": record["total"]}


def channels_per_group(groups: Any) -> list[int]:
    """Count channels by bias group; the last place counts those of no group."""
    found = [int(group) for group in numbers(groups)]
    return [found.count(group) for group in range(BIAS_GROUPS)] + [found.count(-1)]


def biased_per_group(groups: Any, rfrac: Any, between: Sequence[float]) -> list[int]:
    """Count, by bias group, the channels whose fraction of the normal resistance lies inside a range."""
    low, high = between
    pairs = zip(numbers(groups), numbers(rfrac), strict=True)
    inside = [int(group) for group, fraction in pairs if low < fraction < high]
    return [inside.count(group) for group in range(BIAS_GROUPS)]


def per_band(bands: Any, chosen: Iterable[bool] | None = None) -> list[int]:
    """Count channels by band, all of them or the chosen ones."""
    found = [int(band) for band in numbers(bands)]
    counted = found if chosen is None else [band for band, is_chosen in zip(found, chosen, strict=True) if is_chosen]
    return [counted.count(band) for band in range(BANDS)]


def without_large_arrays(value: Any) -> Any:
    """Give a structure in which a shape, `{"shape": [rows, columns]}`, stands for each array of over 10 000 numbers."""
    if isinstance(value, Mapping):
        return {key: without_large_arrays(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [without_large_arrays(item) for item in cast("Sequence[Any]", value)]
    shape: object = getattr(value, "shape", None)
    if isinstance(shape, tuple) and math.prod(cast("tuple[int, ...]", shape)) > MOST_NUMBERS:
        return {"shape": list(cast("tuple[int, ...]", shape))}
    return value
