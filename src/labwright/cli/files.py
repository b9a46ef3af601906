"""`labwright files`: the catalogue of what instruments have written."""

from __future__ import annotations

from typing import Annotated

import typer

from labwright.cli.caller import Caller, command, group
from labwright.cli.options import Cursor, Limit, SinceFilter, since

files = group("The catalogue of the files that instruments have announced.")

Agent = Annotated[
    str | None,
    typer.Option("--agent", metavar="NAME", help="Only files that this agent announced.", show_default=False),
]
Session = Annotated[
    str | None, typer.Option("--session", metavar="SESSION", help="Only files of this session.", show_default=False)
]
Action = Annotated[
    str | None, typer.Option("--action", metavar="ACTION", help="Only files of this action.", show_default=False)
]
Kind = Annotated[
    str | None, typer.Option("--kind", metavar="KIND", help="Only files of this kind.", show_default=False)
]

REST = 45
"""How wide the other columns of the list are where it is narrow."""
MOST_FOR_PATH = 20


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    app.add_typer(files, name="files", rich_help_panel=panel)


@command(files, "list")
def list_files(
    caller: Caller,
    *,
    agent: Agent = None,
    session: Session = None,
    action: Action = None,
    kind: Kind = None,
    since_text: SinceFilter = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> None:
    """List files, the newest first: path, size, checksum, and what they belong to.

    Examples:
      labwright files list --since 1d
      labwright files list --session ses_01JC --json
    """
    from labwright.cli.pages import short_time

    filters = {"agent": agent, "session": session, "action": action, "kind": kind, "since": since(since_text)}
    page = caller.with_lab(lambda lab: lab.files(limit=limit, cursor=cursor, **filters))
    columns = ("path", "size", "kind", "action", "agent", "session", "announced")

    def show() -> None:
        rows = [[*(file[name] for name in columns[:-1]), short_time(file["registered_at"])] for file in page["items"]]
        for row in rows:
            row[0] = cut_folder(row[0], max(MOST_FOR_PATH, caller.output.console.width - REST))
        caller.output.rows(columns, rows, nothing="no files", only_when_wide=("kind", "action", "session"))

    caller.output.items(page["items"], show, cursor=page["next_cursor"])


def cut_folder(path: str, most: int) -> str:
    """Cut a path's folder from the left where it is too long; the file's name stays whole.

    >>> cut_folder("/data/2026/01/scan.dat", 16), cut_folder("/data/scan.dat", 16), cut_folder("/data/scan.dat", 4)
    ('…26/01/scan.dat', '/data/scan.dat', '…/scan.dat')
    """
    if len(path) <= most:
        return path
    name = path.rpartition("/")[2]
    return "…" + path[-max(most - 2, len(name) + 1) :]
