"""`labwright sessions`: what agents do and have done; its log; ending it early."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli.caller import Caller, command, ended_by_interruption, group
from labwright.cli.options import Cursor, Limit, SinceFilter, since
from labwright.core.errors import LabwrightError
from labwright.core.model import SessionState

if TYPE_CHECKING:
    from labwright.client import AsyncLab
    from labwright.core.model import SessionSnapshot

sessions = group("The sessions of agents' operations: list, show, log, stop, abort.")

SHOWN_S = 5.0
"""How long `abort` and `stop` wait for a session to end before they tell how it is."""

SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id, or the beginning of it.")]
SessionIds = Annotated[list[str], typer.Argument(metavar="SESSION", help="Ids of sessions.")]
State = Annotated[
    str | None,
    typer.Option("--state", metavar="STATE[,STATE]", help="Only sessions in these states.", show_default=False),
]
AgentFilter = Annotated[
    str | None, typer.Option("--agent", metavar="NAME", help="Only sessions of this agent.", show_default=False)
]
OperationFilter = Annotated[
    str | None,
    typer.Option("--operation", metavar="OPERATION", help="Only sessions of this operation.", show_default=False),
]
RunFilter = Annotated[
    str | None, typer.Option("--run", metavar="RUN", help="Only sessions that this run asked for.", show_default=False)
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with the lines to come.", show_default=False)]


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the commands."""
    app.add_typer(sessions, name="sessions", rich_help_panel=panel)


