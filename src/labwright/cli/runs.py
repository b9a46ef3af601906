"""`labwright runs`: see how runs go, end and retry them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli.caller import Caller, command, group
from labwright.cli.options import (
    OPEN,
    UNSUCCESSFUL,
    CauseFilter,
    Cursor,
    Limit,
    OnFilter,
    SinceFilter,
    StateFilter,
    TaskFilter,
    run_filters,
)
from labwright.cli.output import ReaderGoneError
from labwright.core.errors import LabwrightError, NotFoundError, UsageError

if TYPE_CHECKING:
    from labwright.client import AsyncLab
    from labwright.core.model import Run

PAGE = 500
SHOWN_S = 3.0
"""How long `abort` waits for runs to end before it tells how they are."""

runs = group("The runs of tasks: list, show, explain, watch, approve, abort, retry.")

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or the beginning of it.")]
RunIds = Annotated[list[str] | None, typer.Argument(metavar="RUN", help="Ids of runs.", show_default=False)]
Full = Annotated[bool, typer.Option("--full", help="Bring values that are too large to be shown.", show_default=False)]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with the lines to come.", show_default=False)]
FromStart = Annotated[
    bool, typer.Option("--from-start", help="Begin with the first step, not the one that failed.", show_default=False)
]

Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept and shown.", show_default=False)]


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    app.add_typer(runs, name="runs", rich_help_panel=panel)


# --- looking ---------------------------------------------------------------------------------------------------------


@command(runs, "list")
def list_runs(
    caller: Caller,
    *,
    state: StateFilter = None,
    task: TaskFilter = None,
    on: OnFilter = None,
    since: SinceFilter = None,
    cause: CauseFilter = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> None:
    """List runs, newest first; with --cause, as a tree: what an event or a run has caused, and what that has made.

    Use it to see what goes on and what went wrong.

    Examples:
      labwright runs list --cause run_01JC
      labwright runs list --state failed --since 2h
      labwright runs list --task reduce --on 'crate=1' --json
    """
    filters = run_filters(state=state, task=task, on=on, since_text=since, cause=cause)
    if cause is not None and "@" not in cause:  # what a person has caused is a list: it would be nearly everything
        filters["tree"] = filters.pop("cause")
    page = caller.with_lab(lambda lab: lab.runs(limit=limit, cursor=cursor, **filters))

    def show() -> None:
        columns = ("id", "task", "target", "state", "attempt", "requested", "note")
        rows = _tree(page["items"]) if "tree" in filters else map(_row, page["items"])
        caller.output.rows(columns, rows, nothing="no runs", only_when_wide=("attempt", "note"))

    caller.output.items(page["items"], show, cursor=page["next_cursor"])


def _tree(items: Sequence[dict[str, Any]]) -> Iterator[list[Any]]:
    """Give rows in which each run stands indented below the one that made it."""
    here = {item["id"] for item in items}
    below: dict[str | None, list[dict[str, Any]]] = {}
    for item in items:
        below.setdefault(item["parent"] if item["parent"] in here else None, []).append(item)
    waiting = [(item, 0) for item in reversed(below.get(None, []))]
    while waiting:
        item, depth = waiting.pop()
        identity, *rest = _row(item)
        yield ["  " * depth + identity, *rest]
        waiting += [(child, depth + 1) for child in reversed(below.get(item["id"], []))]


def _row(shown: dict[str, Any]) -> list[Any]:
    from labwright.cli.pages import brief, short_time, waits

    waiting, error = shown["waiting_for"], shown["error"]
    note = waits(waiting["detail"] or waiting["kind"]) if waiting else error["message"] if error else shown["note"]
    names = ("id", "task", "target", "state", "attempt")
    return [*(shown[name] for name in names), short_time(shown["requested_at"]), brief(note, 80)]


@command(runs, "show")
def show(caller: Caller, run_id: RunId, full: Full = False) -> None:
    """Show one run: state, what it waits for, its cause, steps, result, and where to look next.

    Examples:
      labwright runs show run_01JC
      labwright runs show run_01JC --full --json
    """
    from labwright.cli.pages import show_run

    found = caller.with_lab(lambda lab: lab.run_shown(run_id, full=full))
    caller.output.document(found, lambda: show_run(caller.output, found))


@command(runs, "why")
def why(caller: Caller, run_id: RunId) -> None:
    """Tell the story of a run: from the event or person that caused it to what followed.

    Example:
      labwright runs why run_01JC
    """
    from labwright.cli.pages import show_why

    story = caller.with_lab(lambda lab: lab.why(run_id))
    caller.output.document(story, lambda: show_why(caller.output, story))


@command(runs, "log")
def log(caller: Caller, run_id: RunId, follow: Follow = False) -> None:
    """Print what the steps of a run have logged; JSON lines with --json.

    Example:
      labwright runs log run_01JC --follow
    """
    caller.with_lab(lambda lab: _log(caller, lab, run_id, follow=follow))


async def _log(caller: Caller, lab: AsyncLab, run_id: str, *, follow: bool) -> None:
    from contextlib import aclosing

    from labwright.cli.pages import pairs

    found = await lab.run_shown(run_id)
    async with aclosing(lab.log(found["id"], follow=follow)) as lines:
        async for line in lines:
            fields = pairs(line.get("fields", {}))
            text = f"{line['at'][11:23]} {line['level']:<8}{line['text']}"
            caller.output.line(line, f"{text}  {fields}" if fields else text)


@command(runs, "watch")
def watch(
    caller: Caller,
    run_ids: RunIds = None,
    *,
    state: StateFilter = None,
    task: TaskFilter = None,
    on: OnFilter = None,
    since: SinceFilter = None,
    cause: CauseFilter = None,
) -> None:
    """Watch runs until they end, a line for each change: those named, those that filters choose, or all for ever.

    With --json, each line is a whole run. Exit 1 if one of those that were watched failed.

    Examples:
      labwright runs watch
      labwright runs watch run_01JC
      labwright runs watch --task reduce
    """
    filters = run_filters(state=state, task=task, on=on, since_text=since, cause=cause)
    caller.with_lab(lambda lab: _watch(caller, lab, run_ids or (), filters))


async def _watch(caller: Caller, lab: AsyncLab, run_ids: Sequence[str], filters: dict[str, Any]) -> None:
    from contextlib import aclosing, suppress
    from time import monotonic

    from labwright.cli.waiting import WORDS_EVERY_S, progress_words

    chosen = await found_runs(lab, run_ids, {"state": OPEN, **filters}) if run_ids or filters else []
    if filters and not chosen:
        caller.output.talk("nothing is open")
        return
    failed = False
    lines: dict[str, str] = {}

    said_at: dict[str, float] = {}

    def show_word(word: dict[str, Any]) -> None:
        run_id, now = str(word["run"]), monotonic()
        if caller.output.as_json or run_id not in lines or now - said_at.get(run_id, 0) < WORDS_EVERY_S:
            return
        said_at[run_id] = now
        with suppress(ReaderGoneError):  # the next change of a run tells
            caller.output.text(f"{lines[run_id]}: {progress_words(word)}")

    async with lab.progress(show_word), aclosing(lab.watch(chosen)) as all_shown:
        async for shown in all_shown:
            lines[shown["id"]] = _watch_line(shown)
            caller.output.line(shown, lines[shown["id"]])
            failed = failed or shown["state"] in UNSUCCESSFUL.split(",")
            if shown["state"] != "running":
                del lines[shown["id"]]
    if failed:
        raise typer.Exit(1)


def _watch_line(shown: dict[str, Any]) -> str:
    import json

    from labwright.cli.waiting import run_line
    from labwright.core.model import Run

    return run_line(Run.model_validate_json(json.dumps(shown)))


# --- approving, ending and retrying ----------------------------------------------------------------------------------


@command(runs, "approve")
def approve(
    caller: Caller,
    run_ids: RunIds = None,
    *,
    reason: Reason = "",
    state: StateFilter = None,
    task: TaskFilter = None,
    on: OnFilter = None,
    since: SinceFilter = None,
    cause: CauseFilter = None,
) -> None:
    """Let runs start that wait for a person's approval: those named, or all waiting ones that filters choose.

    Whoever approves may run the task themselves, and is an operator or more. Who it was, and why, is kept.

    Examples:
      labwright runs approve run_01JC --reason 'the chamber is closed'
      labwright runs approve --task bake-out --since 1h
    """
    filters = run_filters(state=state, task=task, on=on, since_text=since, cause=cause)
    _need_choice(run_ids, filters, "approve")

    async def let_start(lab: AsyncLab) -> None:
        chosen = await _chosen(lab, run_ids or (), {"state": "waiting", **filters}, wanted=_awaits_approval)
        done = await _each(caller, chosen, lambda run_id: lab.approve(run_id, reason=reason))
        from labwright.cli.waiting import run_fields

        _show_changed(caller, [run_fields(run) for run in done], "approved")

    caller.with_lab(let_start)


def _awaits_approval(shown: dict[str, Any]) -> bool:
    return shown["approve"] and shown["approved"] is None


@command(runs, "abort")
def abort_runs(
    caller: Caller,
    run_ids: RunIds = None,
    *,
    state: StateFilter = None,
    task: TaskFilter = None,
    on: OnFilter = None,
    since: SinceFilter = None,
    cause: CauseFilter = None,
) -> None:
    """End runs early: those named, or all open ones that filters choose.

    A step that runs is asked to stop at once, and is stopped hard if it does not; one that ended stays as it is.

    Examples:
      labwright runs abort run_01JC
      labwright runs abort --task reduce --since 1h
    """
    filters = run_filters(state=state, task=task, on=on, since_text=since, cause=cause)
    _need_choice(run_ids, filters, "abort")
    caller.with_lab(lambda lab: _abort(caller, lab, run_ids or (), {"state": OPEN, **filters}))


async def _abort(caller: Caller, lab: AsyncLab, run_ids: Sequence[str], filters: dict[str, Any]) -> None:
    ended = await abort_chosen(caller, lab, await _chosen(lab, run_ids, filters))
    _show_changed(caller, ended, "asked to end")


async def abort_chosen(caller: Caller, lab: AsyncLab, run_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Have runs (by their whole ids) end early, and give them as they are a while later."""
    from asyncio import timeout
    from contextlib import aclosing

    await _each(caller, run_ids, lab.abort)
    ended: dict[str, dict[str, Any]] = {}
    try:
        async with timeout(SHOWN_S), aclosing(lab.watch(run_ids)) as all_shown:
            async for shown in all_shown:
                ended[shown["id"]] = shown
    except TimeoutError:
        pass
    return list(ended.values())


