"""Opening a lab: `connect_async`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from labwright.client.acting import ActingLab
from labwright.client.lab import AsyncLab
from labwright.core.errors import UnreachableError
from labwright.journal.connection import Connection
from labwright.run.engine import locator
from labwright.run.processes import lock_holder
from labwright.run.settings import Settings, load_settings

CONNECT_S = 5.0


@contextlib.asynccontextmanager
async def connect_async(
    site: Path | str | None = None, *, settings: Settings | None = None, url: str | None = None
) -> AsyncGenerator[AsyncLab]:
    """Open the lab of a site (a folder; default: LABWRIGHT_SITE or the current one), or the one at a NATS url.

    Raises:
        UnreachableError: nothing answers there.
    """
    chosen = settings or load_settings(
        Path(site) if site is not None else None, os.environ, overrides={"nats.url": url} if url else None
    )
    locate = locator(chosen)
    if not chosen.nats.url:
        locate()
        _refuse_if_down(chosen.state_dir)
    async with Connection(locate, name="client", patience_s=CONNECT_S) as connection:
        yield ActingLab(connection, chosen) if connection.identity else AsyncLab(connection, chosen)


def _refuse_if_down(state_dir: Path) -> None:
    """Tell at once, without trying for seconds, that nothing of a lab is running."""
    if lock_holder(state_dir / "serve.lock") is None and lock_holder(state_dir / "nats.lock") is None:
        message = "no lab is running here"
        raise UnreachableError(message, because=f"nobody holds {state_dir / 'serve.lock'}", cure="labwright serve")
