"""What the lines of a row file must hold, so that a damaged one is noticed before anything is built on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, cast

from labwright.schedule.rows import MOMENTS, Outcome

Line = dict[str, Any]


def what_is_wrong(line: object, *, follows: str) -> str:
    """Tell what is wrong with a line that comes after one of that record (none for the first); empty if nothing is."""
    record: Any = cast("Line", line).get("record") if isinstance(line, dict) else None
    if not isinstance(record, str):
        return "it is no record of a schedule"
    if follows in {"", "over"} and record != "started":
        return f"no run has started that could have a record {record!r}"
    wrong = _wrong_field(cast("Line", line), FIELDS.get(record, {}))
    return f"its {wrong!r} is missing or no such thing" if wrong else ""


def _wrong_field(line: Line, fields: Mapping[str, IsRight]) -> str:
    return next((name for name, is_right in fields.items() if name not in line or not is_right(line[name])), "")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_moment(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _is_key(value: object) -> bool:
    return isinstance(value, list) and list(map(_is_whole, cast("list[Any]", value))) == [True, True]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_point(value: object) -> bool:
    return value is None or (isinstance(value, int) and value > 0)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_outcome(value: object) -> bool:
    return value in {str(each) for each in Outcome}


def _or_none(is_right: IsRight) -> IsRight:
    return lambda value: value is None or is_right(value)


def _is_row(value: object) -> bool:
    return isinstance(value, dict) and not _wrong_field(cast("Line", value), ROW)


IsRight = Callable[[object], bool]
POINT: Mapping[str, IsRight] = {"key": _is_key, "point": _is_point}
ROW: Mapping[str, IsRight] = {
    **dict.fromkeys(MOMENTS, _or_none(_is_moment)),
    "point": _is_point,
    "name": _is_text,
    "lateness_s": _or_none(_is_number),
    "outcome": _is_outcome,
    "reason": _is_text,
    "args": _is_object,
    "result": _is_object,
    "error": _or_none(_is_object),
}
FIELDS: Mapping[str, Mapping[str, IsRight]] = {
    "started": {"at": _is_moment, "plan": _is_text},
    "begun": {**POINT, "name": _is_text, "planned_at": _or_none(_is_moment), "due_at": _or_none(_is_moment)},
    "row": {**POINT, "row": _is_row, "started_s": _is_number, "ended_s": _is_number, "paused_s": _is_number},
    "paused": {"elapsed_s": _is_number},
    "resumed": {"elapsed_s": _is_number},
}
