"""`labwright tasks`: what can be run, and with which parameters."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from labwright.cli.caller import Caller, command, group
from labwright.cli.described import described, first_line, named
from labwright.core.roles import Role

tasks = group("What the site can run, with which parameters.")


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    app.add_typer(tasks, name="tasks", rich_help_panel=panel)


@command(tasks, "list")
def list_tasks(caller: Caller) -> None:
    """List the tasks: name, parameters, pool and what they are for.

    Example:
      labwright tasks list
    """
    items = described(caller)["tasks"]

    def show_all() -> None:
        rows = ([item["name"], ", ".join(_names(item)), item["pool"], first_line(item["doc"])] for item in items)
        caller.output.table(("name", "parameters", "pool", "about"), rows, nothing="the site has no tasks")

    caller.output.items(items, show_all)


@command(tasks, "show")
def show(caller: Caller, task: Annotated[str, typer.Argument(metavar="TASK", help="The task's name.")]) -> None:
    """Show one task: its steps, parameters with their types, deadlines and retry policy.

    Example:
      labwright tasks show reduce
    """
    found = named(described(caller)["tasks"], task, "task")
    caller.output.document(found, lambda: _show(caller, found))


def _names(task: dict[str, Any]) -> list[str]:
    required = task["params"].get("required", ())
    return [name if name in required else f"[{name}]" for name in task["params"].get("properties", {})]


def _show(caller: Caller, task: dict[str, Any]) -> None:
    from labwright.cli.pages import pairs

    output = caller.output
    output.text(task["name"])
    if task["doc"]:
        output.text(f"  {task['doc']}")
    limits = {name: task[name] for name in ("timeout", "total_timeout", "start_within") if task[name] is not None}
    output.text(
        f"  steps       {', '.join(task['steps']) or 'as its function says'}",
        f"  deadlines   {pairs(limits)} (seconds)",
    )
    output.text(f"  retry       {pairs(task['retry'])}", f"  pool        {task['pool']}")
    if task["role"] != Role.OPERATOR:
        output.text(f"  role        {task['role']}")
    if task["approve"]:
        output.text("  approve     every run waits until a person approves it")
    if task["locks"]:
        output.text(f"  locks       {', '.join(task['locks'])}")
    _show_parameters(caller, task["params"])


def _show_parameters(caller: Caller, schema: dict[str, Any]) -> None:
    required = schema.get("required", ())
    rows = [
        [name, kind(field), "required" if name in required else field.get("default"), field.get("description")]
        for name, field in schema.get("properties", {}).items()
    ]
    caller.output.table(("parameter", "type", "default", "about"), rows, nothing="it takes no parameters")


def kind(field: dict[str, Any]) -> str:
    """Write the type of a parameter's JSON schema.

    >>> kind({"anyOf": [{"type": "integer"}, {"type": "null"}]})
    'integer or null'
    """
    if "enum" in field:
        return " or ".join(map(str, field["enum"]))
    if "anyOf" in field:
        return " or ".join(kind(each) for each in field["anyOf"])
    if "items" in field:
        return f"array of {kind(field['items'])}"
    return str(field.get("type") or field.get("$ref", "anything").rpartition("/")[2])
