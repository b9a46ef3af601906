"""Logs and progress of runs: text on its way to people, batched, never in a run's way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from labwright.core.clock import to_text
from labwright.core.errors import UnreachableError
from labwright.core.model import utc_now
from labwright.core.plain import to_plain
from labwright.journal.connection import Connection
from labwright.journal.journal import DAY_S, Journal

STREAM = "LOGS"
BATCH_S = 0.1
BATCH_BYTES = 64 * 1024
LONGEST_LINE = 16 * 1024
LONGEST_ENTRY = 256 * 1024
MOST_WAITING = 100_000
LOG_BYTES = 4 * 1024**3
LOG_SHARE = 4
"""Logs may fill this part of the disk, and never more than 4 GiB."""


async def ensure_logs(journal: Journal, *, days: float, replicas: int, disk: int | None = None) -> None:
    """Make the stream of logs."""
    await journal.ensure_stream(
        {
            "name": STREAM,
            "subjects": ["log.>"],
            "storage": "file",
            "retention": "limits",
            "max_age": int(days * DAY_S * 1_000_000_000),
            "max_bytes": LOG_BYTES if disk is None else min(LOG_BYTES, disk // LOG_SHARE),
            "persist_mode": "async",
            "allow_direct": True,
            "num_replicas": replicas,
            "duplicate_window": 1_000_000_000,
        }
    )


class Logs:
    """Lines on their way to the stream; a line more than can wait is counted, which the next one says, and not kept."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lines: dict[str, list[str]] = {}
        self._waiting = 0
        self._lost = 0
        self._counting = threading.Lock()
        self._shown: set[asyncio.Task[None]] = set()
        self._came = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._home = threading.get_ident()

    def put(
        self,
        subject: str,
        level: str,
        text: str,
        fields: Mapping[str, Any],
        *,
        at: datetime | None = None,
        place: str = "",
    ) -> None:
        """Take a line; may be called from any thread.

        `at` is when it was said, by default now. `place` tells where in its source it stands; see `last_places`.
        """
        with self._counting:
            if self._waiting >= MOST_WAITING:
                self._lost += 1
                return
            self._waiting += 1
            lost, self._lost = self._lost, 0
        entry: dict[str, Any] = {"at": to_text(at or utc_now()), "level": level, "text": text[:LONGEST_LINE]}
        if place:
            entry["place"] = place
        if lost:
            entry["lost_before"] = lost
        plain = to_plain(dict(fields))
        line = json.dumps({**entry, "fields": plain} if plain else entry)
        if len(line) > LONGEST_ENTRY:
            line = json.dumps({**entry, "fields": {"left_out": sorted(plain)[:20]}})
        if threading.get_ident() == self._home:
            self._keep(subject, line)
        else:
            self._loop.call_soon_threadsafe(self._keep, subject, line)

    def progress(self, run_id: str, done: float, total: float | None, text: str) -> None:
        """Show how far a run is; only who watches now sees it."""
        data = json.dumps({"run": run_id, "done": done, "total": total, "text": text[:LONGEST_LINE]}).encode()
        self._loop.call_soon_threadsafe(self._show, f"progress.run.{run_id}", data)

    async def run(self) -> None:
        """Send what has come, for ever."""
        while True:
            await self._came.wait()
            await asyncio.sleep(BATCH_S)
            await self.flush()

    async def flush(self) -> None:
        """Send what has come so far; what cannot be sent now waits."""
        self._came.clear()
        for subject in list(self._lines):
            try:
                await self._send(subject)
            except (UnreachableError, TimeoutError):
                self._came.set()

    async def _send(self, subject: str) -> None:
        """Send the lines of one subject; a line leaves the queue once it is stored."""
        lines = self._lines[subject]
        while lines:
            chunk = _chunk(lines)
            await self._connection.request(subject, "\n".join(lines[:chunk]).encode())
            del lines[:chunk]
            with self._counting:
                self._waiting -= chunk
        self._lines.pop(subject, None)

    def _keep(self, subject: str, line: str) -> None:
        self._lines.setdefault(subject, []).append(line)
        self._came.set()

    def _show(self, subject: str, data: bytes) -> None:
        async def send() -> None:
            with contextlib.suppress(UnreachableError):
                await self._connection.publish(subject, data)

        task = asyncio.create_task(send())
        self._shown.add(task)
        task.add_done_callback(self._shown.discard)


async def last_places(connection: Connection, subject: str) -> dict[str, str]:
    """Tell how far the log of a subject has come: the last place of each source in the newest of its messages.

    A place is `source:position`.

    Raises:
        UnreachableError, TimeoutError: the server does not answer.
    """
    newest = await connection.request(f"$JS.API.DIRECT.GET.{STREAM}.{subject}")
    places: dict[str, str] = {}
    for line in newest.data.splitlines():
        source, _, position = str(json.loads(line).get("place", "")).partition(":")
        if position:
            places[source] = position
    return places


def _chunk(lines: list[str]) -> int:
    """Tell how many lines go into one message."""
    size = 0
    for number, line in enumerate(lines):
        size += len(line) * 4
        if size > BATCH_BYTES * 4 and number:
            return number
    return len(lines)
