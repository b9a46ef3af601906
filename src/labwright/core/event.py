"""How an event comes in: CloudEvents 1.0 JSON, read strictly so that nothing doubtful enters the journal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn, cast

from labwright.core.clock import Clock
from labwright.core.errors import TooLargeError, UsageError
from labwright.core.ids import content_hash, hashed_id, new_id
from labwright.core.model import Event
from labwright.core.plain import to_plain

LIMIT = 16 * 1024 * 1024
"""The largest event in bytes."""

NESTING = 60
TEXTS = ("id", "source", "type", "subject", "datacontenttype")
CURE = 'send CloudEvents 1.0 JSON, at least {"type": "..."}'


def parse_event(text: bytes | str | Mapping[str, Any], *, clock: Clock, source: str = "labwright") -> Event:
    """Read an event; `specversion`, `id`, `time` and `source` are filled in where absent or null.

    Values in a mapping that JSON has no word for (NaN, bytes) are written as `to_plain` does.

    Raises:
        TooLargeError: it is larger than `LIMIT`.
        UsageError: it is not JSON, no object, of another version, without a type, or an attribute is not valid.
    """
    record = _object(text)
    given = {name: value for name, value in record.items() if value is not None or name == "data"}
    filled = {"specversion": "1.0", "id": new_id("evt"), "source": source, "time": clock.now(), **given}
    _check_version(filled["specversion"])
    if "type" not in filled:
        raise _invalid("the event has no type", "every event says what happened in its attribute `type`")
    if "data" in given and "data_base64" in given:
        raise _invalid("the event has both data and data_base64", "CloudEvents allows one of them")
    for name, value in filled.items():
        _check_attribute(name, value)
    return Event.model_validate({**filled, "time": _instant(filled["time"])})


def event_key(event: Event) -> str:
    """Tell the identity of an event, `source` and `id`, as one id."""
    return hashed_id("evt", event.source, event.id)


def event_content(event: Event) -> str:
    """Hash what an event says, to tell a repetition from another event under the same identity.

    `time` does not count: it is filled in anew each time that an event without one is sent again.
    """
    return content_hash(event.model_dump(mode="json", exclude={"time"}))


def _object(text: bytes | str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(text, Mapping):
        value: Any = text
        _check_nesting(value, NESTING)
        record = cast("dict[str, Any]", to_plain(value))
        _check_size(len(json.dumps(record, ensure_ascii=False).encode()))
        return record
    _check_size(len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass")))
    value = _read_json(text)
    if not isinstance(value, dict):
        raise _invalid("the event is not a JSON object", f"it is {_article(cast('object', value))}")
    _check_nesting(cast("object", value), NESTING)
    return cast("dict[str, Any]", to_plain(cast("object", value)))


def _read_json(text: bytes | str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        because = f"{error.msg} in line {error.lineno}, column {error.colno}"
        raise _invalid("the event is not JSON", because) from error
    except UnicodeDecodeError as error:
        because = f"its bytes are not {error.encoding.upper()} text (byte {error.start})"
        raise _invalid("the event is not JSON", because) from error
    except RecursionError as error:
        raise _invalid("the event is nested too deeply", f"at most {NESTING} levels are read") from error
    except ValueError as error:  # an integer of more digits than Python reads
        raise _invalid("the event is not JSON", str(error)) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _invalid(f"the event has the key {twice!r} twice", "one of the two values would silently be lost")
    return record


def _no_constant(text: str) -> NoReturn:
    raise _invalid(f"the event holds {text}", "JSON has no such number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _invalid(f"the event holds the number {text[:40]}", "it is too large for a float")
    return number


def _check_size(size: int) -> None:
    if size > LIMIT:
        raise TooLargeError(
            f"the event is too large: {size / 1e6:.1f} MB",
            because=f"an event may have {LIMIT // 1024 // 1024} MiB",
            cure="write the data to a file and send its path",
        )


def _check_nesting(value: object, levels: int) -> None:
    if levels == 0:
        raise _invalid("the event is nested too deeply", f"at most {NESTING} levels are read")
    if isinstance(value, Mapping):
        for item in cast("Mapping[object, object]", value).values():
            _check_nesting(item, levels - 1)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        for item in cast("Sequence[object]", value):
            _check_nesting(item, levels - 1)


def _check_version(version: object) -> None:
    if version != "1.0":
        raise _invalid(f"the event has specversion {version!r}", 'this version of CloudEvents is not known, "1.0" is')


def _check_attribute(name: str, value: object) -> None:
    if name in TEXTS and (not isinstance(value, str) or not value):
        raise _invalid(f"the event's {name} is {_article(value)}", "it must be text that is not empty")
    if name not in {"data", "time"} and not isinstance(value, str | int):  # bool is an int
        raise _invalid(
            f"the event's attribute {name!r} is {_article(value)}", "attributes are text, whole numbers, true or false"
        )


def _instant(value: object) -> datetime:
    if isinstance(value, Mapping):  # a datetime that came in a mapping, in its plain form
        value = cast("Mapping[str, object]", value).get("$time")
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise _invalid(
        f"the event's time {value!r} is not an instant", "it must be RFC 3339 with a zone: 2026-01-02T03:04:05Z"
    )


def _article(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text" if value else "empty text"
        case Mapping():
            return "an object"
        case _:
            return "a list"


def _invalid(message: str, because: str) -> UsageError:
    return UsageError(message, because=because, cure=CURE)
