"""`labwright schedules`: tasks that run at given times, whoever is logged in and whatever is restarted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from labwright.cli.caller import Caller, command, group
from labwright.cli.options import (
    FailureBudget,
    OnFailureOption,
    Parallel,
    Parameters,
    Waves,
    parameters,
)
from labwright.core.errors import UsageError

schedules = group("Tasks that run at given times.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
COLUMNS = ("name", "state", "task", "on", "when", "next", "open")
SHOWN_POLICIES = ("overlap", "late", "pause", "on_error", "window_s", "cutoff_s", "spread_s", "fleet")
ROW_COLUMNS = ("planned", "outcome", "reason", "runs")


def text_option(name: str, metavar: str, text: str) -> Any:
    """Declare an option that takes a text."""
    return typer.Option(name, metavar=metavar, help=text, show_default=False)


Every = Annotated[
    str | None,
    text_option("--every", "INTERVALS", "60s, or 5x60s,10x300s: one after the other. Units: ms s m h d."),
]
Cron = Annotated[str | None, text_option("--cron", "LINE", "A cron line: '30 2 * * 1-5'.")]
CalendarOption = Annotated[
    str | None, text_option("--calendar", "EXPR", "As in systemd: 'Mon..Fri *-*-* 02:30:00 Europe/Paris', or daily.")
]
At = Annotated[
    list[str] | None,
    text_option("--at", "WHEN", "A moment: 2026-03-01T09:00 in --zone, or with a zone. Repeatable."),
]
Zone = Annotated[
    str, typer.Option("--zone", metavar="ZONE", help="The time zone of --cron, --at, and a --calendar that names none.")
]


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    app.add_typer(schedules, name="schedules", rich_help_panel=panel)


@command(schedules, "add")
def add(
    caller: Caller,
    name: Name,
    *,
    task: Annotated[str, typer.Option("--task", metavar="TASK", help="What to run; labwright tasks list.")],
    param: Parameters = None,
    on: Annotated[
        str | None, text_option("--on", "SELECTOR", "On which targets: a name, or crate=1,slot!=3. One run on each.")
    ] = None,
    every: Every = None,
    cron: Cron = None,
    calendar: CalendarOption = None,
    at: At = None,
    zone: Zone = "UTC",
    priority: Annotated[int, typer.Option("--priority", metavar="N", help="A higher priority goes first.")] = 0,
    window: Annotated[
        float | None,
        typer.Option(
            "--window", metavar="S", min=0, help="A run starts at most so many seconds late.", show_default=False
        ),
    ] = None,
    cutoff: Annotated[
        float | None,
        typer.Option(
            "--cutoff",
            metavar="S",
            min=0,
            help="A run that has not ended so many seconds after its point is aborted.",
            show_default=False,
        ),
    ] = None,
    spread: Annotated[
        float,
        typer.Option("--spread", metavar="S", min=0, help="Spread the targets of a point over so many seconds."),
    ] = 0,
    parallel: Parallel = None,
    waves: Waves = None,
    failure_budget: FailureBudget = None,
    on_failure: OnFailureOption = None,
    overlap: Annotated[
        str,
        typer.Option(
            "--overlap",
            metavar="POLICY",
            help="While the run before is open: wait, skip, parallel, replace_running or replace_pending.",
        ),
    ] = "wait",
    late: Annotated[
        str, typer.Option("--late", metavar="POLICY", help="A point that comes late: run, or skip beyond --tolerance.")
    ] = "run",
    tolerance: Annotated[float, typer.Option("--tolerance", metavar="S", min=0, help="With --late skip: seconds.")] = 1,
    pause: Annotated[
        str,
        typer.Option("--pause", metavar="POLICY", help="Points of a pause: shift, skip, catch_up_one or catch_up_all."),
    ] = "shift",
    error: Annotated[
        str, typer.Option("--error", metavar="POLICY", help="When a run has failed: next_point, or stop (pause).")
    ] = "next_point",
) -> None:
    """Add a schedule: at each of its time points, a run of a task on each target that --on chooses.

    It is kept in the journal: it goes on after any restart, and no point is made twice. Points that came while the lab
    was down are missed, save the last one, which runs late unless --late skip.

    With --parallel, --waves, --failure-budget or --on-failure, one run of the task fleet-run makes those of a point as
    they are due.

    Examples:
      labwright schedules add readings --task reduce --every 60s
      labwright schedules add ramp --task tune --on slot-1 --every 5x60s,10x300s
      labwright schedules add nightly --task rotate --on env=prod --cron '30 2 * * *' --zone Europe/Paris --window 7200
      labwright schedules add weekly --task patch --on env=prod --calendar weekly --waves 1,10%,all --cutoff 14400
    """
    from labwright.plan.durable import ScheduleDefinition
    from labwright.plan.point_forms import to_form

    points = _points(every=every, cron=cron, calendar=calendar, at=at, zone=zone)
    fields = {
        "task": task,
        "on": on,
        "params": parameters(param or ()),
        "priority": priority,
        "points": to_form(points),
        "zone": getattr(points, "zone", zone),  # an expression may name its own
        "overlap": overlap,
        "late": late,
        "tolerance_s": tolerance,
        "pause": pause,
        "on_error": error,
        "window_s": window,
        "cutoff_s": cutoff,
        "spread_s": spread,
        "fleet": _fleet(parallel=parallel, waves=waves, failure_budget=failure_budget, on_failure=on_failure),
    }
    definition = ScheduleDefinition.given(**fields)

    async def added(lab: Any) -> dict[str, Any]:
        seq = await lab.add_schedule(name, definition)
        return await lab.ask("schedule", name=name, seq=seq)

    shown = caller.with_lab(added)

    def show() -> None:
        caller.output.text(f"{name}: {shown['when']}, next {_local(shown['next_at'], shown['zone'])}")
        caller.output.talk(f"next: labwright schedules preview {name}")

    caller.output.document(shown, show)


def _fleet(**options: Any) -> dict[str, Any] | None:
    """Give the options of a fan-out, if there is one."""
    from labwright.plan.fan_out import FanOut

    if not any(options.values()):
        return None
    return FanOut.given(**options).model_dump(mode="json", exclude_defaults=True)


def _points(*, every: str | None, cron: str | None, calendar: str | None, at: list[str] | None, zone: str) -> Any:
    """Read the one option that says when."""
    from labwright.plan.calendar import calendar as by_calendar
    from labwright.plan.cron import cron as by_cron
    from labwright.plan.point_forms import read_every
    from labwright.plan.timepoints import at as by_instants

    given = [each for each in (every, cron, calendar, at) if each]
    if len(given) != 1:
        raise UsageError(
            "a schedule needs one of --every, --cron, --calendar and --at",
            because="none says when it is due" if not given else "several of them say when it is due",
            cure="--every 60s, or --cron '30 2 * * *'",
        )
    if every:
        return read_every(every)
    if cron:
        return by_cron(cron, zone=zone)
    return by_calendar(calendar, zone=zone) if calendar else by_instants(*at or (), zone=zone)


@command(schedules, "list")
def list_schedules(caller: Caller) -> None:
    """List the schedules: state, what they run, when they are due next, how many of their runs are open.

    Example:
      labwright schedules list
    """
    items = caller.ask("schedules")
    rows = (
        [
            item["name"],
            item["state"],
            item["task"],
            item["on"],
            item["when"],
            _local(item["next_at"], item["zone"]),
            item["open"],
        ]
        for item in items
    )
    caller.output.items(items, lambda: caller.output.table(COLUMNS, rows))


@command(schedules, "show")
def show(
    caller: Caller,
    name: Name,
    *,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=200, help="At most so many points.")] = 20,
) -> None:
    """Show a schedule, and what became of its newest points, one row for each.

    A point has runs, or says why not: skipped_busy, skipped_late, missed_paused, missed_down, bypassed, failed.

    Example:
      labwright schedules show nightly
    """
    found = caller.ask("schedule", name=name, limit=limit)
    caller.output.document(found, lambda: _show(caller, found))


def _show(caller: Caller, found: Mapping[str, Any]) -> None:
    where = f" on {found['on']}" if found["on"] else ""
    why = f" ({found['reason']})" if found["reason"] else ""
    caller.output.text(f"{found['name']}: {found['task']}{where}, {found['when']}, {found['state']}{why}")
    caller.output.text(f"  next      {_local(found['next_at'], found['zone'])}")
    caller.output.text(f"  added by  {found['by'] or found['origin']}")
    policies = {
        key: found["definition"][key]
        for key in ("overlap", "late", "pause", "on_error", "window_s", "cutoff_s", "spread_s")
    }
    caller.output.text("  policies  " + " ".join(f"{key}={value}" for key, value in policies.items() if value))
    if found["waiting"]:
        caller.output.text(f"  waiting   {len(found['waiting'])}")
    rows = (
        [_local(row["planned_at"], found["zone"]), row["outcome"], row["reason"], " ".join(row["runs"])]
        for row in found["rows"]
    )
    caller.output.table(ROW_COLUMNS, rows, nothing="no point has come yet")


@command(schedules, "preview")
def preview(
    caller: Caller,
    name: Name,
    *,
    count: Annotated[int, typer.Option("-n", "--count", metavar="N", min=1, max=1000, help="So many points.")] = 10,
    zone: Annotated[
        str | None, text_option("--zone", "ZONE", "Show them in this time zone; default: the schedule's.")
    ] = None,
) -> None:
    """Show when a schedule is due next; nothing is run.

    Example:
      labwright schedules preview nightly -n 20
    """
    found = caller.ask("schedule_preview", name=name, count=count)
    shown_in = zone or found["zone"]
    items = [{"due_at": each, "local": _local(each, shown_in)} for each in found["due_at"]]

    def show() -> None:
        for item in items:
            caller.output.text(item["local"])
        if not items:
            caller.output.talk("no point is left")

    caller.output.items(items, show)


@command(schedules, "pause")
def pause(caller: Caller, name: Name) -> None:
    """Make no point until `resume`; what has been requested and has not begun is withdrawn, what runs goes on.

    What becomes of the points of the pause, its --pause policy says.

    Example:
      labwright schedules pause nightly
    """
    _change(caller, name, "pause")


@command(schedules, "resume")
def resume(caller: Caller, name: Name) -> None:
    """Go on after a pause.

    Example:
      labwright schedules resume nightly
    """
    _change(caller, name, "resume")


@command(schedules, "fire")
def fire(caller: Caller, name: Name) -> None:
    """Make a point now, beside the planned ones, in a pause too.

    Example:
      labwright schedules fire nightly
    """
    _change(caller, name, "fire")


@command(schedules, "skip")
def skip(
    caller: Caller,
    name: Name,
    *,
    count: Annotated[int, typer.Option("-n", "--count", metavar="N", min=1, help="So many points.")] = 1,
) -> None:
    """Leave out the next points: their rows say `bypassed`.

    Example:
      labwright schedules skip nightly -n 2
    """
    _change(caller, name, "skip", count=count)


@command(schedules, "remove")
def remove(caller: Caller, name: Name) -> None:
    """Remove a schedule; what it has requested and has not begun is withdrawn, what runs goes on.

    Example:
      labwright schedules remove readings
    """
    caller.with_lab(lambda lab: lab.change_schedule(name, "remove"))
    caller.output.document({"name": name, "state": "removed"}, lambda: caller.output.text(f"{name}: removed"))


def _change(caller: Caller, name: str, change: str, **options: Any) -> None:
    """Do something to a schedule, and show where it stands then."""

    async def changed(lab: Any) -> dict[str, Any]:
        seq = await lab.change_schedule(name, change, **options)
        return await lab.ask("schedule", name=name, seq=seq)

    found = caller.with_lab(changed)
    next_at = _local(found["next_at"], found["zone"])
    caller.output.document(found, lambda: caller.output.text(f"{name}: {found['state']}, next {next_at}"))


def _local(moment: str | None, zone: str) -> str:
    """Write a moment as people of a zone do."""
    from labwright.plan.local_time import zone_named

    if moment is None:
        return "-"
    local = datetime.fromisoformat(moment).astimezone(UTC if zone == "UTC" else zone_named(zone))
    digits = "milliseconds" if local.microsecond else "seconds"
    return f"{local:%a} {local.replace(tzinfo=None).isoformat(' ', timespec=digits)} {zone}"
