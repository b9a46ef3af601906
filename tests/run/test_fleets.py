"""Fleets in a whole lab: calls that outlive their caller and their worker, and tasks on many targets, in waves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from labwright import Agent, Session, operation
from labwright.agents.fleet import Asked
from labwright.agents.serving import serving as serving_agent
from labwright.client import AsyncLab, connect_async
from labwright.core.errors import FleetFailedError, NotFoundError, UsageError
from labwright.core.fleet import FleetResult
from labwright.core.model import OperationKind, Run, RunState
from labwright.core.request import Request
from labwright.journal.connection import Address
from labwright.journal.journal import Entry
from labwright.journal.presence import ProcessIdentity
from labwright.journal.records import SessionEnded, SessionStarted
from labwright.journal.session_fold import session_subject
from labwright.plan.fan_out import FanOut
from labwright.run.fleets import RunFleets, run_request
from labwright.run.settings import Settings, load_settings
from labwright.server import Server, serving

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

PACKAGE = """\
import asyncio
from pathlib import Path

from labwright import Request, Task, TerminalError, rule, step
from labwright.conditions import event_type

PLACE = Path(__file__).resolve().parent.parent


@step
async def act(ctx):
    with (PLACE / "ledger.txt").open("a") as file:
        file.write(f"{ctx.target.name}\\\\n")
    if ctx.target.name in (PLACE / "broken.txt").read_text().split():
        raise TerminalError(f"{ctx.target.name} is broken")
    return ctx.target.name


@step
async def hang(ctx):
    with (PLACE / "ledger.txt").open("a") as file:
        file.write(f"{ctx.target.name}\\\\n")
    await asyncio.sleep(600)


@step
async def tune_all(ctx):
    outcome = await ctx.fleet("kind=card", quorum=1).tune(band=ctx.params.band)
    return outcome.counts


@step
def tune_all_blocking(ctx):
    return ctx.fleet("kind=card", quorum=1).tune(band=2).counts


@rule(event_type("cards.tuned"))
def act_on_cards(scenario):
    yield Request("acting", on="class=Card,slot!=1")


