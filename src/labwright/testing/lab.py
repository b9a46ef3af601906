"""A whole lab for a test: embedded engine, workers and all, in a temporary folder, gone without a trace afterwards."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from labwright.client import AsyncLab, connect_async
from labwright.run.settings import load_settings
from labwright.server import serving

WORKER_S = 30.0


@asynccontextmanager
async def lab(site: Path | str | None = None, *, workers: int = 1) -> AsyncGenerator[AsyncLab]:
    """Start the lab of a site (a folder; default: LABWRIGHT_SITE or the current one) and give the handle on it.

    The journal lies in a temporary folder, so what the site's own lab holds stays untouched. It takes about two
    seconds; keep one for all tests of a module.

    Raises:
        SiteError: the site does not load.
        EngineError: nats-server cannot be started, or no worker came up within 30 s.
    """
    with tempfile.TemporaryDirectory(prefix="labwright-", ignore_cleanup_errors=True) as state:
        settings = load_settings(Path(site) if site is not None else None, os.environ, overrides={"state.dir": state})
        async with serving(settings, tied=True, workers=workers) as server, connect_async(settings=settings) as handle:
            async with asyncio.timeout(WORKER_S):
                await server.dispatcher.wait_for_workers(workers)
            yield handle
