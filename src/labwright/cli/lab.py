"""Keeping a lab: `serve`, `worker`, `reload`, `rebuild-view`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli import doctor
from labwright.cli.caller import Caller, command
from labwright.cli.site import counts_line, summary
from labwright.core.errors import ConflictError

if TYPE_CHECKING:
    from labwright.server import Server

Stop = Annotated[
    bool, typer.Option("--stop", help="End the lab of this site, its workers and its nats-server.", show_default=False)
]
Pools = Annotated[
    list[str] | None,
    typer.Option("--pool", metavar="POOL", help="Only runs of this pool; may be repeated.", show_default=False),
]
ListenOption = Annotated[
    str | None,
    typer.Option("--listen", metavar="HOST:PORT", help="Where to listen for other machines.", show_default=False),
]
TlsCert = Annotated[
    Path | None, typer.Option("--tls-cert", metavar="FILE", help="The server's certificate.", show_default=False)
]
TlsKey = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="The key of the certificate.", show_default=False)
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca", metavar="FILE", help="Who has signed the certificate; default: itself.", show_default=False
    ),
]


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    command(app, panel=panel)(serve)
    command(app, panel=panel)(worker)
    command(app, panel=panel)(reload)
    command(app, panel=panel)(doctor.doctor)
    command(app, "rebuild-view", panel=panel)(rebuild_view)


# --- serve -----------------------------------------------------------------------------------------------------------


def serve(
    caller: Caller,
    *,
    stop: Stop = False,
    listen: ListenOption = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
) -> None:
    """Start the lab of a site and keep it up, in the foreground, until Ctrl-C or SIGTERM.

    It starts a nats-server and workers of its own where none are configured, and takes up what an earlier one left. A
    site that does not load is refused with every finding; a second `serve` of a site is refused (exit 6). With --json,
    a line on standard output tells when it is ready, and logs are JSON lines.

    Nothing listens beyond this machine, where whoever may read the state folder is an admin. With --listen other
    machines may connect, by TLS and with the key of a user (`labwright user add`).

    Examples:
      labwright serve
      labwright serve --site mylab --json
      labwright serve --listen 192.168.1.5:4222 --tls-cert lab.crt --tls-key lab.key
      labwright serve --stop
    """
    if stop:
        _stop(caller)
        return
    from labwright.journal.nats_server import EmbeddedServer
    from labwright.server import serve as serve_lab

    files = {"nats.tls_cert": tls_cert, "nats.tls_key": tls_key, "nats.tls_ca": tls_ca}
    given = {key: str(path.expanduser().absolute()) for key, path in files.items() if path is not None}
    settings = caller.settings(overrides={**given, "nats.listen": listen})
    taken_over = not settings.nats.url and EmbeddedServer(settings.state_dir).is_locked()
    output = caller.output
    output.shield(is_logging=True)
    caller.note_missing_file(settings)
    output.talk(f"site {settings.folder}, state in {settings.state_dir}")
    caller.run(
        serve_lab(settings, output.talk, on_ready=lambda server: _tell_ready(caller, server, taken_over=taken_over)),
        verbose=True,
    )


def _tell_ready(caller: Caller, server: Server, *, taken_over: bool) -> None:
    counts = summary(server.host.description)
    status = server.status()
    if caller.output.as_json:
        caller.output.line({"ready": True, **status, **counts}, "")
        return
    for finding in counts["findings"]:
        caller.output.talk(f"finding: {finding}")
    caller.output.talk(_journal_line(server, taken_over=taken_over))
    caller.output.talk(counts_line(counts))
    site = site_option(caller.site)
    caller.output.talk(f"next, in another terminal: labwright{site} emit EVENT.json --wait, labwright{site} runs list")


def _journal_line(server: Server, *, taken_over: bool) -> str:
    if server.embedded is None:
        return f"journal at {server.settings.nats.url}"
    how = "taken over" if taken_over else "started"
    place = f", listening at {server.settings.nats.listen} by TLS" if server.settings.nats.listen else ""
    pid = server.embedded.pid()
    return f"journal in {server.settings.state_dir / 'journal'}, nats-server {how} (pid {pid}){place}"


def site_option(site: Path | None) -> str:
    """Give the option that names the site, for a hint."""
    return f" --site {site}" if site is not None else ""


def _stop(caller: Caller) -> None:
    from labwright.server import stop

    ended = caller.run(stop(caller.settings()))

    def show() -> None:
        caller.output.text(f"ended: {', '.join(ended)}" if ended else "nothing of this site was running")

    caller.output.document({"ended": ended}, show)


# --- around it -------------------------------------------------------------------------------------------------------


def worker(caller: Caller, pool: Pools = None) -> None:
    """Start one more worker for a lab and keep it up, in the foreground, until Ctrl-C or SIGTERM.

    `serve` starts workers by itself ([workers] in labwright.toml); use this for more, or for pools of their own.

    Examples:
      labwright worker
      labwright worker --pool slow --pool instruments
    """
    from labwright.run.worker_parent import WorkerParent

    settings = caller.settings()
    caller.ask("status")
    caller.output.shield(is_logging=True)
    arguments = ["--site", str(settings.folder)]
    for name in pool or ():
        arguments += ["--pool", name]
    caller.output.talk(f"a worker for {settings.folder} is starting; Ctrl-C ends it")
    caller.run(WorkerParent(arguments).run(), verbose=True)


def reload(caller: Caller) -> None:
    """Have the running lab load its site again, all or nothing.

    Use it after every change of the site's code or files. A site that does not load changes nothing: exit 1, with every
    finding. Runs under way are finished by the code that they began with.

    Example:
      labwright reload
    """
    from labwright.run.site_description import SiteDescription

    found = summary(SiteDescription.model_validate(caller.ask("reload")))

    def show() -> None:
        caller.output.text(f"loaded again: {counts_line(found)}")
        for finding in found["findings"]:
            caller.output.talk(f"finding: {finding}")

    caller.output.document(found, show)


def rebuild_view(caller: Caller) -> None:
    """Remove the view, the tables that answer questions, so that the next `serve` folds it again from the journal.

    Use it when doctor says so, or when the view's disk was damaged. Nothing is lost: the journal is the truth.

    Example:
      labwright serve --stop; labwright rebuild-view; labwright serve
    """
    from labwright.journal.view import remove_view
    from labwright.run.processes import hold_lock, lock_holder

    settings = caller.settings()
    lock = settings.state_dir / "serve.lock"
    held = hold_lock(lock)
    if held is None:
        raise ConflictError(
            "the lab of this site is running",
            because=f"pid {lock_holder(lock)} holds {lock} and writes the view",
            cure="labwright serve --stop, then try again",
        )
    view = settings.state_dir / "view.sqlite"
    existed = view.exists()
    remove_view(view)
    os.close(held)

    def show() -> None:
        caller.output.text(f"removed {view}" if existed else f"there was no view at {view}")
        caller.output.talk("next: labwright serve folds it again")

    fields: dict[str, Any] = {"view": str(view), "removed": existed}
    caller.output.document(fields, show)