acting = Task("acting", steps=[act])
hanging = Task("hanging", steps=[hang])
tuning = Task("tuning", steps=[tune_all, tune_all_blocking])
""".replace("\\\\n", "\\n").replace("ctx.params.band", "1")

TARGETS = "\n".join(f"- {{name: t{number}, labels: {{kind: pump}}}}" for number in range(1, 9))


class Card(Agent):
    """A card that can be tuned."""

    def __init__(self) -> None:
        self.tuned: list[int] = []
        self.warmed = 0
        self.is_slow = False

    @operation(at_once=10, grace=0.2)
    async def warm(self, session: Session) -> None:
        """Warm up."""
        self.warmed += 1
        await asyncio.sleep(600 if self.is_slow else 0)

    @operation(at_once=10)
    async def tune(self, session: Session, band: int = 0) -> int:
        """Tune."""
        self.tuned.append(band)
        return band

    @operation(at_once=10, grace=0.2)
    async def sleep(self, session: Session, seconds: float = 60) -> None:
        """Sleep."""
        self.tuned.append(-1)
        await asyncio.sleep(seconds)


class Here:
    """A lab with cards, and what these tests ask of it."""

    def __init__(self, settings: Settings, server: Server, lab: AsyncLab, cards: dict[str, Card]) -> None:
        self.settings = settings
        self.server = server
        self.lab = lab
        self.cards = cards
        (settings.folder / "broken.txt").touch()

    def breaks(self, *names: str) -> None:
        """Say whom a run on breaks."""
        (self.settings.folder / "broken.txt").write_text(" ".join(names))

    def acted(self) -> list[str]:
        """Tell on whom it was acted, in that order, and forget it."""
        ledger = self.settings.folder / "ledger.txt"
        names = ledger.read_text().split() if ledger.exists() else []
        ledger.unlink(missing_ok=True)
        return names

    async def requested(self, task: str, on: str, **options: Any) -> str:
        runs = await self.lab.request(run_request(Request(task, on=on), FanOut.given(**options)))
        return runs.runs[0]

    async def ended(self, run_id: str) -> Run:
        async with asyncio.timeout(60):
            async for shown in self.lab.watch([run_id]):
                if RunState(shown["state"]).is_final:
                    return Run.model_validate(await self.lab.run_shown(run_id, full=True))
        raise AssertionError("it is watched to its end")

    async def on_fleet(self, task: str, on: str, **options: Any) -> tuple[Run, FleetResult]:
        run = await self.ended(await self.requested(task, on, **options))
        return run, FleetResult.model_validate(run.result)

    async def children(self, run_id: str) -> dict[str, dict[str, Any]]:
        page = await self.lab.runs(parent=run_id, limit=100)
        return {item["target"]: item for item in page["items"]}


@asynccontextmanager
async def a_lab(folder: Path) -> AsyncGenerator[Here]:
    (folder / "many").mkdir(parents=True)
    (folder / "many" / "__init__.py").write_text(PACKAGE)
    (folder / "labwright.toml").write_text('[site]\npackage = "many"\n[workers]\nslots = 8\n')
    (folder / "targets.yaml").write_text(TARGETS)
    settings = load_settings(folder, {})
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(settings, tied=True))
        lab = await stack.enter_async_context(connect_async(settings=settings))
        cards = {name: Card() for name in ("c1", "c2", "c3")}
        for number, (name, card) in enumerate(cards.items()):
            agent = serving_agent(
                card,
                name=name,
                locate=lambda: Address.read(settings.state_dir / "connection.json"),
                state_dir=settings.state_dir,
                labels={"kind": "card", "slot": str(number)},
            )
            await stack.enter_async_context(agent)
        await server.dispatcher.wait_for_workers(1)
        async with asyncio.timeout(30):
            while len(server.agents.agents) < len(cards):
                await asyncio.sleep(0.01)
        yield Here(settings, server, lab, cards)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Here]:
    """A lab that these tests share."""
    async with a_lab(tmp_path_factory.mktemp("fleets") / "site") as here:
        yield here


# --- calls -----------------------------------------------------------------------------------------------------------


async def test_a_call_of_a_fleet_is_a_run_whose_sessions_are_its_own(here: Here) -> None:
    began: list[str] = []
    rows: list[str] = []
    asked = here.lab.fleet("kind=card,slot!=2").tune
    result = await asked(band=4)
    assert (result.succeeded, {name: row.result for name, row in result.rows.items()}) == (True, {"c1": 4, "c2": 4})
    page = await here.lab.runs(task="fleet-call", limit=1)
    run = page["items"][0]
    assert run["state"] == "succeeded"
    await _sessions_of(here, run["id"], 2)
    sessions = await here.lab.sessions(run=run["id"])
    assert {item["agent"] for item in sessions["items"]} == {"c1", "c2"}
    story = [(part["kind"], part["depth"]) for part in await here.lab.why(run["id"])]
    assert story == [("operator", 0), ("run", 1), ("session", 2), ("session", 2)]
    assert (began, rows) == ([], [])


async def test_a_target_of_the_file_that_is_away_has_its_row(here: Here) -> None:
    result = await here.lab.fleet("t1|c1", quorum=1).tune()
    assert {name: row.outcome.value for name, row in result.rows.items()} == {"c1": "succeeded", "t1": "unreachable"}


async def test_selections_that_cannot_be_meant_are_refused_before_anything_runs(here: Here) -> None:
    with pytest.raises(NotFoundError, match="nobody is chosen by slot=9"):
        await here.lab.fleet("slot=9").tune()
    with pytest.raises(NotFoundError, match="neither an agent nor a target 'c9'") as caught:
        await here.lab.fleet("c1|c9").tune()
    assert "did you mean 'c" in caught.value.cure
    with pytest.raises(UsageError, match="quorum of 5 cannot be reached"):
        await here.lab.fleet("kind=card", quorum=5).tune()


async def test_a_step_calls_a_fleet_and_gives_its_worker_back_meanwhile(here: Here) -> None:
    runs = await here.lab.request(Request("tuning"))
    run = await here.ended(runs.runs[0])
    assert run.error is None
    assert [step.output for step in run.steps] == [{"succeeded": 3}, {"succeeded": 3}]
    children = (await here.lab.runs(parent=run.id))["items"]
    assert [child["task"] for child in children] == ["fleet-call", "fleet-call"]


async def test_an_aborted_call_aborts_its_sessions_and_keeps_its_rows(here: Here) -> None:
    began: asyncio.Queue[str] = asyncio.Queue()
    asked = here.lab.fleet("c1|c2").sleep
    calling = asyncio.create_task(asked())
    run_id = await _run_of(here, "fleet-call")
    assert began.empty()
    await _sessions_of(here, run_id, 2)
    await here.lab.abort(run_id)
    result = await calling
    assert {name: row.outcome.value for name, row in result.rows.items()} == {"c1": "aborted", "c2": "aborted"}
    assert (await here.ended(run_id)).state is RunState.ABORTED


async def test_an_abort_reaches_the_sessions_of_a_call_also_where_its_worker_was_killed(here: Here) -> None:
    calling = asyncio.create_task(here.lab.fleet("c1|c2").sleep())
    run_id = await _run_of(here, "fleet-call")
    await _sessions_of(here, run_id, 2)
    worker = ProcessIdentity.parse((await here.lab.run_shown(run_id))["worker"])
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    await here.lab.abort(run_id)
    assert (await here.ended(run_id)).state is RunState.ABORTED
    async with asyncio.timeout(30):
        while {item["state"] for item in (await here.lab.sessions(run=run_id))["items"]} != {"aborted"}:
            await asyncio.sleep(0.02)
    with contextlib.suppress(FleetFailedError):
        await calling


async def _run_of(here: Here, task: str) -> str:
    async with asyncio.timeout(30):
        while not (items := (await here.lab.runs(task=task, state="running"))["items"]):
            await asyncio.sleep(0.02)
    return items[0]["id"]


async def _sessions_of(here: Here, run_id: str, count: int) -> None:
    async with asyncio.timeout(30):
        while len((await here.lab.sessions(run=run_id))["items"]) < count:
            await asyncio.sleep(0.02)


CALLER = """
import sys
from labwright.client import connect
with connect(sys.argv[1]) as lab:
    lab.fleet("kind=card").sleep(seconds=3)
