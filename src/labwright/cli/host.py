"""Keeping a machine's agents: `host`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labwright.cli.caller import Caller, command

if TYPE_CHECKING:
    from labwright.run.host import Host

Ocs = Annotated[
    Path | None,
    typer.Option("--ocs", metavar="FILE", help="An OCS site configuration, read too.", show_default=False),
]
OcsHost = Annotated[
    str,
    typer.Option("--host", metavar="HOST", help="The host in that file; default: this machine's.", show_default=False),
]
Name = Annotated[
    str,
    typer.Option("--name", metavar="NAME", help="The host's own name; default: host-HOSTNAME.", show_default=False),
]


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the command."""
    command(app, panel=panel)(host)


def host(caller: Caller, ocs: Ocs = None, ocs_host: OcsHost = "", name: Name = "") -> None:
    """Keep this machine's agents up or down, in the foreground, until Ctrl-C or SIGTERM, which ends them all.

    They stand in labwright.toml ([agents.NAME] with class, labels, arguments, manage) and in an OCS site configuration,
    if one is given. What dies is started again, after longer and longer pauses. Both files are read again when they
    change, and on SIGHUP. The host is an agent itself: see its process `manager`, and have agents up or down with its
    operation `update`. What an agent prints is in agent.log in its state folder.

    Examples:
      labwright host
      labwright host --ocs /config/default.yaml --host smurf-srv20
      labwright call update --on host-smurf-srv20 -p requests='[["all", "down"]]'
    """
    from labwright.run.host_agent import serve_host
    from labwright.run.wanted import Sources

    settings = caller.settings()
    output = caller.output
    output.shield(is_logging=True)
    if ocs is None:
        caller.note_missing_file(settings)
    sources = Sources(
        folder=settings.folder, ocs_file=None if ocs is None else ocs.expanduser().absolute(), ocs_host=ocs_host
    )
    output.talk(f"site {settings.folder}, state in {settings.state_dir}")
    caller.run(serve_host(settings, sources, name=name, on_ready=lambda kept: _tell_ready(caller, kept)), verbose=True)


def _tell_ready(caller: Caller, kept: Host) -> None:
    names = sorted(kept.agents)
    if caller.output.as_json:
        caller.output.line({"ready": True, "agents": names, "findings": list(kept.findings)}, "")
        return
    caller.output.talk(f"agents: {', '.join(names) or 'none'}")
