"""The engine's front door: where the journal of a site is, and who is asking."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable

from labwright.journal.connection import Address
from labwright.run.settings import Settings

DIALECTS = ("labwright.compat.mimas.loader:load_implementors",)
"""Loaders for packages of other systems, by import path: they are loaded where user code runs, and only there."""


def locator(settings: Settings) -> Callable[[], Address]:
    """Give what tells the address of a site's journal, as it stands at each call."""
    if settings.nats.url:
        return lambda: Address.of(settings.nats.url, settings.creds_file)
    return lambda: Address.read(settings.state_dir / "connection.json")


def who() -> str:
    """Name the person at this terminal, for the record: user@host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}".replace("=", "-")  # a role and a name are written with that sign