"""


async def test_every_row_is_there_after_caller_and_worker_were_killed(here: Here) -> None:
    """The caller is killed after the first start, and so is the worker that makes the call; another goes on."""
    before = {name: len(card.tuned) for name, card in here.cards.items()}
    caller = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CALLER, str(here.settings.folder), stderr=subprocess.DEVNULL
    )
    run_id = await _run_of(here, "fleet-call")
    await _sessions_of(here, run_id, 1)
    caller.kill()
    await caller.wait()
    worker = ProcessIdentity.parse((await here.lab.run_shown(run_id))["worker"])
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    run = await here.ended(run_id)
    result = FleetResult.model_validate(run.result)
    assert result.counts == {"succeeded": 3}
    assert run.state is RunState.SUCCEEDED
    assert [len(card.tuned) - before[name] for name, card in here.cards.items()] == [1, 1, 1], "nothing began twice"


async def test_a_retried_call_leaves_alone_who_had_succeeded(here: Here) -> None:
    before = len(here.cards["c1"].tuned)
    result = await here.lab.fleet("c1|t1").tune()
    assert not result.succeeded
    run_id = (await here.lab.runs(task="fleet-call", state="failed", limit=1))["items"][0]["id"]
    await here.lab.retry(run_id)
    run = await here.ended(run_id)
    assert FleetResult.model_validate(run.result).counts == {"succeeded": 1, "unreachable": 1}
    assert len(here.cards["c1"].tuned) - before == 1


async def test_a_retry_repeats_nothing_that_had_succeeded_also_where_no_row_tells(here: Here) -> None:
    """The worker is killed when one target has ended, and the run aborted before another could write the rows down."""
    here.cards["c2"].is_slow = True
    calling = asyncio.create_task(here.lab.fleet("c1|c2").warm())
    run_id = await _run_of(here, "fleet-call")
    async with asyncio.timeout(30):
        while "succeeded" not in {each["state"] for each in await _sessions(here, run_id)}:
            await asyncio.sleep(0.02)
    worker = ProcessIdentity.parse((await here.lab.run_shown(run_id))["worker"])
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    await here.lab.abort(run_id)
    await here.ended(run_id)
    here.cards["c2"].is_slow = False
    await here.lab.retry(run_id)
    result = FleetResult.model_validate((await here.ended(run_id)).result)
    assert result.counts == {"succeeded": 2}
    assert [here.cards[name].warmed for name in ("c1", "c2")] == [1, 2]
    with contextlib.suppress(FleetFailedError):
        await calling


async def _sessions(here: Here, run_id: str) -> list[dict[str, Any]]:
    return (await here.lab.sessions(run=run_id))["items"]


# --- tasks on many targets -------------------------------------------------------------------------------------------


async def test_a_task_runs_once_on_each_target_of_a_fleet(here: Here) -> None:
    here.acted()
    run, result = await here.on_fleet("acting", "kind=pump", parallel=3)
    assert (run.state, result.counts) == (RunState.SUCCEEDED, {"succeeded": 8})
    assert sorted(here.acted()) == [f"t{number}" for number in range(1, 9)]
    children = await here.children(run.id)
    assert {child["state"] for child in children.values()} == {"succeeded"}
    assert {row.run for row in result.rows.values()} == {child["id"] for child in children.values()}


async def test_a_task_runs_on_an_agent_that_no_file_names(here: Here) -> None:
    _, result = await here.on_fleet("acting", "class=Card,slot=0")
    assert {name: row.result for name, row in result.rows.items()} == {"c1": "c1"}


async def test_the_tree_of_a_run_has_all_that_followed_from_it(here: Here) -> None:
    run_id = (await here.lab.request(Request("tuning"))).runs[0]
    await here.ended(run_id)
    tree = (await here.lab.runs(tree=run_id))["items"]
    assert [run["task"] for run in tree] == ["fleet-call", "fleet-call"]
    operator = (await here.lab.runs(tree=here.lab.by, limit=1000))["items"]
    assert {run["id"] for run in operator} >= {run_id, *(run["id"] for run in tree)}


async def test_a_rule_chooses_agents_that_no_file_names(here: Here) -> None:
    for _ in range(2):  # the first time nobody knows yet that rules choose
        emitted = await here.lab.emit({"type": "cards.tuned"})
        runs = await here.lab.wait(here.lab.follow_event(emitted), timeout_s=60)
        assert {run.target: run.state for run in runs.values()} == dict.fromkeys(("c1", "c3"), RunState.SUCCEEDED)


async def test_a_bad_wave_stops_and_a_retry_of_the_whole_finishes_the_rest(here: Here) -> None:
    here.acted()
    here.breaks("t2")
    run, result = await here.on_fleet("acting", "kind=pump", waves="1,3,all", failure_budget=0)
    assert run.state is RunState.FAILED
    assert result.counts == {"succeeded": 3, "failed": 1, "skipped": 4}
    assert sorted(here.acted()) == ["t1", "t2", "t3", "t4"]
    here.breaks()
    await here.lab.retry(run.id)
    again = await here.ended(run.id)
    assert again.state is RunState.SUCCEEDED
    assert FleetResult.model_validate(again.result).counts == {"succeeded": 8}
    assert sorted(here.acted()) == ["t2", "t5", "t6", "t7", "t8"], "who had succeeded is left alone"


async def test_a_run_of_a_whole_that_was_aborted_can_be_tried_again_by_itself(here: Here) -> None:
    run_id = await here.requested("hanging", "t5|t6")
    async with asyncio.timeout(30):
        while len(children := await here.children(run_id)) < 2 or {"pending"} & {
            child["state"] for child in children.values()
        }:
            await asyncio.sleep(0.02)
    await here.lab.abort(run_id)
    child = children["t5"]["id"]
    for ended in (run_id, child):
        assert (await here.ended(ended)).state is RunState.ABORTED

    await here.lab.retry(child)
    async with asyncio.timeout(30):
        while (shown := await here.lab.run_shown(child))["state"] != "running":
            assert shown["state"] != "aborted", shown["error"]
            await asyncio.sleep(0.02)
    here.server.dispatcher.note_all()  # as at a change of the lead
    await here.lab.abort(child)
    error = (await here.ended(child)).error
    assert error is not None
    assert "which made it" not in error.because
    here.acted()


async def test_only_sessions_that_can_exist_are_looked_for(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target is tried again in a session of the next number only after the one before: none is asked for in vain."""
    journal = here.lab.journal
    fleets = RunFleets(journal=journal, run="run_1", token=1, by="me", targets=here.server.host.targets)
    asked = Asked(operation="tune", params={}, how=FanOut(retries=1000))
    for number, state in enumerate(("failed", "succeeded")):
        subject = session_subject("x1", fleets._session_id("there", "x1", "tune", number))
        started = SessionStarted(agent="x1", operation="tune", kind=OperationKind.TASK)
        seq = await journal.append(subject, started, after=0)
        await journal.append(subject, SessionEnded.model_validate({"state": state, "result": number}), after=seq)
    looked_for: list[str] = []
    newest = journal.newest

    async def noted(subjects: Sequence[str]) -> tuple[list[Entry], int]:
        looked_for.extend(subjects)
        return await newest(subjects)

    monkeypatch.setattr(journal, "newest", noted)
    rows = await fleets.succeeded(["x1", "x2", "x3"], asked, ["here", "there"])

    assert {name: row.result for name, row in rows.items()} == {"x1": 1}
    assert len(looked_for) == 3 * 2 + 1


