"""`labwright check` and `labwright new`: is the site sound, and begin another."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli.caller import Caller, command, group
from labwright.cli.described import loaded
from labwright.cli.examples import copy_example
from labwright.cli.pages import counted
from labwright.core.errors import ConflictError, SiteError, UsageError

if TYPE_CHECKING:
    from labwright.run.site_description import SiteDescription

PLACEHOLDER = "mylab"
RESERVED = frozenset({"tests", "events", "recipes"})
COUNTED = ("rules", "tasks", "targets", "pools", "schedules", "fact_sources", "providers", "implementors")

new = group("Begin something new from a template.")


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    app.add_typer(new, name="new", rich_help_panel=panel)
    command(app, panel=panel)(check)


def check(caller: Caller) -> None:
    """Load the site and validate everything in it; exit 1 with every finding.

    Use it before `serve` and `reload`, and in the site's own CI. It starts nothing.

    Example:
      labwright check --site mylab
    """
    from labwright.run.agent_checks import agent_findings

    caller.note_missing_file(caller.settings())
    of_agents = caller.run(agent_findings(caller.settings()))
    try:
        site = loaded(caller)
    except SiteError as error:
        findings = [*(error.findings or (error.message,)), *of_agents]
        _show_findings(caller, {"ok": False, "findings": findings, "folder": None})
        raise typer.Exit(1) from None
    site = site.model_copy(update={"findings": (*site.findings, *of_agents)})
    _show_findings(caller, summary(site))
    if site.findings:
        raise typer.Exit(1)


def summary(site: SiteDescription) -> dict[str, Any]:
    """Count what a site has, besides the tasks that every site has, and their pools."""
    from labwright.run.builtin import BUILTIN_TASKS

    counts = {name: len(getattr(site, name)) for name in COUNTED}
    counts["tasks"] -= len(BUILTIN_TASKS)
    counts["pools"] -= len({task.pool for task in BUILTIN_TASKS} - {"default"})
    return {"ok": not site.findings, "findings": list(site.findings), "folder": site.folder, **counts}


def counts_line(counts: dict[str, Any]) -> str:
    """Say in one line what a site has."""
    things = {name: name.replace("_", " ").removesuffix("s") for name in COUNTED}
    return ", ".join(counted(counts[name], thing) for name, thing in things.items() if counts.get(name))


def _show_findings(caller: Caller, found: dict[str, Any]) -> None:
    def show() -> None:
        for finding in found["findings"]:
            caller.output.text(f"- {finding}")
        if found["ok"]:
            caller.output.text(f"the site is sound: {counts_line(found)}")
        else:
            caller.output.talk(f"{counted(len(found['findings']), 'finding')}: mend them, then check again")

    caller.output.document(found, show)


@command(new, "site")
def new_site(
    caller: Caller, name: Annotated[str, typer.Argument(metavar="NAME", help="The site's folder and package.")]
) -> None:
    """Begin a site: a package with a rule and a task, targets, facts, an event, and tests that pass.

    Example:
      labwright new site mylab
    """
    folder = Path(name).expanduser()
    package = _package(folder.name)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConflictError(
            f"{folder} exists and is not empty",
            because="nothing that is there is overwritten",
            cure="choose another name, or empty the folder",
        )
    copy_example("template", folder, replace={PLACEHOLDER: package})

    def show() -> None:
        caller.output.text(str(folder.absolute()))
        caller.output.talk(f"next: cd {folder}; labwright check; labwright serve")
        caller.output.talk("its tests need pytest: pip install pytest; python -m pytest")

    caller.output.document({"folder": str(folder.absolute()), "package": package}, show)


def _package(name: str) -> str:
    """Name the site's package after its folder."""
    from importlib.util import find_spec

    package = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", package) or keyword.iskeyword(package):
        because = "it names a Python package: small letters, digits and _, a letter first"
    elif package in sys.stdlib_module_names or find_spec(package) is not None:
        because = "another Python package has that name"
    elif package in RESERVED:
        because = "the site has a folder of that name besides"
    else:
        return package
    raise UsageError(f"{name!r} cannot name a site", because=because, cure="labwright new site my_lab")
