"""`labwright doctor`: what is installed, reachable, running and set aside, and how to mend what is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from labwright import __version__
from labwright.cli.caller import Caller
from labwright.cli.pages import counted
from labwright.core.errors import LabwrightError

if TYPE_CHECKING:
    from labwright.run.settings import Settings

EXTRAS = {"ispyb": ("ispyb", "sqlalchemy", "pymysql"), "mimas": ("gemmi",), "certificates": ("cryptography",)}
OLDEST_PYTHON = (3, 11)
PATIENCE_S = 15.0
STARTING_S = 10.0
"""For so long after the start of a lab its workers may be missing."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at: `state` is ok, note (worth knowing) or wrong (to be mended)."""

    name: str
    state: str
    detail: str
    cure: str = ""

    def fields(self) -> dict[str, Any]:
        """Give it as its JSON has it."""
        fields = asdict(self)
        return {**{name: fields[name] for name in ("name", "state", "detail")}, "try": self.cure}


def doctor(caller: Caller) -> None:
    """Examine the installation, the site and its lab; say of everything that is wrong how to mend it.

    Use it first whenever something does not go as it should. It changes nothing and works with nothing running. Exit 0
    when nothing is wrong, else 1.

    Examples:
      labwright doctor
      labwright doctor --site mylab --json
    """
    checks = caller.run(_examined(caller))
    is_well = all(check.state != "wrong" for check in checks)
    fields = {"ok": is_well, "checks": [check.fields() for check in checks]}

    def show() -> None:
        caller.output.table(("check", "state", "detail"), _rows(checks))
        wrong = sum(check.state == "wrong" for check in checks)
        caller.output.talk("nothing is wrong" if is_well else f"{counted(wrong, 'thing')} to mend")

    caller.output.document(fields, show)
    if not is_well:
        raise typer.Exit(1)


def _rows(checks: Iterable[Check]) -> Iterator[tuple[str, str, str]]:
    for check in checks:
        yield check.name, check.state, f"{check.detail}\ntry: {check.cure}" if check.cure else check.detail


async def _examined(caller: Caller) -> list[Check]:
    checks = [*_installed()]
    try:
        settings = caller.settings()
    except LabwrightError as error:
        return [*checks, _wrong("settings", error)]
    checks.append(_server_binary(needed=not settings.nats.url))
    checks += _state(settings)
    checks += await _lab(settings)
    return checks


# --- what is installed -----------------------------------------------------------------------------------------------


def _installed() -> Iterator[Check]:
    import platform

    fits = sys.version_info >= OLDEST_PYTHON
    yield Check(
        name="python",
        state="ok" if fits else "wrong",
        detail=f"{platform.python_version()} at {sys.executable}",
        cure="" if fits else "install Python 3.11 or newer",
    )
    yield Check(name="labwright", state="ok", detail=__version__)
    for extra, packages in EXTRAS.items():
        missing = [package for package in packages if not _is_installed(package)]
        yield Check(
            name=f"extra {extra}",
            state="note" if missing else "ok",
            detail=f"not installed: {', '.join(missing)}" if missing else "installed",
            cure=f'pip install "labwright[{extra}]", if the site needs it' if missing else "",
        )


def _is_installed(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _server_binary(*, needed: bool) -> Check:
    from labwright.journal.nats_server import find_binary

    try:
        path, version = find_binary(os.environ)
    except LabwrightError as error:
        return _wrong("nats-server", error, state="wrong" if needed else "note")
    return Check(name="nats-server", state="ok", detail=f"{'.'.join(map(str, version))} at {path}")


# --- the state folder ------------------------------------------------------------------------------------------------


def _state(settings: Settings) -> Iterator[Check]:
    yield Check(name="site", state="ok", detail=str(settings.folder))
    folder = settings.state_dir
    if not folder.exists():
        yield Check(name="state", state="note", detail=f"{folder} does not exist yet", cure="labwright serve makes it")
        yield _disk(settings.folder)
        return
    is_usable = os.access(folder, os.R_OK | os.W_OK | os.X_OK)
    yield Check(
        name="state",
        state="ok" if is_usable else "wrong",
        detail=str(folder),
        cure="" if is_usable else f"make {folder} yours: chown or chmod it",
    )
    yield _disk(folder)
    yield from _locks(settings)


def _disk(folder: Path) -> Check:
    import shutil

    from labwright.run.room import is_short

    usage = shutil.disk_usage(folder)
    is_full = is_short(usage.free, usage.total)
    return Check(
        name="disk",
        state="wrong" if is_full else "ok",
        detail=f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.0f} GB free at {folder}",
        cure="make room, or shorten [retention]; below this the lab takes no new work" if is_full else "",
    )


