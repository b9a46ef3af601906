"""`labwright demo`: the whole loop on the bundled example site, from an event to runs and a script that have ended."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli.caller import Caller, command
from labwright.cli.demo_readout import AGENT, FLEET, FLEET_OPERATION, OPERATION, agents_up, call_all, tune
from labwright.cli.examples import copy_example
from labwright.core.errors import ConflictError

if TYPE_CHECKING:
    from labwright.cli.waiting import Waited
    from labwright.client import AsyncLab, Emitted
    from labwright.core.fleet import FleetResult

EXAMPLE = "beamline"
EVENT = Path("events") / "end-of-rotation.json"
SETTINGS = "labwright.toml"
FOREIGN = ("LABWRIGHT_SITE", "LABWRIGHT_URL", "LABWRIGHT_CREDS", "ZOCALO_CONFIG")
"""Variables that would lead the demo, or its workers, to another lab than its own."""

LONGEST_LOOP_S = 120.0

Once = Annotated[
    bool, typer.Option("--once", help="End when the loop has closed, and leave nothing behind.", show_default=False)
]
SiteDir = Annotated[
    Path | None,
    typer.Option(
        "--site-dir",
        metavar="DIR",
        help="Where the example site is copied and kept; default: a temporary folder.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the command."""
    command(app, panel=panel)(demo)


def demo(caller: Caller, once: Once = False, site_dir: SiteDir = None) -> None:
    """See the whole loop: an event comes in, rules decide, runs start, and each step is told.

    It copies the bundled beamline site, starts a lab on it with an engine of its own, and sends the end of a data
    collection through. Then it starts four agents, which control simulated readout cards, and has one of them run a
    tuning script. Without --once the lab stays up to be explored from another terminal, until Ctrl-C.

    Examples:
      labwright demo
      labwright demo --once
      labwright demo --site-dir beamline
    """
    for name in FOREIGN:
        os.environ.pop(name, None)
    caller.output.shield()
    with _site(site_dir) as folder:
        caller.run(_demo(caller, folder, once=once))


@contextlib.contextmanager
def _site(chosen: Path | None) -> Generator[Path]:
    """Give a folder with the example site; one that is there already is used as it is."""
    if chosen is None:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="labwright-demo-", ignore_cleanup_errors=True) as folder:
            copy_example(EXAMPLE, Path(folder) / EXAMPLE)
            yield Path(folder) / EXAMPLE
        return
    folder = chosen.expanduser().absolute()
    if not (folder / SETTINGS).is_file():
        if folder.exists() and (folder.is_file() or any(folder.iterdir())):
            raise ConflictError(
                f"{folder} exists and holds no site",
                because="nothing that is there is overwritten",
                cure="name an empty folder, or one that does not exist",
            )
        copy_example(EXAMPLE, folder)
    yield folder


async def _demo(caller: Caller, folder: Path, *, once: bool) -> None:
    talk = caller.output.talk
    talk(f"the example site is in {folder}")
    async with _lab(caller, folder) as lab:
        emitted = await lab.emit((folder / EVENT).read_bytes())
        talk(f"sent the event {emitted.id} ({EVENT})")
        waited = await _wait(caller, lab, emitted)
        async with agents_up(caller, lab):
            row = await tune(caller, lab, folder)
            fleet = await call_all(caller, lab)
            await _tell(caller, lab, emitted, waited, readout=(row, fleet))
            if waited.timeout is not None:
                raise waited.timeout
            if once:
                raise typer.Exit(waited.exit_code() or int(row["outcome"] != "succeeded" or not fleet.succeeded))
            _tell_commands(caller, folder)
            await _interrupted()
            talk("ending")


@contextlib.asynccontextmanager
async def _lab(caller: Caller, folder: Path) -> AsyncGenerator[AsyncLab]:
    from labwright.client import connect_async
    from labwright.run.settings import load_settings
    from labwright.server import serving

    settings = load_settings(folder, os.environ)
    async with serving(settings, tied=True, say=caller.output.talk), connect_async(settings=settings) as lab:
        yield lab


async def _wait(caller: Caller, lab: AsyncLab, emitted: Emitted) -> Waited:
    from labwright.cli.waiting import wait

    return await wait(caller.output, lab, lab.follow_event(emitted), LONGEST_LOOP_S)


async def _tell(
    caller: Caller, lab: AsyncLab, emitted: Emitted, waited: Waited, *, readout: tuple[Mapping[str, Any], FleetResult]
) -> None:
    from labwright.cli.call import show_row
    from labwright.cli.fleet_call import show_rows
    from labwright.cli.pages import show_decision, show_why
    from labwright.cli.waiting import counts, run_fields, run_line

    row, fleet = readout
    runs = list(waited.runs.values())
    last = max(runs, key=lambda run: run.requested_at, default=None)
    story = await lab.why(last.id, seq=await lab.journal.last_seq()) if last else []
    event: dict[str, Any] = await lab.ask("event", event_id=emitted.key)
    output = caller.output

    def show() -> None:
        if waited.decision is not None:
            show_decision(output, waited.decision)
        output.text("", "runs")
        for run in runs:
            output.text(f"  {run_line(run)}")
        if last is not None:
            output.text("", f"why {last.id}")
            show_why(output, story)
        output.text("", f"the tuning on {AGENT}")
        show_row(caller, AGENT, row)
        output.text("", f"{FLEET_OPERATION} on {FLEET}")
        show_rows(caller, fleet)
        output.text("", f"the loop has closed: 1 event, 1 decision, {counts(runs)}, 1 session of {OPERATION}")
        output.text(
            "where to look next: labwright demo --site-dir beamline keeps this site, its rules in beamline/rules, its"
        )
        output.text("tasks in beamline/tasks.py; labwright new site mylab begins one of your own")

    document = {
        "ok": waited.timeout is None and not waited.has_failed and row["outcome"] == "succeeded" and fleet.succeeded,
        "site": str(lab.settings.folder),
        "event": event["event"],
        "decision": waited.decision,
        "runs": [run_fields(run) for run in runs],
        "why": story,
        "session": {"agent": AGENT, "operation": OPERATION, **row},
        "fleet": fleet.model_dump(mode="json", by_alias=True),
    }
    output.document(document, show)


def _tell_commands(caller: Caller, folder: Path) -> None:
    command_line = f"{_program()} --site {folder}"
    caller.output.talk("\nthe lab stays up; try in another terminal:")
    for words in (
        "runs list",
        f"plan {folder / 'events' / 'end-of-grid-scan.json'}",
        f"emit {folder / 'events' / 'end-of-grid-scan.json'} --wait",
        "events list",
        "tasks list",
        "agents list",
        f"call take_noise --on {AGENT} -p duration=5",
        f"call uxm_setup --on {FLEET}",
        "sessions list",
        "doctor",
    ):
        caller.output.talk(f"  {command_line} {words}")
    caller.output.talk("Ctrl-C ends it")


def _program() -> str:
    """Write how the program that runs can be called from another terminal."""
    import shlex
    import shutil
    import sys

    running = Path(sys.argv[0]).absolute()
    found = shutil.which("labwright")
    if found is not None and Path(found).resolve() == running.resolve():
        return "labwright"
    if running.name == "labwright" and os.access(running, os.X_OK):
        return shlex.quote(str(running))
    return f"{shlex.quote(sys.executable)} -m labwright"


async def _interrupted() -> None:
    import asyncio
    import signal

    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    await told.wait()
