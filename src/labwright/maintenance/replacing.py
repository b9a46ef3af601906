"""Replacing a file or the meaning of a link at once: whoever reads sees what was there before, or all that is new."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Put a file in the place of another, with all that it holds on disk before it has its name.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    part = _beside(path)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    settle(path.parent)


def point_link(link: Path, to: str) -> None:
    """Have a symbolic link point elsewhere.

    Raises:
        OSError: it cannot be made; it points where it did.
    """
    part = _beside(link)
    part.symlink_to(to)
    try:
        part.replace(link)
    finally:
        part.unlink(missing_ok=True)
    settle(link.parent)


def settle(folder: Path) -> None:
    """Have the names in a folder on disk, where its file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
