"""`labwright agent` and `labwright agents`: start an agent, and see who is here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli.caller import Caller, command, group
from labwright.core.errors import UsageError
from labwright.core.ids import checked_name

if TYPE_CHECKING:
    from labwright.run.settings import Settings

agent = group("Run an agent: the process that owns one instrument.")
agents = group("Who is here: the agents, what they can do, and what they are doing.")

MODULE = "labwright.agents.main"

AgentClass = Annotated[
    str, typer.Argument(metavar="MODULE:CLASS", help="The agent's class, importable from the site's folder.")
]
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="The agent's name; one of that name at a time.")]
AgentName = Annotated[str, typer.Argument(metavar="NAME", help="The agent's name.")]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="A label, by which selectors choose it.", show_default=False),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="NAME=VALUE", help="An argument of the class's constructor.", show_default=False),
]
StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state",
        metavar="DIR",
        help="Where the agent keeps its ledger and its scripts' output; default: the site's state folder.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    app.add_typer(agent, name="agent", rich_help_panel=panel)
    app.add_typer(agents, name="agents", rich_help_panel=panel)


@command(agent, "start")
def start(
    caller: Caller,
    agent_class: AgentClass,
    *,
    name: Name,
    label: Labels = None,
    arg: Arguments = None,
    state: StateDir = None,
) -> None:
    """Run an agent in the foreground until Ctrl-C or SIGTERM.

    It finds the lab's journal through the site (connection.json in its state folder) or LABWRIGHT_URL, waits for it as
    long as it takes, and needs no `serve`. What its predecessor of that name left is taken up from the state folder.

    Examples:
      labwright agent start mylab.pump:Pump --name pump-1 --arg port=/dev/ttyUSB0
      labwright agent start mylab.pump:Pump --name pump-2 --label bench=2 --label kind=pump
    """
    checked_name(name, "agent")
    for option, texts in (("--label", label or ()), ("--arg", arg or ())):
        _check_pairs(option, texts)
    settings = caller.settings()
    caller.note_missing_file(settings)
    words = [agent_class, "--name", name, "--site", str(settings.folder)]
    words += ["--state", str((state or settings.state_dir).absolute())]
    words += [f"--label={text}" for text in label or ()]
    words += [f"--arg={text}" for text in arg or ()]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(  # noqa: S606 - the agent takes this process's place, without what the command line has imported
        sys.executable, [sys.executable, "-m", MODULE, *words, *_where(settings)], _environment(settings)
    )


def _check_pairs(option: str, texts: Iterable[str]) -> None:
    for text in texts:
        key, sign, _ = text.partition("=")
        if not sign or not key:
            raise UsageError(
                f"{option} {text} cannot be read", because="it is KEY=VALUE", cure=f"write {option} crate=1"
            )


def _where(settings: Settings) -> list[str]:
    """Tell the agent where the journal is."""
    if not settings.nats.url:
        return ["--connection", str(settings.state_dir / "connection.json")]
    return ["--url", settings.nats.url, *(["--creds", str(settings.creds_file)] if settings.creds_file else [])]


def _environment(settings: Settings) -> dict[str, str]:
    """Give the agent an environment in which the site's package can be imported, as the lab itself imports it."""
    path = [str(settings.folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "LABWRIGHT_SITE": str(settings.folder), "PYTHONPATH": os.pathsep.join(path)}


@command(agents, "list")
def list_agents(caller: Caller) -> None:
    """List the agents that are here now: class, labels, host, process. Needs no `serve`.

    Example:
      labwright agents list
    """
    from labwright.cli.pages import short_time

    items = caller.with_lab(lambda lab: lab.agents())
    columns = ("name", "class", "labels", "host", "pid", "since")

    def show() -> None:
        rows = (
            (
                item["name"],
                item.get("class"),
                labels_line(item.get("labels", {})),
                item.get("host"),
                item.get("pid"),
                short_time(item.get("since")),
            )
            for item in items
        )
        caller.output.rows(columns, rows, nothing="no agent is here", only_when_wide=("pid", "since"))

    caller.output.items(items, show)


@command(agents, "show")
def show_agent(caller: Caller, name: AgentName) -> None:
    """Show one agent: who it is, its operations with their parameters, its feeds and its sessions. Needs no `serve`.

    With --json the parameters of each operation are a JSON schema.

    Example:
      labwright agents show s2
    """
    found = caller.with_lab(lambda lab: lab.agent_shown(name))
    caller.output.document(found, lambda: _show(caller, found))


def labels_line(labels: Mapping[str, Any]) -> str:
    """Write labels as a selector names them."""
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _show(caller: Caller, found: Mapping[str, Any]) -> None:
    from rich.text import Text

    from labwright.cli.output import printable, styled

    output = caller.output
    output.text(Text.assemble((found["name"], "bold"), f"  {printable(str(found.get('class')))}"))
    if found.get("doc"):
        output.text(f"  {found['doc'].strip().partition(chr(10))[0]}")
    for name in ("labels", "host", "pid", "version", "site", "since"):
        value = labels_line(found["labels"]) if name == "labels" else found.get(name)
        output.text(Text.assemble((f"  {name:<11}", "dim"), printable(str(value if value is not None else "-") or "-")))
    rows = [_operation_row(operation) for operation in found.get("operations", ())]
    output.table(("operation", "kind", "parameters", "locks", "timeout", "does"), rows, nothing="no operation")
    feeds = found.get("feeds", ())
    if feeds:
        names = [feed if isinstance(feed, str) else feed["name"] for feed in feeds]
        output.text(f"feeds      {', '.join(names)}")
    for session in found.get("sessions", ()):
        state = styled(session["state"])
        output.text(
            Text.assemble(f"{session['id']}  {session['operation']} ", state, f"  by {printable(session['by'])}")
        )
    output.talk(styled(f"next: labwright call OPERATION --on {found['name']}", "dim"))


def _operation_row(operation: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        operation["name"],
        operation["kind"],
        parameters_line(operation.get("params") or {}),
        ", ".join(operation.get("locks") or ()),
        f"{operation['timeout']:g} s" if operation.get("timeout") else None,
        (operation.get("doc") or "").strip().partition("\n")[0],
    )


def parameters_line(schema: Mapping[str, Any]) -> str:
    """Write the parameters of an operation: name, type, and default where there is one."""
    required = schema.get("required", ())
    words: list[str] = []
    for name, field in schema.get("properties", {}).items():
        kinds = [field, *field.get("anyOf", ())]
        kind = "|".join(str(each["type"]) for each in kinds if "type" in each)
        default = "" if name in required else f"={_default(field)}"
        words.append(f"{name}{f': {kind}' if kind else ''}{default}")
    return ", ".join(words)


def _default(field: Mapping[str, Any]) -> str:
    import json

    return json.dumps(field.get("default"))
