"""Metadata of a streamer, `{path, value, type}`, in the words of a feed: names and values that are allowed there."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final, cast

MOST_NAMES: Final = 20_000
LONGEST: Final = 255
STREAMER: Final = "STREAMER:"

FeedValue = float | str | bool


def stream_of(publisher: str) -> str:
    """Give the stream id of a publisher: a streamer publishes as `STREAMER:<stream id>`.

    >>> stream_of("STREAMER:crate1slot2")
    'crate1slot2'
    """
    return publisher.rpartition(STREAMER)[2]


def feed_of(publisher: str) -> str:
    """Name the feed of a publisher's metadata.

    >>> feed_of("STREAMER:crate1-slot2")
    'crate1_slot2_meta'
    """
    return valid_name(stream_of(publisher), LONGEST - len("_meta")) + "_meta"


def valid_name(text: str, longest: int = LONGEST) -> str:
    """Make a name that a feed allows: letters, digits, underscores, the first after underscores a letter.

    >>> valid_name("AMCc.FpgaTopLevel[0].0"), valid_name("2nd")
    ('AMCc_FpgaTopLevel_0__0', 'x2nd')
    """
    name = re.sub(r"[^A-Za-z0-9_]", "_", text)
    name = name if re.match(r"_*[A-Za-z]", name) else "x" + name
    return name if len(name) <= longest else f"{name[: longest - 9]}_{_digest(text)}"


class Names:
    """Names of the values of one feed; two paths never share one."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}
        self._taken: set[str] = set()

    def of(self, path: str) -> str:
        """Give the path's name, the same each time."""
        if (known := self._of.get(path)) is not None:
            return known
        name = valid_name(path)
        if name in self._taken:
            name = f"{name[: LONGEST - 9]}_{_digest(path)}"
        if len(self._of) < MOST_NAMES:
            self._of[path] = name
            self._taken.add(name)
        return name


def metadata(payload: object) -> tuple[str, FeedValue]:
    """Read path and value of a metadata message.

    Raises:
        ValueError: it is no object with a path.
    """
    fields: dict[str, Any] = cast("dict[str, Any]", payload) if isinstance(payload, dict) else {}
    path = fields.get("path")
    if not isinstance(path, str) or not path:
        message = "the payload of metadata is no object with a path"
        raise ValueError(message)
    value = fields.get("value")
    return path, value if isinstance(value, str | bool | int | float) else as_json(value)


def as_json(value: object) -> str:
    """Write a value as JSON text, in which a feed can carry it."""
    return json.dumps(value)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:8]
