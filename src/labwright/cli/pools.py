"""`labwright pools`: how much may run at once, and holding work back."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from labwright.cli.caller import Caller, command, group
from labwright.cli.described import named

pools = group("How many runs go at once; pause, drain and resume.")

Pool = Annotated[str, typer.Argument(metavar="POOL", help="The pool's name.")]
COLUMNS = ("name", "state", "concurrency", "running", "open")


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    app.add_typer(pools, name="pools", rich_help_panel=panel)


@command(pools, "list")
def list_pools(caller: Caller) -> None:
    """List the pools: state, how many runs may go at once, how many go and are open now.

    Example:
      labwright pools list
    """
    items = caller.ask("pools")
    rows = ([item[name] for name in COLUMNS] for item in items)
    caller.output.items(items, lambda: caller.output.table(COLUMNS, rows))


@command(pools, "show")
def show(caller: Caller, pool: Pool) -> None:
    """Show one pool.

    Example:
      labwright pools show default
    """
    found = named(caller.ask("pools"), pool, "pool")
    caller.output.document(found, lambda: caller.output.table(COLUMNS, [[found[name] for name in COLUMNS]]))


@command(pools, "pause")
def pause(caller: Caller, pool: Pool) -> None:
    """Hold back a pool: no run of it is started until `resume`; those that go on run to their end.

    Example:
      labwright pools pause default
    """
    _change(caller, pool, "paused")


@command(pools, "resume")
def resume(caller: Caller, pool: Pool) -> None:
    """Let the runs of a pool start again.

    Example:
      labwright pools resume default
    """
    _change(caller, pool, "active")


@command(pools, "drain")
def drain(caller: Caller, pool: Pool) -> None:
    """Let what has begun in a pool come to its end, retries included, and start nothing new.

    Use it before maintenance; `pools show` tells when nothing is running any more.

    Example:
      labwright pools drain default
    """
    _change(caller, pool, "draining")


def _change(caller: Caller, pool: str, state: str) -> None:
    async def changed(lab: Any) -> list[dict[str, Any]]:
        seq = await lab.change_pool(pool, state)
        return await lab.ask("pools", seq=seq)

    found = named(caller.with_lab(changed), pool, "pool")
    caller.output.document(found, lambda: caller.output.text(f"{pool}: {found['state']}"))