@command(sessions, "list")
def list_sessions(
    caller: Caller,
    *,
    state: State = None,
    agent: AgentFilter = None,
    operation: OperationFilter = None,
    run: RunFilter = None,
    since_text: SinceFilter = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> None:
    """List sessions, newest first, history included. One that is open while its agent is absent is shown as lost.

    Examples:
      labwright sessions list --agent s2 --since 1d
      labwright sessions list --state running,stopping --json
    """
    from labwright.cli.pages import brief, short_time

    filters = {"state": state, "agent": agent, "operation": operation, "run": run, "since": since(since_text)}
    page = caller.with_lab(lambda lab: lab.sessions(limit=limit, cursor=cursor, **filters))

    def row(shown: Mapping[str, Any]) -> list[Any]:
        note = shown["error"]["message"] if shown["error"] else latest(shown)
        names = ("id", "agent", "operation", "state")
        return [*(shown[name] for name in names), short_time(shown["started_at"]), brief(note, 80)]

    def show() -> None:
        columns = ("id", "agent", "operation", "state", "started", "said")
        caller.output.rows(columns, map(row, page["items"]), nothing="no sessions", only_when_wide=("said",))

    caller.output.items(page["items"], show, cursor=page["next_cursor"])


@command(sessions, "show")
def show(caller: Caller, session: SessionId) -> None:
    """Show one session: state, parameters, messages, data, and how it ended.

    What goes on is asked of its agent. Without `serve` the whole id is needed, and the journal tells what it knows.

    Example:
      labwright sessions show ses_01JC
    """
    found = caller.with_lab(lambda lab: lab.session_shown(session))
    caller.output.document(found, lambda: show_session(caller, found))


@command(sessions, "log")
def log(caller: Caller, session: SessionId, follow: Follow = False) -> None:
    """Print what a session has logged, the output of its scripts included; JSON lines with --json.

    Example:
      labwright sessions log ses_01JC --follow
    """
    with ended_by_interruption():
        caller.with_lab(lambda lab: _log(caller, lab, session, follow=follow))


async def _log(caller: Caller, lab: AsyncLab, session: str, *, follow: bool) -> None:
    from contextlib import aclosing

    async with aclosing(lab.session_log(session, follow=follow)) as lines:
        async for line in lines:
            caller.output.line(line, log_line(line))


@command(sessions, "stop")
def stop(caller: Caller, session: SessionIds) -> None:
    """Ask processes to end, which is their success; a task cannot be stopped, only aborted.

    Example:
      labwright sessions stop ses_01JC
    """
    caller.with_lab(lambda lab: _end(caller, lab, session, "stop"))


@command(sessions, "abort")
def abort(caller: Caller, session: SessionIds) -> None:
    """End sessions early, hard if they do not end by themselves; one that has ended stays as it is.

    Example:
      labwright sessions abort ses_01JC
    """
    caller.with_lab(lambda lab: _end(caller, lab, session, "abort"))


async def _end(caller: Caller, lab: AsyncLab, ids: Sequence[str], verb: str) -> None:
    items, failures = await ended_each(ids, lambda session_id: end_session(lab, session_id, verb))
    if items:
        show_ended(caller, items)
    raise_last(caller, failures)


async def end_session(lab: AsyncLab, session_id: str, verb: str, *, agent: str | None = None) -> dict[str, Any]:
    """Stop or abort a session, and give it as it is once it has ended, or a while later."""
    from labwright.agents.shown import session_fields
    from labwright.core.errors import WaitTimeoutError

    handle = await lab.session(session_id, agent=agent)
    snapshot: SessionSnapshot = await (handle.stop() if verb == "stop" else handle.abort())
    if not snapshot.state.is_final:
        try:
            snapshot = await handle.wait(SHOWN_S)
        except WaitTimeoutError:
            snapshot = await handle.status()
    return session_fields(snapshot)


async def ended_each(
    ids: Sequence[str], end: Callable[[str], Awaitable[dict[str, Any]]]
) -> tuple[list[dict[str, Any]], list[LabwrightError]]:
    """Act on each; gives those that worked, and what went wrong with the others."""
    done: list[dict[str, Any]] = []
    failures: list[LabwrightError] = []
    for session_id in dict.fromkeys(ids):
        try:
            done.append(await end(session_id))
        except LabwrightError as error:
            failures.append(error)
    return done, failures


def raise_last(caller: Caller, failures: Sequence[LabwrightError]) -> None:
    """Tell what has gone wrong; the last of it ends the command.

    Raises:
        LabwrightError: something has.
    """
    for error in failures[:-1]:
        caller.output.error(error)
    if failures:
        raise failures[-1]


def show_ended(caller: Caller, items: Sequence[Mapping[str, Any]]) -> None:
    """Tell how sessions are that were asked to end."""

    def show_all() -> None:
        for item in items:
            final = SessionState(item["state"]).is_final
            what = f"{item['operation']} on {item['agent']}"
            caller.output.text(f"{item['id']} {what}: {item['state'] if final else 'asked to end'}")

    caller.output.items(items, show_all)


def latest(shown: Mapping[str, Any]) -> str | None:
    """Give what a session has said last."""
    return shown["note"] or (shown["messages"][-1]["text"] if shown["messages"] else None)


def log_line(line: Mapping[str, Any]) -> str:
    """Write a line of a log for people."""
    from labwright.cli.pages import pairs

    fields = dict(line.get("fields", {}))
    origin = {"out": "stdout", "err": "stderr"}.get(str(fields.pop("stream", "")), line["level"])
    text = f"{line['at'][11:23]} {origin:<8}{line['text']}"
    text = f"{text}  {pairs(fields)}" if fields else text
    return f"({line['lost_before']} lines are missing here)\n{text}" if line.get("lost_before") else text


def show_session(caller: Caller, shown: Mapping[str, Any]) -> None:
    """Print a session: where it stands, what it was given, what it says, and how it ended."""
    from rich.text import Text

    from labwright.cli.output import printable, styled
    from labwright.cli.pages import data_words, show_error, shown_data

    output = caller.output
    what = f"  {printable(shown['operation'] + ' on ' + shown['agent'])}  "
    output.text(Text.assemble((shown["id"], "bold"), what, styled(shown["state"])))
    for name, value in _lines_about(shown):
        output.text(Text.assemble((f"  {name:<11}", "dim"), printable(value)))
    if shown["messages_dropped"]:
        output.text(
            styled(f"  {shown['messages_dropped']} older messages: labwright sessions log {shown['id']}", "dim")
        )
    for message in shown["messages"]:
        output.text(f"  {message['at'][11:19]}  {message['text']}")
    result = shown["result"]
    for name, value in shown_data(shown["data"]).items():
        if value != result:
            output.text(Text.assemble("  ", (name, "bold"), f" {printable(data_words(value, 200))}"))
    if result is not None:
        output.text(Text.assemble(("result ", "bold"), printable(data_words(result))))
    if shown["error"]:
        show_error(output, shown["error"])
    output.talk(styled(f"next: labwright sessions log {shown['id']}", "dim"))


def _lines_about(shown: Mapping[str, Any]) -> list[tuple[str, str]]:
    from labwright.cli.pages import duration, pairs, shown_data
    from labwright.cli.waiting import progress_words

    took = duration(shown["started_at"], shown["ended_at"])
    lines = [("started", shown["started_at"] + (f", took {took}" if took else ""))]
    lines += [(name, str(shown[name])) for name in ("by", "run", "key", "note") if shown[name]]
    if params := shown_data(shown["params"]):
        lines.append(("parameters", pairs(params)))
    if shown["progress"] and not shown["ended_at"]:
        lines.append(("progress", progress_words(shown["progress"])))
    return lines
