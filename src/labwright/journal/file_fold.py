"""What several announcements of one file say together."""

from __future__ import annotations

from typing import Any

from labwright.core.model import FileEntry


def completed_file(known: FileEntry, new: FileEntry) -> FileEntry:
    """Give a file as two announcements know it: what the newer one says counts, what it leaves out stays known.

    A file belongs to the agent that knows its session. A note about a checksum that the other one knows is left out.
    """
    said: dict[str, Any] = {name: getattr(new, name) for name in new.model_fields_set if getattr(new, name) is not None}
    if new.session is None and known.session is not None:
        said["agent"] = known.agent
    if new.sha256 is not None:
        said["note"] = new.note
    elif known.sha256 is not None:
        said["note"] = known.note
    return known.model_copy(update=said)
