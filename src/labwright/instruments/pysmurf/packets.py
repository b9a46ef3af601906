"""SMURFPUB packets: one datagram is one JSON object in UTF-8; here it is read, or said to be malformed and why.

The format is pysmurf's own (`pysmurf.client.util.pub`): `host id script time seq_no type payload`. Bare NaN passes,
since Python's JSON writes it. Whatever bytes come in, reading never raises.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final, cast

DEFAULT_PORT: Final = 8200
MOST_BYTES: Final = 64_000
UNDECLARED: Final = "undeclared"
LONGEST_NAME: Final = 256
LONGEST_SAMPLE: Final = 240
LATEST: Final = 253_370_764_800
"""The year 9999 in epoch seconds."""


@dataclass(frozen=True, kw_only=True)
class Packet:
    """One message of a publisher.

    `time` is its own clock in epoch seconds, None where it named none or nonsense; `seq_no` counts the messages of one
    publisher from zero, None where it does not count.
    """

    id: str
    script: str
    host: str
    type: str
    payload: Any
    time: float | None = None
    seq_no: int | None = None


@dataclass(frozen=True, kw_only=True)
class Malformed:
    """A datagram that is no packet, and why; `sample` is its beginning as text."""

    reason: str
    sample: str
    size: int


def read_packet(datagram: bytes) -> Packet | Malformed:
    """Read one datagram.

    Needed are `type` and `payload`; a publisher that leaves out the rest is taken as pysmurf takes it, `undeclared`.

    >>> read_packet(b'{"id": "s2", "type": "session_log", "payload": "tuned", "seq_no": 3}')
    Packet(id='s2', script='undeclared', host='', type='session_log', payload='tuned', time=None, seq_no=3)
    >>> read_packet(b"[]").reason
    'not a JSON object but a list'
    """
    try:
        message: Any = json.loads(datagram.decode("utf-8"))
    except UnicodeDecodeError:
        return _malformed(datagram, "not UTF-8")
    except (ValueError, RecursionError) as error:
        return _malformed(datagram, f"not JSON: {error}"[:LONGEST_SAMPLE])
    if not isinstance(message, dict):
        return _malformed(datagram, f"not a JSON object but a {type(message).__name__}")
    fields = cast("dict[str, Any]", message)
    reason = _what_is_wrong(fields)
    return _malformed(datagram, reason) if reason else _packet(fields)


def _what_is_wrong(fields: dict[str, Any]) -> str | None:
    missing = [name for name in ("type", "payload") if name not in fields]
    if missing:
        return f"no {' and no '.join(missing)}"
    for name in ("type", "id", "script", "host"):
        if not isinstance(fields.get(name, ""), str):
            return f"{name} is not text"
    seq_no = fields.get("seq_no")
    if seq_no is not None and (isinstance(seq_no, bool) or not isinstance(seq_no, int) or not 0 <= seq_no < 2**63):
        return "seq_no is not a count"
    return None


def _packet(fields: dict[str, Any]) -> Packet:
    return Packet(
        id=_name(fields.get("id", UNDECLARED)),
        script=_name(fields.get("script", UNDECLARED)),
        host=_name(fields.get("host", "")),
        type=_name(fields["type"]),
        payload=fields["payload"],
        time=seconds(fields.get("time")),
        seq_no=fields.get("seq_no"),
    )


def seconds(value: object) -> float | None:
    """Give the epoch seconds that a value names, None where it names none between 1970 and 9999."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        moment = float(value)
    except OverflowError:
        return None
    return moment if math.isfinite(moment) and 0 <= moment < LATEST else None


def _name(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()[:LONGEST_NAME]


def _malformed(datagram: bytes, reason: str) -> Malformed:
    sample = datagram[:LONGEST_SAMPLE].decode("utf-8", "backslashreplace")
    return Malformed(reason=_name(reason), sample=sample, size=len(datagram))
