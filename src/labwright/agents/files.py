"""Files that an agent announces, as they go into the catalogue."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from labwright.core.ids import new_id
from labwright.core.model import FileEntry, utc_now
from labwright.core.plain import to_plain


def new_file(agent: str, path: str, file_id: str | None, fields: Mapping[str, Any]) -> FileEntry:
    """Describe a file that was written on this host, however odd its path is."""
    given = {name: value for name, value in fields.items() if value not in {None, ""}}
    return FileEntry.model_validate(
        {
            "host": socket.gethostname(),
            **given,
            "id": file_id or new_id("file"),
            "path": to_plain(str(path)),
            "agent": agent,
            "registered_at": utc_now(),
        }
    )
