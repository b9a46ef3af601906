"""Files that publishers announce: what a `data_file` or `g3_file` message says, and what the file then is like."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

from labwright.core.ids import hashed_id
from labwright.instruments.pysmurf.packets import Packet, seconds

CHUNK: Final = 1024 * 1024
MOMENTS: Final = ("timestamp", "action_ts")


@dataclass(frozen=True, kw_only=True)
class Announced:
    """One announced file, in the words of the catalogue."""

    id: str
    path: str
    kind: str
    format: str
    archive: str
    action: str
    action_at: datetime | None
    written_at: datetime | None
    host: str
    source: str
    is_plot: bool
    note: str | None


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What a file turned out to be: its size in bytes and checksum, or a note why they are not known."""

    size: int | None = None
    sha256: str | None = None
    note: str | None = None


def announced_file(packet: Packet) -> Announced:
    """Read a `data_file` or `g3_file` message; however odd it is, its file is not lost.

    The path stays as published, save that numpy adds `.npy` to the name of a file that it writes, and publishers forget
    to say so.
    """
    payload: dict[str, Any] = (
        cast("dict[str, Any]", packet.payload) if isinstance(packet.payload, dict) else {"path": packet.payload}
    )
    published = payload.get("path")
    path = published if isinstance(published, str) else "" if published is None else repr(published)
    form = _text(payload.get("format"))
    is_short = form == "npy" and bool(path) and not path.endswith(".npy")
    return Announced(
        id=hashed_id("file", packet.host, packet.id, _text(path), *(repr(payload.get(name)) for name in MOMENTS)),
        path=path + ".npy" if is_short else path,
        kind=_text(payload.get("type")),
        format=form,
        archive=_text(payload.get("archive_name")) or ("timestreams" if packet.type == "g3_file" else "smurf"),
        action=_text(payload.get("action")),
        action_at=instant(payload.get("action_ts")),
        written_at=instant(payload.get("timestamp")),
        host=packet.host,
        source=packet.id,
        is_plot=payload.get("plot") is True,
        note=None if isinstance(published, str) and published else "it was announced without a path",
    )


def instant(value: object) -> datetime | None:
    """Give the moment that epoch seconds name, be they a number or its text; None where they name none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    moment = seconds(value)
    return None if moment is None else datetime.fromtimestamp(moment, UTC)


def examine(path: str) -> Examined:
    """Measure a file and its checksum; meant for a thread, since it reads the whole of it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe does not hold us
    except FileNotFoundError:
        return Examined(note="there is no such file where its announcement was heard")
    except (OSError, ValueError) as error:
        return Examined(note=f"it cannot be read: {error}")
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return Examined(note="it is no regular file")
        return _read(descriptor)
    except OSError as error:
        return Examined(note=f"it cannot be read: {error}")
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Examined:
    digest, size = hashlib.sha256(), 0
    while chunk := os.read(descriptor, CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return Examined(size=size, sha256=digest.hexdigest())


def _text(value: object) -> str:
    text = "" if value is None else value if isinstance(value, str) else repr(value)
    return text.encode("utf-8", "backslashreplace").decode()
