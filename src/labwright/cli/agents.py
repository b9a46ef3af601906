"""`labwright agent` and `labwright agents`: start an agent, and see who is here."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli.caller import Caller, command, group
from labwright.core.errors import NotFoundError, UsageError
from labwright.core.ids import checked_name
from labwright.core.roles import Role

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
OperationName = Annotated[
    str | None, typer.Argument(metavar="OPERATION", help="One of its operations.", show_default=False)
]
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
Creds = Annotated[
    Path | None,
    typer.Option(
        "--creds", metavar="FILE", help="The agent's own key file, from `labwright user add`.", show_default=False
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
    creds: Creds = None,
) -> None:
    """Run an agent in the foreground until Ctrl-C or SIGTERM.

    It finds the lab's journal through the site (connection.json in its state folder), LABWRIGHT_URL or a key file,
    waits for it as long as it takes, and needs no `serve`. What its predecessor of that name left is taken up from the
    state folder.

    Examples:
      labwright agent start mylab.pump:Pump --name pump-1 --arg port=/dev/ttyUSB0
      labwright agent start mylab.pump:Pump --name pump-2 --label bench=2 --label kind=pump
    """
    checked_name(name, "agent")
    for option, texts in (("--label", label or ()), ("--arg", arg or ())):
        _check_pairs(option, texts)
    key_file = None if creds is None else str(creds.expanduser().absolute())
    settings = caller.settings(overrides={"nats.creds": key_file})
    caller.note_missing_file(settings)
    words = [agent_class, "--name", name, "--site", str(settings.folder)]
    words += ["--state", str((state or settings.state_dir).absolute())]
    words += [f"--label={text}" for text in label or ()]
    words += [f"--arg={text}" for text in arg or ()]
    words.append(f"--errors={'json' if caller.output.as_json else 'text'}")
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
def show_agent(caller: Caller, name: AgentName, operation: OperationName = None) -> None:
    """Show one agent: who it is, its operations with their parameters, its feeds and its sessions. Needs no `serve`.

    With an operation, its help: what it does, and each of its parameters. With --json the parameters of each operation
    are a JSON schema.

    Examples:
      labwright agents show s2
      labwright agents show s2 take_noise
    """
    found = caller.with_lab(lambda lab: lab.agent_shown(name))
    if operation is None:
        caller.output.document(found, lambda: _show(caller, found))
        return
    chosen = _operation(found, operation)
    caller.output.document(chosen, lambda: _show_operation(caller, found["name"], chosen))


def _operation(agent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Find an operation of an agent.

    Raises:
        NotFoundError: there is none of that name.
    """
    from labwright.cli.described import nearest_of

    operations = {each["name"]: each for each in agent.get("operations", ())}
    if name in operations:
        return operations[name]
    near = nearest_of(name, operations)
    raise NotFoundError(
        f"{agent['name']} has no operation {name!r}",
        because=f"it has: {', '.join(operations) or 'none'}",
        cure=f"did you mean {near!r}?" if near else f"labwright agents show {agent['name']}",
    )


def _show_operation(caller: Caller, agent: str, operation: Mapping[str, Any]) -> None:
    from rich.text import Text

    from labwright.cli.output import printable, styled

    output = caller.output
    output.text(Text.assemble((operation["name"], "bold"), f"  {operation['kind']} of {agent}"))
    for line in inspect.cleandoc(operation.get("doc") or "").splitlines():
        output.text(f"  {line}")
    schema: Mapping[str, Any] = operation.get("params") or {}
    required = schema.get("required", ())
    rows = [
        (
            name,
            type_words(field),
            "required" if name in required else json.dumps(field.get("default"), ensure_ascii=False),
            field.get("description"),
        )
        for name, field in schema.get("properties", {}).items()
    ]
    output.table(("parameter", "type", "default", "is"), rows, nothing="no parameters")
    lines = {
        "locks": ", ".join(operation.get("locks") or ()),
        "timeout": f"{operation['timeout']:g} s" if operation.get("timeout") else "",
        "role": f"{role} or more" if (role := operation.get("role", Role.OPERATOR)) != Role.OPERATOR else "",
        "startup": "it begins with the agent" if operation.get("startup", False) is not False else "",
    }
    for name, text in lines.items():
        if text:
            output.text(Text.assemble((f"  {name:<9}", "dim"), printable(text)))
    words = "".join(f" -p {name}=VALUE" for name in required)
    output.talk(styled(f"next: labwright call {operation['name']} --on {agent}{words}", "dim"))


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
    if sessions := [_session_row(session) for session in found.get("sessions", ())]:
        output.table(("session", "operation", "state", "started", "took", "by"), sessions)
    output.talk(styled(f"next: labwright call OPERATION --on {found['name']}", "dim"))


def _session_row(session: Mapping[str, Any]) -> tuple[object, ...]:
    from labwright.cli.pages import duration, short_time

    started, ended = session["started_at"], session["ended_at"]
    took = duration(started, ended)
    return session["id"], session["operation"], session["state"], short_time(started), took, session["by"]


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
    from labwright.agents.border import arguments_line

    return arguments_line(schema)


def type_words(field: Mapping[str, Any]) -> str:
    """Name the types that a JSON schema allows; a choice by its values."""
    if "enum" in field:
        return "|".join(json.dumps(value, ensure_ascii=False) for value in field["enum"])
    kinds = [each for each in (field, *field.get("anyOf", ())) if "type" in each]
    words = [f"{each['type']} of {type_words(each['items'])}" if each.get("items") else each["type"] for each in kinds]
    return "|".join(words) or "any"