def _locks(settings: Settings) -> Iterator[Check]:
    from labwright.journal.nats_server import EmbeddedServer
    from labwright.run.processes import lock_holder
    from labwright.run.worker_keeper import slots_held

    folder = settings.state_dir
    server = lock_holder(folder / "serve.lock")
    yield Check(
        name="serve",
        state="ok" if server else "note",
        detail=f"pid {server}" if server else "not running",
        cure="" if server else "labwright serve",
    )
    if not server:
        yield from _left_open(folder / "view.sqlite")
    if not settings.nats.url:
        embedded = EmbeddedServer(folder)
        is_running = embedded.is_locked()
        yield Check(
            name="embedded journal",
            state="ok" if is_running == bool(server) else "note" if server else "wrong",
            detail=f"nats-server pid {embedded.pid() or '?'}" if is_running else "not running",
            cure="labwright serve takes it over; labwright serve --stop ends it" if is_running and not server else "",
        )
    holders = [str(lock_holder(slot)) for slot in slots_held(folder)]
    yield Check(
        name="workers of serve",
        state="wrong" if holders and not server else "ok",
        detail=f"pids {', '.join(holders)}" if holders else "none",
        cure="labwright serve takes them over; labwright serve --stop ends them" if holders and not server else "",
    )


def _left_open(view: Path) -> Iterator[Check]:
    """Look for runs that nobody takes further, as the tables of the lab that ran here tell."""
    from labwright.journal.view import count_open

    try:
        number = count_open(view)
    except LabwrightError as error:
        yield Check(name="open runs", state="note", detail=f"{error.message}: {error.because}", cure="labwright serve")
        return
    if number:
        detail = f"{counted(number, 'run')} open, and no lab takes {'it' if number == 1 else 'them'} further"
        yield Check(name="open runs", state="wrong", detail=detail, cure="labwright serve")


# --- the lab ---------------------------------------------------------------------------------------------------------


async def _lab(settings: Settings) -> list[Check]:
    from asyncio import timeout

    from labwright.client import connect_async
    from labwright.run.processes import lock_holder

    holder = lock_holder(settings.state_dir / "serve.lock")
    is_expected = bool(holder) or bool(settings.nats.url)
    try:
        async with timeout(PATIENCE_S), connect_async(settings=settings) as lab:
            agents = _agents(await lab.agents())
            try:
                status, site, pools = await lab.ask("status"), await lab.ask("site"), await lab.ask("pools")
            except LabwrightError as error:
                return [_wrong("lab", error), agents]
            return [*_findings(status, site, settings), *_pools(pools), agents]
    except (LabwrightError, TimeoutError) as error:
        if not is_expected:
            return [Check(name="lab", state="note", detail="no lab is running here", cure="labwright serve")]
        shown = error if isinstance(error, LabwrightError) else LabwrightError("the lab does not answer")
        return [_wrong("lab", shown)]


def _findings(status: dict[str, Any], site: dict[str, Any], settings: Settings) -> Iterator[Check]:
    yield Check(name="lab", state="ok", detail=f"answers since {status['started_at']}, pid {status['pid']}")
    for finding in site["findings"]:
        yield Check(name="site", state="wrong", detail=finding, cure="mend it, then labwright reload")
    yield _workers(status, wants=settings.workers.processes)
    behind = status["seq"] - status["written_seq"]
    yield Check(name="view", state="ok", detail=f"{behind} records behind")
    if not status["accepts"]:
        yield Check(name="lab", state="wrong", detail="takes no new work: its disk is nearly full", cure="make room")
    yield from _events(status)


def _workers(status: dict[str, Any], *, wants: int) -> Check:
    if status["workers"] or not wants:
        names = ", ".join(worker["name"] for worker in status["workers"])
        return Check(name="workers", state="ok", detail=names or "none is here, and none is wanted")
    age = datetime.fromisoformat(status["now"]) - datetime.fromisoformat(status["started_at"])
    if age.total_seconds() < STARTING_S:
        return Check(name="workers", state="note", detail="they are starting")
    return Check(name="workers", state="wrong", detail="none is here", cure="see what serve logs; labwright check")


def _agents(agents: Iterable[dict[str, Any]]) -> Check:
    names = ", ".join(f"{agent['name']} ({agent.get('class')} on {agent.get('host')})" for agent in agents)
    return Check(name="agents", state="ok", detail=names or "none is here")


def _pools(pools: Iterable[dict[str, Any]]) -> Iterator[Check]:
    for pool in pools:
        if pool["state"] != "active":
            cure = f"labwright pools resume {pool['name']}, when it may go on"
            yield Check(name="pool", state="note", detail=f"{pool['name']} is {pool['state']}", cure=cure)


def _events(status: dict[str, Any]) -> Iterator[Check]:
    aside, undecided = status["set_aside"], status["undecided"]
    for event in aside:
        yield Check(
            name="event set aside",
            state="wrong",
            detail=f"{event['id']} ({event['type']}): {event['error']}",
            cure=f"mend the rule, labwright reload, then labwright events decide {event['key']}",
        )
    for event in undecided:
        error = event["error"]
        because = f" ({error['because']})" if error["because"] else ""
        yield Check(
            name="event undecided",
            state="wrong",
            detail=f"{event['key']}: {error['message']}{because}",
            cure=error["try"] or "it is tried again by itself",
        )
    if not aside and not undecided:
        yield Check(name="events", state="ok", detail="none set aside, none undecided")


def _wrong(name: str, error: LabwrightError, *, state: str = "wrong") -> Check:
    detail = f"{error.message}: {error.because}" if error.because else error.message
    return Check(name=name, state=state, detail=detail, cure=error.cure)
