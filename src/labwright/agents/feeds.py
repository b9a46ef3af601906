"""Feeds: named streams of samples, for whoever listens now; the newest matter, none is kept."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from labwright.core.errors import UsageError
from labwright.core.plain import to_plain
from labwright.journal.session_fold import encoded

NAME = re.compile("_*[A-Za-z][A-Za-z0-9_]*")
LONGEST_NAME = 255
BATCH_BYTES = 256 * 1024
"""A batch that has grown to this size goes out before its time."""


class Feed:
    """One feed of an agent; `publish` may be called from the agent's loop at any rate."""

    def __init__(self, agent: str, name: str, buffer_s: float, send: Callable[[str, bytes], None]) -> None:
        self.name = checked_feed(name)
        self.buffer_s = buffer_s
        self.published = 0
        """How many samples went out or wait for it."""
        self._agent = agent
        self._subject = f"feed.{encoded(agent)}.{name}"
        self._send = send
        self._waiting: list[str] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def publish(self, values: Mapping[str, float | str | bool], at: float | None = None) -> None:
        """Publish one sample: a name and a number, text or truth for each thing that was measured.

        `at` is the moment in seconds since 1970; now, if it is left out.

        Raises:
            UsageError: a name or a value is not valid; nothing was published.
        """
        sample = json.dumps({"at": time.time() if at is None else float(at), "data": _checked(self.name, values)})
        self.published += 1
        if self.buffer_s <= 0:
            self._send(self._subject, f"{self._head()}, {sample[1:]}".encode())
            return
        self._waiting.append(sample)
        self._size += len(sample)
        if self._size >= BATCH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.buffer_s, self.flush)

    def flush(self) -> None:
        """Send the samples that wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            samples, self._waiting, self._size = self._waiting, [], 0
            self._send(self._subject, f'{self._head()}, "samples": [{", ".join(samples)}]}}'.encode())

    def describe(self) -> dict[str, Any]:
        """Tell name and buffer time."""
        return {"name": self.name, "buffer_s": self.buffer_s}

    def _head(self) -> str:
        return json.dumps({"agent": self._agent, "feed": self.name})[:-1]


def checked_feed(name: str) -> str:
    """Return the name if it may name a feed or a value in one.

    Raises:
        UsageError: it may not.
    """
    if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise UsageError(
            f"{name[:80]!r} cannot name a feed or a value in one",
            because="it has 1 to 255 letters, digits and underscores; the first that is no underscore is a letter",
            cure="choose another name",
        )
    return name


def _checked(feed: str, values: Mapping[str, Any]) -> dict[str, Any]:
    if not values:
        raise UsageError(
            f"a sample of the feed {feed!r} is empty", because="it needs at least one value", cure="add one"
        )
    checked: dict[str, Any] = {}
    for name, value in values.items():
        plain = value if isinstance(value, str | bool | int | float) else to_plain(value)
        if not isinstance(plain, str | bool | int | float):
            raise UsageError(
                f"the feed {feed!r}: {name} cannot be {str(cast('object', value))[:80]!r}",
                because="a value is a number, a text, or true or false",
                cure="publish each number under a name of its own",
            )
        checked[checked_feed(name)] = to_plain(plain)
    return checked