@command(runs, "retry")
def retry(
    caller: Caller,
    run_ids: RunIds = None,
    *,
    from_start: FromStart = False,
    state: StateFilter = None,
    task: TaskFilter = None,
    on: OnFilter = None,
    since: SinceFilter = None,
    cause: CauseFilter = None,
) -> None:
    """Try ended runs again, from the step that failed or from the start.

    Use it when what made them fail is mended. Filters choose among failed, aborted and expired runs.

    Examples:
      labwright runs retry run_01JC
      labwright runs retry --state failed --task reduce --since 1d
    """
    filters = run_filters(state=state, task=task, on=on, since_text=since, cause=cause)
    _need_choice(run_ids, filters, "retry")

    async def again(lab: AsyncLab) -> None:
        chosen = await _chosen(lab, run_ids or (), {"state": UNSUCCESSFUL, **filters})
        done = await _each(caller, chosen, lambda run_id: lab.retry(run_id, from_start=from_start))
        from labwright.cli.waiting import run_fields

        _show_changed(caller, [run_fields(run) for run in done], "will be tried again")

    caller.with_lab(again)


def _need_choice(run_ids: Sequence[str] | None, filters: dict[str, Any], verb: str) -> None:
    if bool(run_ids) == bool(filters):
        raise UsageError(
            f"{verb} needs ids of runs, or filters",
            because="both were given" if run_ids else "neither was given",
            cure=f"labwright runs {verb} run_01JC, or labwright runs {verb} --task reduce",
        )


