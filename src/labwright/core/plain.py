"""Any Python value in a form that JSON can say, and back.

Outputs of steps, facts and data of sessions come from users' code and may hold anything: NaN, bytes, numpy scalars,
cycles. None of it may break a record or a reply. What JSON has no word for becomes a one-key object: `$float`, `$bytes`
(base64), `$time`, `$repr`.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from pathlib import PurePath
from typing import Any, cast

from labwright.core.clock import to_text

AS_THEY_ARE = frozenset({bool, type(None)})
NUMBERS = frozenset({bool, type(None), float})
DEPTH = 64
LARGEST_EXACT = 2**63


def to_plain(value: object) -> Any:
    """Turn any value into one made of dict, list, str, int, finite float, bool and None; never fails."""
    return _plain(value, DEPTH, set())


def from_plain(value: Any) -> Any:
    """Turn the one-key objects of `to_plain` back into floats, bytes and instants; `$repr` stays as it is."""
    if isinstance(value, list):
        return [from_plain(item) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    mapping = cast("dict[str, Any]", value)
    if len(mapping) == 1:
        match mapping:
            case {"$float": str(text)}:
                return float(text)
            case {"$bytes": str(text)}:
                return base64.b64decode(text)
            case {"$time": str(text)}:
                return datetime.fromisoformat(text)
            case _:
                pass
    return {key: from_plain(item) for key, item in mapping.items()}


def _plain(value: object, depth: int, above: set[int]) -> Any:
    kind: type = type(value)
    if kind in AS_THEY_ARE or (kind is str and cast("str", value).isascii()):  # by far the most, so asked first
        return value
    try:
        return _converted(value, depth, above)
    except Exception:  # noqa: BLE001 - a stranger's methods may raise anything
        return {"$repr": _repr(value)}


def _converted(value: object, depth: int, above: set[int]) -> Any:  # noqa: PLR0911 - one return for each shape of value
    match value:
        case None | bool() | str():
            return _text(value) if isinstance(value, str) else value
        case enum.Enum():
            return _plain(value.value, depth - 1, above)
        case int():
            return int(value) if -LARGEST_EXACT <= value < LARGEST_EXACT * 2 else {"$repr": _repr(value)}
        case float():
            return float(value) if math.isfinite(value) else {"$float": str(float(value))}
        case bytes() | bytearray() | memoryview():
            return {"$bytes": base64.b64encode(bytes(cast("bytes", value))).decode()}
        case datetime():
            return {"$time": to_text(value)} if value.tzinfo else value.isoformat()
        case date():
            return value.isoformat()
        case PurePath():
            return str(value)
        case _:
            return _inside(value, depth, above)


def _inside(value: object, depth: int, above: set[int]) -> Any:
    """Convert what holds other values; one that stands within itself is not followed there, nor one too deep."""
    if depth <= 0 or id(value) in above:
        return {"$repr": _repr(value)}
    above.add(id(value))
    try:
        return _structure(value, depth - 1, above)
    finally:
        above.discard(id(value))


def _structure(value: object, depth: int, above: set[int]) -> Any:
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {_text(key if isinstance(key, str) else str(key)): _plain(item, depth, above) for key, item in items}
    if type(value) is list and _are_finite(cast("list[object]", value)):
        return list(cast("list[object]", value))
    if isinstance(value, Sequence | AbstractSet):
        return [_plain(item, depth, above) for item in cast("Sequence[object]", value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _plain(getattr(value, name, None), depth, above) for name in names}
    for method in ("model_dump", "tolist", "item"):  # pydantic models; numpy arrays and scalars
        dump = getattr(value, method, None)
        if callable(dump) and not isinstance(value, type):
            try:
                return _plain(dump(), depth, above)
            except BaseException:  # noqa: BLE001, S112 - a stranger's method may raise anything; the next form is tried
                continue
    return {"$repr": _repr(value)}


def _are_finite(values: list[object]) -> bool:
    """Tell quickly whether all are numbers that JSON can say; results of instruments are long lists of them."""
    return NUMBERS.issuperset(map(type, values)) and all(map(math.isfinite, filter(None, cast("list[float]", values))))


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()


def _repr(value: object) -> str:
    try:
        return _text(repr(value))[:1000]
    except BaseException:  # noqa: BLE001 - a stranger's __repr__ may raise anything
        return f"<{type(value).__name__}>"
