"""The process in which a site's steps run: `python -m` this module; its parent is `run/worker_parent.py`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import os
import signal
from pathlib import Path
from typing import cast

from nats.aio.msg import Msg

from labwright.core.errors import LabwrightError
from labwright.core.logs import get_logger
from labwright.journal.connection import Connection
from labwright.journal.presence import ProcessIdentity
from labwright.run.engine import DIALECTS, locator
from labwright.run.log_output import configure_logs
from labwright.run.processes import die_with_parent
from labwright.run.settings import Settings, load_settings
from labwright.run.signals import RELOAD
from labwright.run.site import DialectLoader, Site, load_site
from labwright.run.worker import Worker
from labwright.run.worker_presence import SignOfLife

BROKEN_SITE = 3

log = get_logger(__name__)


def main() -> None:
    """Load the site and work until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--site", type=Path, required=True)
    parser.add_argument("--state", help="the state folder, where it is not the one of the settings")
    parser.add_argument("--life", type=int, required=True)
    parser.add_argument("--pool", action="append", default=[])
    options = parser.parse_args()
    die_with_parent(options.life)
    configure_logs()
    settings = load_settings(options.site, os.environ, overrides={"state.dir": options.state})
    try:
        site = load_site(settings, dialects=dialects())
    except LabwrightError as error:
        log.error("the site does not load", because=error.message)  # noqa: TRY400 - said, not traced
        raise SystemExit(BROKEN_SITE) from None
    asyncio.run(_work(settings, site, options.pool))
    os.killpg(0, signal.SIGKILL)  # nothing that a step has left behind may go on


def dialects() -> list[DialectLoader]:
    """Import the loaders of other systems' packages."""
    loaders: list[DialectLoader] = []
    for path in DIALECTS:
        module, _, name = path.partition(":")
        loaders.append(cast("DialectLoader", getattr(importlib.import_module(module), name)))
    return loaders


async def _work(settings: Settings, site: Site, pools: list[str]) -> None:
    name = str(ProcessIdentity.mine())
    chosen = pools or [pool.name for pool in site.describe().pools]
    locate = locator(settings)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    life = SignOfLife(locate, name, {"slots": settings.workers.slots, "pools": chosen, "revision": site.revision})
    async with Connection(locate, name=name) as connection:
        worker = Worker(connection, site, name, pools=chosen, slots=settings.workers.slots)
        working = asyncio.create_task(worker.run())
        life.start()
        replaced = asyncio.Event()

        async def reload(message: Msg) -> None:
            if message.data in {b"", name.encode()}:
                replaced.set()

        await connection.listen(RELOAD, reload)
        ends = [asyncio.create_task(told.wait()), asyncio.create_task(replaced.wait()), working]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if replaced.is_set() and not told.is_set():
            os.kill(os.getppid(), signal.SIGHUP)
            drained = asyncio.create_task(worker.drain())
            await asyncio.wait([drained, ends[0]], return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        life.end()


if __name__ == "__main__":
    main()