def _anything(_shown: dict[str, Any]) -> bool:
    return True


async def _chosen(
    lab: AsyncLab,
    run_ids: Sequence[str],
    filters: dict[str, Any],
    *,
    wanted: Callable[[dict[str, Any]], bool] = _anything,
) -> list[str]:
    if found := await found_runs(lab, run_ids, filters, wanted=wanted):
        return found
    words = ", ".join(f"{name} {str(value).replace(',', ' or ')}" for name, value in filters.items())
    raise NotFoundError("no run is chosen", because=f"there is none with {words}", cure="see labwright runs list")


async def found_runs(
    lab: AsyncLab,
    run_ids: Sequence[str],
    filters: dict[str, Any],
    *,
    wanted: Callable[[dict[str, Any]], bool] = _anything,
) -> list[str]:
    """Give the whole ids of those that are named, or of all that filters choose and that are wanted."""
    if run_ids:
        return [(await lab.run_shown(run_id))["id"] for run_id in dict.fromkeys(run_ids)]
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await lab.runs(limit=PAGE, cursor=cursor, **filters)
        found += [item["id"] for item in page["items"] if wanted(item)]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def _each(caller: Caller, chosen: Sequence[str], act: Callable[[str], Coroutine[Any, Any, Run]]) -> list[Run]:
    """Act on every run; the first failure is told at the end, when the others have had their turn."""
    done: list[Run] = []
    failures: list[LabwrightError] = []
    for run_id in chosen:
        try:
            done.append(await act(run_id))
        except LabwrightError as error:
            failures.append(error)
    if failures:
        for error in failures[:-1]:
            caller.output.error(error)
        raise failures[-1]
    return done


def _show_changed(caller: Caller, items: list[dict[str, Any]], words: str) -> None:
    def show_all() -> None:
        for item in items:
            final = item["state"] in {"succeeded", *UNSUCCESSFUL.split(",")}
            caller.output.text(f"{item['id']} {item['task']}: {item['state'] if final else words}")

    caller.output.items(items, show_all)
