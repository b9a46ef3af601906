"""`labwright run`: request a run of a task, on one target or on many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli.caller import Caller, command
from labwright.cli.options import (
    FailureBudget,
    OnFailureOption,
    Parallel,
    Parameters,
    Quorum,
    Timeout,
    Wait,
    Waves,
    moment,
    parameters,
)
from labwright.core.errors import UsageError
from labwright.core.request import Request

if TYPE_CHECKING:
    from labwright.client import AsyncLab, RequestedRuns

On = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="SELECTOR", help="The targets: a name, or crate=1,slot!=3. One run on each.", show_default=False
    ),
]
NotBefore = Annotated[
    str | None,
    typer.Option(
        "--not-before", metavar="WHEN", help="The earliest start: 2026-01-02T03:04:05Z, or +15m.", show_default=False
    ),
]
NotAfter = Annotated[
    str | None,
    typer.Option(
        "--not-after", metavar="WHEN", help="The latest start: 2026-01-02T03:04:05Z, or +15m.", show_default=False
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="KEY", help="Same task, target and key is one run, however often asked.", show_default=False
    ),
]
Priority = Annotated[int, typer.Option("--priority", metavar="N", help="A higher priority goes first.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only check the request and show what would run.", show_default=False)
]


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the command."""
    command(app, panel=panel)(run)


def run(
    caller: Caller,
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task's name; labwright tasks list.")],
    *,
    param: Parameters = None,
    on: On = None,
    wait: Wait = False,
    timeout: Timeout = None,
    priority: Priority = 0,
    not_before: NotBefore = None,
    not_after: NotAfter = None,
    key: Key = None,
    dry_run: DryRun = False,
    quorum: Quorum = None,
    parallel: Parallel = None,
    waves: Waves = None,
    failure_budget: FailureBudget = None,
    on_failure: OnFailureOption = None,
) -> None:
    """Request a run of a task: one on each target that --on chooses. Prints the ids of the runs.

    Use it for work that no event causes. The lab checks parameters and targets before anything is written. With --wait,
    the exit code is 1 if any run failed.

    With --parallel, --waves, --failure-budget, --on-failure or --quorum, one run of the task fleet-run makes the others
    as they are due: it is what is printed, aborted and retried (what has not succeeded is then tried again), and
    `labwright runs list --cause` shows the runs that it has made.

    Examples:
      labwright run reduce -p dcid=993677 --wait
      labwright run rotate-certificate --on 'env=prod,name!=api-3'
      labwright run calibrate --key 2026-01 --not-before +15m
      labwright run reduce -p @parameters.json --dry-run
      labwright run rotate-certificate --on env=prod --waves 1,10%,all --failure-budget 2 --wait
    """
    if timeout is not None and not wait:
        raise UsageError("--timeout needs --wait", because="without it nothing is waited for", cure="add --wait")
    request = Request(
        task,
        on=on,
        priority=priority,
        not_before=moment(not_before, "--not-before"),
        not_after=moment(not_after, "--not-after"),
        key=key,
        params=parameters(param or ()),
    )
    fleet = {
        "quorum": quorum,
        "parallel": parallel,
        "waves": waves,
        "failure_budget": failure_budget,
        "on_failure": on_failure,
    }
    if dry_run:
        _show_dry_run(caller, request)
        return
    wanted = _on_fleet(caller, request, fleet) if any(fleet.values()) else request
    caller.with_lab(lambda lab: _request(caller, lab, wanted, timeout if wait else None, wait=wait))


def _on_fleet(caller: Caller, request: Request, options: dict[str, Any]) -> Request:
    """Give the request for the run that makes the others, once theirs is known to be good."""
    from labwright.plan.fan_out import FanOut
    from labwright.run.fleets import run_request

    how = FanOut.given(**options)
    wanted = run_request(request, how)
    _, targets, _ = caller.with_lab(lambda lab: lab.prepare(request))
    how.needed(len(targets))
    return wanted


def _show_dry_run(caller: Caller, request: Request) -> None:
    from labwright.cli.pages import request_line
    from labwright.core.model import RequestRecord

    checked, targets, _ = caller.with_lab(lambda lab: lab.prepare(request))
    fields = RequestRecord.of(checked).model_dump(mode="json")

    def show() -> None:
        for target in targets:
            caller.output.text(request_line({**fields, "on": target}))
        caller.output.talk("nothing was requested: --dry-run")

    caller.output.document({"request": fields, "targets": list(targets)}, show)


async def _request(caller: Caller, lab: AsyncLab, request: Request, timeout_s: float | None, *, wait: bool) -> None:
    from asyncio import gather

    requested = await lab.request(request)
    if not requested.is_new:
        caller.output.talk("the lab has this request already, by its key; nothing was done again")
    if wait:
        await _wait(caller, lab, requested, timeout_s)
        return
    items = await gather(*(lab.run_shown(run_id, seq=requested.seq) for run_id in requested.runs))
    caller.output.items(items, lambda: caller.output.text(*requested.runs))
    caller.output.talk(f"next: labwright runs watch {requested.runs[0]}")


async def _wait(caller: Caller, lab: AsyncLab, requested: RequestedRuns, timeout_s: float | None) -> None:
    from labwright.cli.pages import counted, fleet_columns, fleet_rows
    from labwright.cli.waiting import about, run_fields, show_end, wait

    if not caller.output.as_json:
        caller.output.text(*requested.runs)
    caller.output.talk(f"requested {counted(len(requested.runs), 'run')}; Ctrl-C stops waiting, the runs go on")
    with about(", ".join(requested.runs), cure="labwright runs list"):
        waited = await wait(caller.output, lab, lab.follow_runs(requested), timeout_s)
    items = [run_fields(run) for run in waited.runs.values()]
    caller.output.items(items, lambda: None)
    show_end(caller.output, waited)
    for item in items if not caller.output.as_json else ():
        if (rows := fleet_rows(item["result"])) is not None and item["id"] in requested.runs:
            caller.output.table(fleet_columns(item["result"]), rows)
    if waited.timeout is not None:
        raise waited.timeout
    if waited.has_failed:
        raise typer.Exit(1)
