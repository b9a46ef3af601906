"""What the process of an agent does: it reads its command line, imports the agent's class, and serves it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import structlog

from labwright.agents.agent import Agent, Leftovers
from labwright.agents.border import no_class, tell
from labwright.agents.pulse import HARD_EXIT, Pulse
from labwright.agents.serving import AgentServer
from labwright.core.errors import LabwrightError, UsageError
from labwright.core.logs import get_logger
from labwright.journal.connection import Address

ARENA_MAX = -8
"""M_ARENA_MAX of glibc's malloc.h."""

LAST_S = 0.3
"""How long what is left may take to end when everything has been closed."""

log = get_logger(__name__)


def run_agent(arguments: Sequence[str]) -> None:
    """Serve an agent until told to end; leaves with the exit code of what went wrong, if something did."""
    options = _parser().parse_args(arguments)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # it is heard when what a predecessor left can be ended
    _keep_memory_together()
    configure_logs()
    try:
        agent = load_agent(options.agent)
        asyncio.run(_serve(agent, options))
    except LabwrightError as error:
        if options.errors == "log":
            log.error(error.message, because=error.because, cure=error.cure)  # noqa: TRY400 - said, not traced
        else:
            tell(error, as_json=options.errors == "json")
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        if options.errors == "log":
            raise
        tell(error, as_json=options.errors == "json")
        raise SystemExit(1) from None


def load_agent(place: str) -> type[Agent]:
    """Import an agent's class by MODULE:CLASS; the current folder is searched first.

    Raises:
        UsageError: there is none.
    """
    module_name, _, class_name = place.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:  # noqa: PTH109 - as Python itself would put it there
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as above
    try:
        module = found = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"there is no agent {place}", because=str(error), cure="name it as MODULE:CLASS, such as mylab.pumps:Pump"
        ) from error
    try:
        for part in class_name.split("."):
            found = getattr(found, part)
    except (AttributeError, ValueError) as error:
        raise no_class(place, module, str(error)) from error
    if not isinstance(found, type) or not issubclass(found, Agent):
        raise UsageError(
            f"{place} is no agent", because="it is no class derived from Agent", cure="derive it from Agent"
        )
    return found


def configure_logs(level: int = logging.INFO) -> None:
    """Send what is at least of that level to standard error, as readable lines."""
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"),
        exception_formatter=structlog.dev.plain_traceback,
        pad_event_to=0,
    )
    handler = logging.StreamHandler(sys.stderr)
    processors = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=processors))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("labwright").setLevel(level)


async def _serve(agent: type[Agent], options: argparse.Namespace) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    server = AgentServer(
        agent,
        name=options.name,
        locate=_locator(options),
        state_dir=options.state,
        labels=dict(_pair(text) for text in options.label),
        arguments=dict(_pair(text) for text in options.arg),
        leftovers=cast("Leftovers | None", options.leftovers),
        site=options.site,
    )
    server.leave_scripts = options.leave_scripts
    ending = asyncio.create_task(told.wait())
    entering = asyncio.create_task(server.__aenter__())
    await asyncio.wait({ending, entering}, return_when=asyncio.FIRST_COMPLETED)
    if not entering.done():
        entering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await entering
        return
    await entering
    gc.collect()
    gc.freeze()  # what is loaded by now stays
    _trim_memory()
    failed = asyncio.create_task(server.failed())
    try:
        with Pulse():
            await asyncio.wait({ending, failed}, return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            failed.result()
    finally:
        failed.cancel()
        ending.cancel()
        await server.close()
        await _leave_nothing_running()


async def _leave_nothing_running() -> None:
    """End the process where an operation swallows each cancellation: the loop would wait for it for ever."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left and (await asyncio.wait(left, timeout=LAST_S))[1]:
        log.critical("an operation does not end; the agent ends itself", exit_code=HARD_EXIT)
        os._exit(HARD_EXIT)


def _keep_memory_together() -> None:
    """Have threads share one heap: by default each gets its own, which costs more than the waiting (glibc only)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(ARENA_MAX, 1)


def _trim_memory() -> None:
    """Give back what only loading needed (glibc only)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _locator(options: argparse.Namespace) -> Callable[[], Address]:
    if options.connection is not None:
        path: Path = options.connection
        return lambda: Address.read(path)
    if not options.url and options.creds is None:
        raise UsageError("the agent does not know where the lab is", cure="give --url, --creds or --connection")
    return lambda: Address.of(options.url or "", options.creds)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"{text!r} is no name=value", cure="write it as name=value")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m labwright.agents.main", description=__doc__)
    parser.add_argument("agent", metavar="MODULE:CLASS")
    parser.add_argument("--name", required=True)
    parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE", help="an argument of the class")
    parser.add_argument("--state", type=Path, required=True, help="the folder under which its own folder is")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", help="the NATS server; a key file tells it, too")
    where.add_argument("--connection", type=Path, help="the connection.json of a lab")
    parser.add_argument("--creds", type=Path, help="a key file, or the credentials for --url")
    parser.add_argument("--site", type=Path, help="the folder of the site, as the agent sees it")
    parser.add_argument("--leftovers", choices=["adopt", "kill"], help="what becomes of a predecessor's scripts")
    parser.add_argument(
        "--errors", choices=["log", "text", "json"], default="log", help="how what ends the agent is told"
    )
    parser.add_argument("--leave-scripts", action="store_true", help="leave scripts to a successor when told to end")
    return parser