async def test_an_abort_of_the_whole_ends_its_runs(here: Here) -> None:
    here.acted()
    run_id = await here.requested("hanging", "kind=pump", parallel=2)
    async with asyncio.timeout(30):
        while len([child for child in (await here.children(run_id)).values() if child["state"] == "running"]) < 2:
            await asyncio.sleep(0.02)
    await here.lab.abort(run_id)
    assert (await here.ended(run_id)).state is RunState.ABORTED
    async with asyncio.timeout(30):
        while {child["state"] for child in (await here.children(run_id)).values()} != {"aborted"}:
            await asyncio.sleep(0.02)


async def test_what_waits_for_its_runs_has_no_worker_and_says_for_what(here: Here) -> None:
    run_id = await here.requested("hanging", "t1")
    async with asyncio.timeout(30):
        while (shown := await here.lab.run_shown(run_id))["state"] != "waiting":
            await asyncio.sleep(0.02)
    assert shown["worker"] is None
    assert shown["waiting_for"]["kind"] == "runs"
    assert "1 of 1 runs of hanging to end" in shown["waiting_for"]["detail"]
    await here.lab.abort(run_id)
    await here.ended(run_id)


async def test_a_fleet_goes_on_after_serve_and_its_worker_were_killed(tmp_path: Path) -> None:
    async with a_lab(tmp_path / "site") as own:
        run_id = await own.requested("acting", "kind=pump", parallel=1)
        async with asyncio.timeout(60):
            while not own.acted():
                await asyncio.sleep(0.005)
        for worker in list(own.server.dispatcher.workers):
            identity = ProcessIdentity.parse(worker)
            assert identity is not None
            os.kill(identity.pid, signal.SIGKILL)
        run = await own.ended(run_id)
        assert FleetResult.model_validate(run.result).counts == {"succeeded": 8}
