"""`labwright call`: start an operation of one agent or of a fleet, watch it, and tell how it ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labwright.cli.caller import Caller, command
from labwright.cli.failures import INTERRUPTED
from labwright.cli.fleet_call import call_fleet, is_fleet
from labwright.cli.options import (
    FailureBudget,
    OnFailureOption,
    Parallel,
    Parameters,
    Quorum,
    Retries,
    ReturnWithin,
    Serial,
    Settle,
    Waves,
    parameters,
)
from labwright.core.errors import LabwrightError, UsageError

if TYPE_CHECKING:
    from labwright.agents.handle import SessionHandle
    from labwright.client import AsyncLab
    from labwright.core.model import SessionSnapshot

LAST_LINES_S = 6.0
"""So long after the end of a session its last lines are waited for while none comes."""
RETURN_S = 30.0
"""So long an agent that goes away in the middle may take to come back with its session."""
BREATH = 1000
"""After so many lines, whatever else there is to do has its turn."""

Operation = Annotated[str, typer.Argument(metavar="OPERATION", help="The operation's name; labwright agents show.")]
On = Annotated[
    str,
    typer.Option("--on", metavar="SELECTOR", help="An agent's name, or a selector: crate=1,slot!=3, kind=smurf, all."),
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Print the session's id at once, and let it go on.", show_default=False)
]
Deadline = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="S",
        min=0,
        help="The deadline of each session in seconds, in place of the operation's own; then it is ended.",
        show_default=False,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="KEY",
        help="Same agent, operation and key is one session, however often called.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer, *, panel: str) -> None:
    """Declare the command."""
    command(app, panel=panel)(call)


def call(
    caller: Caller,
    operation: Operation,
    *,
    on: On,
    param: Parameters = None,
    no_wait: NoWait = False,
    timeout: Deadline = None,
    key: Key = None,
    quorum: Quorum = None,
    serial: Serial = False,
    settle: Settle = None,
    parallel: Parallel = None,
    waves: Waves = None,
    failure_budget: FailureBudget = None,
    on_failure: OnFailureOption = None,
    retries: Retries = None,
    return_within: ReturnWithin = None,
) -> None:
    """Start an operation of an agent, or of all that a selector chooses, and wait until it has ended everywhere.

    Of a named agent the log, the progress and what it shows come on standard error while it runs. Of a fleet, each
    target has a row: succeeded, failed, timeout, unreachable, refused, aborted or skipped. A process is started and
    goes on. Exit 1 if it did not succeed (fewer than --quorum), 3 if nobody is chosen, 6 if the agent is busy with
    something that excludes it.

    Where the lab is served, the call of a fleet is a run: it goes on whatever happens to this command. Ctrl-C asks
    whether to abort it. Agents are also reached without `serve`.

    Examples:
      labwright call dispense --on pump-1 -p volume_ml=2.5
      labwright call take_noise --on s2 -p duration=30 --timeout 120 --json
      labwright call uxm_setup --on 'crate=1,slot!=3' --quorum 7 --timeout 600
      labwright call restart_rssi --on kind=smurf --waves 1,10%,all --failure-budget 1
    """
    from labwright.client.agents import no_agent
    from labwright.core.errors import AgentGoneError

    given = parameters(param or ())
    fleet = {
        "quorum": quorum,
        "serial": serial or None,
        "settle_s": settle,
        "parallel": parallel,
        "waves": waves,
        "failure_budget": failure_budget,
        "on_failure": on_failure,
        "retries": retries,
        "return_within_s": return_within,
    }
    if is_fleet(on) or any(value is not None for value in fleet.values()):
        if key is not None:
            raise UsageError(
                "--key is for a call of one agent", because=f"--on {on} chooses several", cure="leave it out"
            )
        if no_wait and any(fleet[name] is not None for name in fleet.keys() - {"quorum"}):
            raise UsageError(
                "--no-wait starts the operation on all targets at once",
                because="whoever starts them one after another, or tries again, has to wait for them",
                cure="leave out --no-wait: the call goes on in the lab, also where this command is ended",
            )
        call_fleet(caller, operation, on, given, {"timeout_s": timeout, **fleet}, is_waiting=not no_wait)
        return
    options = {name: value for name, value in (("timeout_s", timeout), ("key", key)) if value is not None}
    started: list[str] = []

    async def called(lab: AsyncLab) -> None:
        try:
            session = await lab.agent(on).operation(operation).with_options(**options).start(**given)
        except AgentGoneError as error:
            if on in await lab.targets():
                raise typer.Exit(_tell_away(caller, operation, on, error)) from None
            raise no_agent(on, [agent["name"] for agent in await lab.agents()]) from error
        except LabwrightError as error:
            error.reword(cure=error.cure.replace("agents show NAME", f"agents show {on} {operation}"))
            raise
        started.append(session.id)
        await _follow(caller, lab, session, is_waiting=not no_wait)

    try:
        caller.with_lab(called)
    except KeyboardInterrupt:
        if not started:
            raise
        _tell_interrupted(caller, started[0])
        raise typer.Exit(INTERRUPTED) from None


def _tell_away(caller: Caller, operation: str, on: str, error: LabwrightError) -> int:
    """Give the row of a target of the site that is away; gives the exit code."""
    from labwright.cli.fleet_call import show_result
    from labwright.core.fleet import FleetResult, FleetRow, Outcome
    from labwright.core.model import ErrorRecord

    error.reword(cure="start it, or see who is here: labwright agents list")
    row = FleetRow(outcome=Outcome.UNREACHABLE, error=ErrorRecord.of(error))
    show_result(caller, FleetResult.of(operation, on, 1, {on: row}))
    return 1


def _tell_interrupted(caller: Caller, session_id: str) -> None:
    """Tell that the session goes on, in one line."""
    follow = f"labwright sessions log {session_id} --follow"
    if caller.output.as_json:
        caller.output.error(InterruptedCallError(session_id, cure=follow))
    else:
        caller.output.talk(f"interrupted; {session_id} goes on: {follow}")


class InterruptedCallError(LabwrightError):
    """Somebody has stopped waiting; the session goes on."""

    kind = "interrupted"
    exit_code = INTERRUPTED

    def __init__(self, session_id: str, *, cure: str) -> None:
        super().__init__("interrupted", because=f"the session {session_id} goes on", cure=cure)
        self.session_id = session_id


async def _follow(caller: Caller, lab: AsyncLab, session: SessionHandle, *, is_waiting: bool) -> None:
    from labwright.core.model import OperationKind

    if not is_waiting or session.snapshot.kind is OperationKind.PROCESS:
        _show_started(caller, session.snapshot)
        return
    caller.output.talk(f"{session.id} started; Ctrl-C stops waiting, it goes on")
    row = await watched(caller, lab, session)
    _show_end(caller, session.snapshot, row)
    if row["outcome"] != "succeeded":
        raise typer.Exit(1)


def _show_started(caller: Caller, snapshot: SessionSnapshot) -> None:
    from labwright.agents.shown import session_fields

    caller.output.items([session_fields(snapshot)], lambda: caller.output.text(snapshot.id))
    caller.output.talk(f"next: labwright sessions log {snapshot.id} --follow")


# --- waiting ---------------------------------------------------------------------------------------------------------


async def watched(caller: Caller, lab: AsyncLab, session: SessionHandle) -> dict[str, Any]:
    """Wait for a session, showing what it says; gives its row: how it ended, and with what."""
    from labwright.core.errors import AgentGoneError

    async with _shown_live(caller, lab, session):
        while True:
            try:
                return row_of(await session.wait())
            except AgentGoneError as error:
                caller.output.talk(f"{session.agent} is away; it has {RETURN_S:g} s to come back")
                if not await _comes_back(lab, session.agent):
                    return lost_row(session.snapshot, error)


async def _comes_back(lab: AsyncLab, agent: str) -> bool:
    """Wait for an agent that went away, as long as a fleet would."""
    from labwright.agents.following import Hearing

    try:
        async with asyncio.timeout(RETURN_S), Hearing(lab.journal.connection) as hearing:
            await hearing.came(agent)
    except TimeoutError:
        return False
    return True


def row_of(snapshot: SessionSnapshot) -> dict[str, Any]:
    """Give the row of a session that has ended."""
    from labwright.core.fleet import FleetRow

    row = FleetRow.of(snapshot).model_dump(mode="json", by_alias=True, exclude={"run"})
    if row["error"]:
        row["error"]["try"] = row["error"]["try"].replace("timeout_s", "--timeout")
    return row


def lost_row(snapshot: SessionSnapshot, error: LabwrightError) -> dict[str, Any]:
    """Give the row of a session whose agent has gone."""
    from labwright.cli.failures import error_fields

    cure = f"the session may come back with its agent: labwright sessions show {snapshot.id}"
    return {
        "outcome": "unreachable",
        "session": snapshot.id,
        "result": None,
        "error": {**error_fields(error), "try": cure},
        "duration_s": None,
    }


class _Telling:
    """Tells people the lines of a session's log as they come."""

    def __init__(self, caller: Caller, lab: AsyncLab, session: SessionHandle) -> None:
        self._caller = caller
        self._lab = lab
        self._session = session
        self._is_whole = False
        self._told = 0

    async def run(self) -> None:
        """Tell them to the last."""
        from labwright.cli.sessions import log_line
        from labwright.client.instruments import is_last_line

        async with aclosing(self._lab.session_log(self._session.id, agent=self._session.agent, follow=True)) as lines:
            async for line in lines:
                self._told += 1
                self._is_whole = is_last_line(line)
                if line["level"] != "debug":
                    self._caller.output.talk(log_line(line))
                if self._told % BREATH == 0:
                    await asyncio.sleep(0)

    async def finish(self, task: asyncio.Task[None]) -> None:
        """After the session's end: tell the rest, as long as lines come, and where they stand if not all have."""
        told = -1
        while not task.done() and told != self._told:
            told = self._told
            await asyncio.wait({task}, timeout=LAST_LINES_S)
        if not self._is_whole:
            self._caller.output.talk(f"more: labwright sessions log {self._session.id}")


