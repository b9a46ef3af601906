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
from labwright.cli.options import Cursor, Limit, since
from labwright.core.clock import lasting
from labwright.core.errors import NotFoundError, UnreachableError, UsageError
from labwright.core.ids import checked_name
from labwright.core.roles import Role

if TYPE_CHECKING:
    from labwright.client import AsyncLab
    from labwright.run.settings import Settings

agent = group("Run an agent: the process that owns one instrument.")
agents = group("Who is here: the agents, what they can do, and what they are doing.")

MODULE = "labwright.agents.main"
MOST_STAYS = 5
WHY = {
    "farewell": "it said farewell",
    "silent": "it fell silent",
    "replaced": "another of its name took its place",
    "unseen": "it went before that, while no lab looked",
}
"""How an agent went, in words."""

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
On = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="SELECTOR", help="Only these: a name, or class=Pump,crate=1,slot!=3.", show_default=False
    ),
]
Everybody = Annotated[
    bool, typer.Option("--all", help="Also those that were here and are away, with since when.", show_default=False)
]
HistoryOf = Annotated[
    str | None, typer.Argument(metavar="NAME", help="The agent's name; all agents without.", show_default=False)
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="WHEN",
        help="Only who was here then or came later: 2h, 3d, or 2026-01-02T03:04:05Z.",
        show_default=False,
    ),
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
def list_agents(caller: Caller, on: On = None, everybody: Everybody = False) -> None:
    """List the agents that are here now: class, labels, host, process. Needs no `serve`, save with --all.

    Examples:
      labwright agents list
      labwright agents list --on 'crate=1,slot!=3' --all
    """
    items = caller.with_lab(lambda lab: _listed(lab, on, everybody=everybody))
    names = ("name", "class", "labels", "host", "pid", "since")
    columns = (*names, "away since") if everybody else names
    nothing = "no agent is here" if on is None else f"no agent is chosen by {on}"

    def show() -> None:
        rows = (_agent_row(item)[: len(columns)] for item in items)
        caller.output.rows(columns, rows, nothing=nothing, only_when_wide=("pid", "since"))

    caller.output.items(items, show)


async def _listed(lab: AsyncLab, on: str | None, *, everybody: bool) -> list[dict[str, Any]]:
    here = await lab.agents(on)
    if not everybody:
        return here
    names = {each["name"] for each in here}
    away = [each for each in await lab.agents_away(on) if each["name"] not in names]
    both = [*({**each, "is_here": True} for each in here), *({**each, "is_here": False} for each in away)]
    return sorted(both, key=lambda each: each["name"])


def _agent_row(item: Mapping[str, Any]) -> tuple[object, ...]:
    from labwright.cli.pages import short_time

    names = (item["name"], item.get("class"), labels_line(item.get("labels", {})), item.get("host"), item.get("pid"))
    return *names, short_time(item.get("since")), short_time(item.get("gone_at"))


@command(agents, "history")
def history(
    caller: Caller,
    name: HistoryOf = None,
    *,
    since_text: Since = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> None:
    """List who was here when, newest first: when each agent came, when it went, and how that was noticed.

    An agent that was here before the lab looked has `found` before the moment at which it was found.

    Examples:
      labwright agents history
      labwright agents history s2 --since 1d
    """
    page = caller.with_lab(lambda lab: lab.agent_history(name, since=since(since_text), limit=limit, cursor=cursor))

    def show() -> None:
        columns = ("agent", "class", "host", "pid", "came", "went", "why")
        caller.output.rows(columns, map(_stay_row, page["items"]), nothing="no agent was here", only_when_wide=())

    caller.output.items(page["items"], show, cursor=page["next_cursor"])


def _stay_row(stay: Mapping[str, Any]) -> tuple[object, ...]:
    return stay["agent"], stay["class"], stay["host"], stay["pid"], came_words(stay), *gone_words(stay)


def came_words(stay: Mapping[str, Any]) -> str:
    """Say when an agent came, as far as that is known."""
    from labwright.cli.pages import short_time

    return f"{'found ' if stay['is_found'] else ''}{short_time(stay['came_at'])}".strip()


def gone_words(stay: Mapping[str, Any]) -> tuple[str, str]:
    """Say when an agent went, as far as that is known, and how."""
    from labwright.cli.pages import short_time

    return short_time(stay["gone_at"]), WHY.get(stay["why"] or "", stay["why"] or "here, as far as is known")


@command(agents, "show")
def show_agent(caller: Caller, name: AgentName, operation: OperationName = None) -> None:
    """Show one agent: who it is, its operations with their parameters, its feeds and its sessions. Needs no `serve`.

    With an operation, its help: what it does, and each of its parameters. With --json the parameters of each operation
    are a JSON schema.

    Examples:
      labwright agents show s2
      labwright agents show s2 take_noise
    """
    found = caller.with_lab(lambda lab: _with_stays(lab, name))
    if operation is None:
        caller.output.document(found, lambda: _show(caller, found))
        return
    chosen = _operation(found, operation)
    caller.output.document(chosen, lambda: _show_operation(caller, found["name"], chosen))


async def _with_stays(lab: AsyncLab, name: str) -> dict[str, Any]:
    """Describe an agent, and where a lab is served tell when it came and went lately.

    Raises:
        NotFoundError: it is not here; the error says since when.
    """
    try:
        found = await lab.agent_shown(name)
    except NotFoundError as error:
        stays = await _stays(lab, name)
        if not stays or stays[0]["why"] is None:
            raise
        went, why = gone_words(stays[0])
        raise NotFoundError(
            error.message,
            because=f"it was here until {went}: {why}",
            cure=f"labwright agents history {name}",
        ) from error
    return {**found, "stays": await _stays(lab, name)}


async def _stays(lab: AsyncLab, name: str) -> list[dict[str, Any]]:
    """Give the newest stays of an agent; without a lab nobody knows any."""
    try:
        return (await lab.agent_history(name, limit=MOST_STAYS))["items"]
    except UnreachableError:
        return []


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
        "timeout": lasting(operation["timeout"]) if operation.get("timeout") else "",
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
    if stays := found.get("stays"):
        output.table(("came", "went", "why"), [(came_words(stay), *gone_words(stay)) for stay in stays])
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
        lasting(operation["timeout"]) if operation.get("timeout") else None,
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