@contextlib.asynccontextmanager
async def _shown_live(caller: Caller, lab: AsyncLab, session: SessionHandle) -> AsyncGenerator[None]:
    """Show people what a session logs and how it comes along while this lasts, and its last lines after that."""
    if caller.output.as_json:
        yield
        return
    telling = _Telling(caller, lab, session)
    tasks = (asyncio.create_task(telling.run()), asyncio.create_task(_tell_changes(caller, session)))
    try:
        yield
        await telling.finish(tasks[0])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tell_changes(caller: Caller, session: SessionHandle) -> None:
    """Tell how far it is and what it shows, each at most once in a while."""
    from time import monotonic

    from labwright.cli.pages import data_words, shown_data
    from labwright.cli.waiting import WORDS_EVERY_S, progress_words

    said: dict[str, tuple[str, float]] = {}
    async for snapshot in session.updates():
        words = {name: data_words(value, 200) for name, value in shown_data(snapshot.data).items()}
        if snapshot.progress is not None:
            words["progress"] = progress_words(snapshot.progress.model_dump())
        for name, text in words.items():
            before, at = said.get(name, ("", 0.0))
            if text != before and (snapshot.state.is_final or monotonic() - at >= WORDS_EVERY_S):
                said[name] = (text, monotonic())
                caller.output.talk(f"{name}: {text}")


# --- the end ---------------------------------------------------------------------------------------------------------


def _show_end(caller: Caller, session: SessionSnapshot, row: Mapping[str, Any]) -> None:
    fields = {
        "operation": session.operation,
        "selector": session.agent,
        "succeeded": row["outcome"] == "succeeded",
        "quorum": 1,
        "targets": {session.agent: row},
    }
    caller.output.document(fields, lambda: show_row(caller, session.agent, row))


def show_row(caller: Caller, on: str, row: Mapping[str, Any]) -> None:
    """Print how a session ended."""
    from labwright.cli.pages import data_words, seconds, show_error

    took = seconds(row["duration_s"]) if row["duration_s"] is not None else None
    result = data_words(row["result"], 200) if row["result"] is not None else None
    cells = [on, row["outcome"], took, row["session"], result]
    caller.output.table(("agent", "outcome", "took", "session", "result"), [cells])
    if row["error"]:
        show_error(caller.output, row["error"])
        caller.output.talk(f"next: labwright sessions show {row['session']}")
