"""A whole lab: nats-server, server, workers and a client, all real, on a small site that misbehaves on demand."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from labwright.client import AsyncLab, RequestedRuns, connect_async
from labwright.core.errors import ConflictError, LabwrightError, NotFoundError, SiteError, UsageError
from labwright.core.model import Run, RunState, StepState, utc_now
from labwright.core.request import Request
from labwright.journal.nats_server import EmbeddedServer
from labwright.journal.presence import ProcessIdentity
from labwright.journal.records import Requested, ScheduleTicked
from labwright.plan.durable import ScheduleDefinition
from labwright.plan.fan_out import FanOut
from labwright.plan.point_forms import to_form
from labwright.plan.policies import Overlap
from labwright.plan.timepoints import every
from labwright.run.fleets import run_request
from labwright.run.settings import Settings, load_settings
from labwright.run.worker_keeper import slots_held
from labwright.server import Server, serving, stop
from tests.run.lab_site import PACKAGE, write_lab
from tests.support.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

SERVE = """
import asyncio, os, sys
from pathlib import Path
from labwright.run.settings import load_settings
from labwright.server import serve
asyncio.run(serve(load_settings(Path(sys.argv[1]), os.environ), lambda text: print(text, flush=True)))
"""


class Here:
    """A lab with its client, and what tests ask of it."""

    def __init__(self, settings: Settings, lab: AsyncLab, server: Server | None = None) -> None:
        self.settings = settings
        self.lab = lab
        self._server = server

    @property
    def server(self) -> Server:
        assert self._server is not None
        return self._server

    async def run(self, task: str, **options: Any) -> Run:
        """Request a run, and wait for its end."""
        return await self.end(await self.lab.request(Request(task, **options)))

    async def end(self, runs: RequestedRuns) -> Run:
        return (await self.lab.wait(self.lab.follow_runs(runs), timeout_s=20))[runs.runs[0]]

    async def ends(self, requested: Sequence[RequestedRuns]) -> dict[str, Run]:
        everything = RequestedRuns(
            runs=tuple(run for each in requested for run in each.runs),
            targets=(),
            seq=min(each.seq for each in requested),
        )
        return await self.lab.wait(self.lab.follow_runs(everything), timeout_s=20)

    async def until(self, runs: RequestedRuns, holds: Callable[[Run], bool]) -> Run:
        """Follow a run until it is such."""
        async with asyncio.timeout(20):
            async for update in self.lab.follow_runs(runs):
                if update.run is not None and update.run.id == runs.runs[0] and holds(update.run):
                    return update.run
        raise AssertionError("it has ended before that")

    async def noted(self, word: str, run_id: str) -> None:
        """Wait until a step of that run has written that word."""
        async with asyncio.timeout(30):
            while (word, run_id) not in [(line[0], line[1]) for line in self.ledger()]:
                await asyncio.sleep(0.01)

    def ledger(self) -> list[list[str]]:
        return [line.split() for line in (self.settings.folder / "ledger.txt").read_text().splitlines()]

    def words(self, run_id: str) -> list[str]:
        return [word for word, run, _ in self.ledger() if run == run_id]

    async def watched(self, run_id: str) -> dict[str, Any]:
        """Watch a run that exists until its end."""
        async with asyncio.timeout(20):
            return [shown async for shown in self.lab.watch([run_id])][-1]

    async def waiting_after(self, event: dict[str, Any]) -> dict[str, Any]:
        """Send an event, and give the run of it once it waits."""
        async with asyncio.timeout(20):
            async for update in self.lab.follow_event(await self.lab.emit(event)):
                if update.run is not None:
                    return await self.lab.run_shown(update.run.id, seq=await self.lab.journal.last_seq())
        raise AssertionError("no run has followed")

    async def emitted(self, kind: str, **data: Any) -> tuple[dict[str, Any] | None, dict[str, Run]]:
        """Send an event, and wait for all that follows."""
        decided: dict[str, Any] | None = None
        runs: dict[str, Run] = {}
        async with asyncio.timeout(20):
            async for update in self.lab.follow_event(await self.lab.emit({"type": kind, "data": data})):
                decided = update.decided or decided
                runs |= {update.run.id: update.run} if update.run else {}
        return decided, runs


@asynccontextmanager
async def a_lab(folder: Path, *, processes: int = 1) -> AsyncGenerator[Here]:
    settings = write_lab(folder, processes=processes)
    async with serving(settings, tied=True) as server, connect_async(settings=settings) as lab:
        yield Here(settings, lab, server)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Here]:
    """A lab that these tests share."""
    async with a_lab(tmp_path_factory.mktemp("lab") / "site") as here:
        yield here


@pytest_asyncio.fixture(loop_scope="module")
async def own(tmp_path: Path) -> AsyncGenerator[Here]:
    """A lab for one test, which may break it."""
    async with a_lab(tmp_path / "site") as own:
        yield own


# --- runs ------------------------------------------------------------------------------------------------------------


async def test_the_steps_of_a_task_run_in_their_order(here: Here) -> None:
    run = await here.run("three", x=5)
    assert run.error is None
    assert run.state is RunState.SUCCEEDED
    assert [(step.name, step.state, step.output) for step in run.steps] == [
        ("first", StepState.SUCCEEDED, 5),
        ("second", StepState.SUCCEEDED, {"nan": {"$float": "nan"}, "list": [1, 2]}),
        ("third", StepState.SUCCEEDED, "third"),
    ]
    assert (run.result, run.attempt) == ("third", 1)
    assert run.worker is not None


async def test_what_a_step_logs_is_kept(here: Here) -> None:
    run = await here.run("three")
    async with asyncio.timeout(20):
        while not (lines := [line async for line in here.lab.log(run.id)]):
            await asyncio.sleep(0.02)
    assert [(line["text"], line["fields"]) for line in lines] == [("third was here", {"step": "third", "number": 3})]


async def test_a_step_that_fails_softly_is_tried_again_with_what_is_done_kept(here: Here) -> None:
    run = await here.run("flake")
    assert (run.state, run.attempt, run.failures, run.result) == (RunState.SUCCEEDED, 3, 2, 3)
    assert here.words(run.id) == ["first", "flaky", "flaky", "flaky"]


async def test_a_durable_sleep_frees_the_worker(here: Here) -> None:
    requested = await here.lab.request(Request("single-nap", seconds=2))
    waiting = await here.until(requested, lambda run: run.state is RunState.WAITING)
    assert (waiting.worker, waiting.waiting_for and waiting.waiting_for.kind) == (None, "sleep")
    other = await here.run("single")  # the only place of that pool
    assert other.state is RunState.SUCCEEDED
    run = await here.end(requested)
    assert other.ended_at is not None
    assert run.ended_at is not None
    assert other.ended_at < run.ended_at
    assert here.words(run.id) == ["nap", "nap", "awake"]
    assert run.attempt == 1


async def test_parameters_that_do_not_fit_are_refused_when_asked_for(here: Here) -> None:
    with pytest.raises(UsageError, match="a parameter does not fit"):
        await here.lab.request(Request("one", x="many"))
    with pytest.raises(NotFoundError, match="no task"):
        await here.lab.request(Request("onne"))
    with pytest.raises(NotFoundError, match="chooses no target"):
        await here.lab.request(Request("one", on="kind=laser"))


async def test_one_request_for_several_targets_makes_a_run_on_each(here: Here) -> None:
    requested = await here.lab.request(Request("one", on="kind=pump"))
    runs = await here.ends([requested])
    assert {run.target for run in runs.values()} == {"t1", "t2"}


async def test_large_parameters_and_outputs_go_through_the_journal(here: Here) -> None:
    run = await here.run("sizes", text="x" * 1_000_000)
    assert (run.state, run.result) == (RunState.SUCCEEDED, 1_000_000)
    shown = await here.lab.run_shown(run.id, full=True, seq=await here.lab.journal.last_seq())
    assert shown["params"] == {"text": "x" * 1_000_000}
    assert shown["steps"][0]["output"] == {"text": "x" * 1_000_000, "more": ["y" * 1_000_000]}


async def test_a_note_of_any_length_does_not_break_a_run(here: Here) -> None:
    run = await here.run("chatting")
    assert run.state is RunState.SUCCEEDED
    assert len(run.note or "") >= 400_000


async def test_a_child_run_is_made_and_waited_for(here: Here) -> None:
    runs = await here.lab.wait(here.lab.follow_runs(await here.lab.request(Request("parent"))), timeout_s=30)
    child = next(run for run in runs.values() if run.parent)
    assert child.parent in runs
    assert runs[child.parent].result == child.id
    story = await here.lab.why(child.id, seq=await here.lab.journal.last_seq())
    assert [line["kind"] for line in story][-2:] == ["run", "run"]


# --- abort -----------------------------------------------------------------------------------------------------------


async def test_a_pending_run_is_aborted(here: Here) -> None:
    later = utc_now() + timedelta(hours=1)
    requested = await here.lab.request(Request("one", not_before=later))
    await here.lab.abort(requested.runs[0], reason="not today")
    run = await here.end(requested)
    assert (run.state, run.error and run.error.because) == (RunState.ABORTED, "not today")
    assert here.words(run.id) == []


@pytest.mark.parametrize(("task", "word"), [("hanging", "hang"), ("blocking", "block")])
async def test_a_running_step_hears_the_abort_at_once(here: Here, task: str, word: str) -> None:
    requested = await here.lab.request(Request(task))
    await here.noted(word, requested.runs[0])
    began = asyncio.get_running_loop().time()
    await here.lab.abort(requested.runs[0], reason="enough")
    run = await here.end(requested)
    assert asyncio.get_running_loop().time() - began < 3
    assert run.state is RunState.ABORTED
    assert run.error is not None
    assert "enough" in run.error.because
    assert here.words(run.id) == [word]


async def test_a_waiting_run_is_aborted(here: Here) -> None:
    requested = await here.lab.request(Request("napping", seconds=3600))
    await here.until(requested, lambda run: run.state is RunState.WAITING)
    await here.lab.abort(requested.runs[0])
    assert (await here.end(requested)).state is RunState.ABORTED


async def test_aborting_what_has_ended_changes_nothing(here: Here) -> None:
    run = await here.run("one")
    assert (await here.lab.abort(run.id)).state is RunState.SUCCEEDED
    with pytest.raises(NotFoundError):
        await here.lab.abort("run_of_nobody")


async def test_a_step_that_cannot_be_stopped_ends_its_worker_and_others_go_on(own: Here) -> None:
    stubborn = await own.lab.request(Request("ignoring"))
    await own.noted("ignore", stubborn.runs[0])
    nap = await own.lab.request(Request("napping", seconds=0.5))
    await own.lab.abort(stubborn.runs[0], reason="it hangs")
    run = await own.until(stubborn, lambda run: run.state.is_final)
    assert run.state is RunState.ABORTED
    assert (await own.end(nap)).state is RunState.SUCCEEDED
    assert (await own.run("one")).state is RunState.SUCCEEDED
    assert own.words(run.id) == ["ignore"]


# --- approval --------------------------------------------------------------------------------------------------------


async def asked(here: Here, task: str, **options: Any) -> tuple[RequestedRuns, dict[str, Any]]:
    """Request a run that is to be approved, and give it as it is shown."""
    runs = await here.lab.request(Request(task, **options))
    return runs, await here.lab.run_shown(runs.runs[0], seq=runs.seq)


async def test_a_run_waits_for_a_person_holds_nothing_meanwhile_and_starts_when_approved(here: Here) -> None:
    runs, shown = await asked(here, "one", on="t1", approve=True)
    assert (shown["state"], shown["waiting_for"]["kind"]) == ("waiting", "approval")
    assert (await here.run("one", on="t1")).state is RunState.SUCCEEDED
    assert here.words(runs.runs[0]) == []
    approved = await here.lab.approve(runs.runs[0], reason="all clear")
    assert approved.approved is not None
    assert (approved.approved.by, approved.approved.reason) == (here.lab.by, "all clear")
    assert (await here.end(runs)).state is RunState.SUCCEEDED
    assert here.words(runs.runs[0]) == ["first"]
    assert (await here.lab.approve(runs.runs[0], reason="again")).approved == approved.approved
    story = await here.lab.why(runs.runs[0], seq=await here.lab.journal.last_seq())
    assert [part["summary"] for part in story if part["kind"] == "approval"] == [
        f"{here.lab.by} approved it: all clear"
    ]


async def test_each_run_of_a_task_that_always_needs_approval_waits(here: Here) -> None:
    decided = await here.waiting_after({"type": "risky.thing"})
    runs, shown = await asked(here, "risky")
    parent = await here.lab.request(Request("risky-parent"))
    await here.until(parent, lambda run: run.state is RunState.SUCCEEDED)
    page = await here.lab.runs(parent=parent.runs[0], seq=await here.lab.journal.last_seq())
    for run in (decided, shown, page["items"][0]):
        assert (run["task"], run["state"], run["approve"]) == ("risky", "waiting", True)
        await here.lab.approve(run["id"])
    assert (await here.end(runs)).state is RunState.SUCCEEDED
    assert (await here.end(parent)).state is RunState.SUCCEEDED


async def test_of_a_fleet_the_whole_waits_for_approval_and_its_runs_do_not(here: Here) -> None:
    whole = run_request(Request("risky", on="kind=pump"), FanOut.given())
    runs, shown = await asked(here, whole.task, params=whole.params)
    assert (shown["state"], shown["waiting_for"]["kind"]) == ("waiting", "approval")
    await here.lab.approve(runs.runs[0])
    ended = await here.ends([runs])
    assert [run.state for run in ended.values()] == [RunState.SUCCEEDED] * 3


async def test_a_run_that_nobody_approves_in_time_expires_and_waits_again_if_it_is_retried(here: Here) -> None:
    runs, _ = await asked(here, "one", approve=True, not_after=utc_now() + timedelta(seconds=0.3))
    run = await here.end(runs)
    assert (run.state, run.error and run.error.because) == (RunState.EXPIRED, "nobody approved it in time")
    with pytest.raises(ConflictError, match="cannot be approved: it is expired"):
        await here.lab.approve(run.id)
    assert (await here.lab.retry(run.id)).awaits_approval
    await here.lab.abort(run.id)
    assert (await here.watched(run.id))["state"] == "aborted"


async def test_a_retry_of_an_approved_run_goes_on_at_once(here: Here) -> None:
    runs, _ = await asked(here, "one", approve=True)
    await here.lab.approve(runs.runs[0])
    await here.end(runs)
    await here.lab.retry(runs.runs[0], from_start=True)
    assert (await here.watched(runs.runs[0]))["state"] == "succeeded"


async def test_what_needs_no_approval_cannot_be_approved(here: Here) -> None:
    run = await here.run("one")
    with pytest.raises(ConflictError, match="cannot be approved"):
        await here.lab.approve(run.id)


# --- order -----------------------------------------------------------------------------------------------------------


async def test_a_run_whose_latest_start_has_passed_expires(here: Here) -> None:
    await here.lab.change_pool("single", "paused")
    try:
        requested = await here.lab.request(Request("single", not_after=utc_now() + timedelta(seconds=0.3)))
        run = await here.end(requested)
    finally:
        await here.lab.change_pool("single", "active")
    assert run.state is RunState.EXPIRED
    assert here.words(run.id) == []


async def test_a_higher_priority_goes_first_where_there_is_one_place(here: Here) -> None:
    await here.lab.change_pool("single", "paused")
    requested = [await here.lab.request(Request("single", priority=priority)) for priority in (0, 5, -5, 9)]
    await here.lab.change_pool("single", "active")
    await here.ends(requested)
    order = [each.runs[0] for each in requested]
    begun = [run for word, run, _ in here.ledger() if word == "begin" and run in order]
    assert begun == [order[3], order[1], order[0], order[2]]


async def test_a_paused_pool_starts_nothing_and_others_go_on(here: Here) -> None:
    await here.lab.change_pool("single", "paused")
    requested = await here.lab.request(Request("single"))
    assert (await here.run("one")).state is RunState.SUCCEEDED
    shown = await here.lab.run_shown(requested.runs[0], seq=requested.seq)
    assert shown["state"] == "pending"
    assert "paused" in shown["waiting_for"]["detail"]
    await here.lab.change_pool("single", "active")
    assert (await here.end(requested)).state is RunState.SUCCEEDED
    with pytest.raises(NotFoundError, match="no pool"):
        await here.lab.change_pool("nothing", "paused")


async def test_runs_on_one_target_never_overlap(here: Here) -> None:
    requested = [await here.lab.request(Request("acting", on=f"t{number % 3 + 1}")) for number in range(18)]
    runs = await here.ends(requested)
    assert {run.state for run in runs.values()} == {RunState.SUCCEEDED}
    words: dict[str, list[tuple[str, str]]] = {}
    for word, run, target in here.ledger():
        if run in runs:
            words.setdefault(target, []).append((word, run))
    for each in words.values():
        whole = [(word, run) for _, run in each[::5] for word in ("begin", "end", "first", "begin", "end")]
        assert each == whole


async def test_runs_under_one_lock_never_overlap(here: Here) -> None:
    requested = [await here.lab.request(Request("locked", seconds=0.01)) for _ in range(8)]
    runs = await here.ends(requested)
    words = [word for word, run, _ in here.ledger() if run in runs]
    assert words == ["begin", "end"] * 8


async def test_the_same_key_is_one_run(here: Here) -> None:
    once = await here.lab.request(Request("one", x=1, key="k1"))
    again = await here.lab.request(Request("one", x=1, key="k1"))
    assert (again.runs, once.is_new, again.is_new) == (once.runs, True, False)
    with pytest.raises(ConflictError, match="other content"):
        await here.lab.request(Request("one", x=2, key="k1"))
    run = await here.end(once)
    assert here.words(run.id) == ["first"]


# --- events ----------------------------------------------------------------------------------------------------------


async def test_an_event_becomes_a_decision_and_runs(here: Here) -> None:
    decided, runs = await here.emitted("thing.new", n=7)
    assert decided is not None
    assert {rule["rule"].partition(":")[2]: rule["outcome"] for rule in decided["rules"]}["on_thing"] == "fired"
    assert Counter((run.task, run.target, run.state) for run in runs.values()) == {
        ("three", None, RunState.SUCCEEDED): 1,
        ("one", "t1", RunState.SUCCEEDED): 1,
        ("one", "t2", RunState.SUCCEEDED): 1,
    }
    three = next(run for run in runs.values() if run.task == "three")
    assert three.steps[0].output == 7
    story = await here.lab.why(three.id, seq=await here.lab.journal.last_seq())
    assert [line["kind"] for line in story] == ["event", "decision", "request", "run"]
    assert "on_thing asked for three" in story[2]["summary"]


async def test_the_same_event_twice_is_one(here: Here) -> None:
    first = await here.lab.emit({"type": "thing.x", "id": "same", "source": "s", "data": {"n": 1}})
    again = await here.lab.emit({"type": "thing.x", "id": "same", "source": "s", "data": {"n": 1}})
    assert (first.is_new, again.is_new, again.key) == (True, False, first.key)
    with pytest.raises(ConflictError):
        await here.lab.emit({"type": "thing.x", "id": "same", "source": "s", "data": {"n": 2}})
    async for _ in here.lab.follow_event(first):
        pass


async def test_what_cannot_be_started_fails_saying_so(here: Here) -> None:
    _, runs = await here.emitted("unknown")
    errors = {run.task: run.error for run in runs.values()}
    assert {run.state for run in runs.values()} == {RunState.FAILED}
    assert errors["nothing-of-that-name"] is not None
    assert errors["one"] is not None
    assert "nothing-of-that-name" in errors["nothing-of-that-name"].message
    assert "nowhere" in errors["one"].message + errors["one"].because


async def test_an_event_that_no_rule_wants_is_decided_without_runs(here: Here) -> None:
    decided, runs = await here.emitted("nobody.cares")
    assert decided is not None
    assert {rule["outcome"] for rule in decided["rules"]} == {"not_matched"}
    assert runs == {}


async def test_facts_that_cannot_be_known_now_are_asked_for_again(here: Here) -> None:
    decided, runs = await here.emitted("looked.up")
    assert decided is not None
    assert decided["scenario"]["facts"]["answer"] == 42
    assert [run.state for run in runs.values()] == [RunState.SUCCEEDED]
    assert (await here.lab.ask("status"))["undecided"] == []


async def test_an_event_that_kills_the_deciding_process_is_set_aside_and_others_go_on(here: Here) -> None:
    poison = here.settings.folder / "poison"
    poison.touch()
    emitted = await here.lab.emit({"type": "poison"})
    _, runs = await here.emitted("thing.beside", n=1)
    assert {run.state for run in runs.values()} == {RunState.SUCCEEDED}
    updates = [update async for update in here.lab.follow_event(emitted)]
    assert updates[-1].set_aside is not None
    status = await here.lab.ask("status", seq=await here.lab.journal.last_seq())
    assert emitted.key in [event["key"] for event in status["set_aside"]]
    poison.unlink()
    seq = await here.lab.release(emitted.id)
    from dataclasses import replace

    released = [update async for update in here.lab.follow_event(replace(emitted, seq=seq))]
    assert released[-1].run is not None
    assert released[-1].run.state is RunState.SUCCEEDED


async def test_one_event_may_have_2000_runs(here: Here) -> None:
    decided, runs = await here.emitted("many", number=2000)
    assert decided is not None
    assert len(runs) == 2000
    assert {run.state for run in runs.values()} == {RunState.SUCCEEDED}
    assert max(Counter(run for _, run, _ in here.ledger() if run in runs).values()) == 1


async def test_an_event_with_garbage_for_data_is_decided(here: Here) -> None:
    mark = {"$blob": "b_" + "0" * 26, "size": 5, "sha256": "0" * 64}
    for data in ({"$blob": "x", "sha256": "y"}, {"n": float("inf")}, {"text": "x" * 10_000_000}, {"mark": [mark, 1]}):
        emitted = await here.lab.emit({"type": "nobody.cares", "data": data})
        async with asyncio.timeout(20):
            updates = [update async for update in here.lab.follow_event(emitted)]
        assert updates
    assert (await here.run("one")).state is RunState.SUCCEEDED


# --- retry -----------------------------------------------------------------------------------------------------------


async def test_a_failed_run_is_retried_from_the_failed_step_or_from_the_start(own: Here) -> None:
    requested = await own.lab.request(Request("mending"))
    run = await own.end(requested)
    assert run.state is RunState.FAILED
    (own.settings.folder / "mended").touch()

    async def again(*, from_start: bool) -> Run:
        seq = await own.lab.journal.last_seq()
        await own.lab.retry(run.id, from_start=from_start)
        async with asyncio.timeout(30):
            while True:
                shown = await own.lab.run_shown(run.id, seq=await own.lab.journal.last_seq())
                if RunState(shown["state"]).is_final and await own.lab.journal.last_seq() > seq + 1:
                    return Run.model_validate(shown)
                await asyncio.sleep(0.02)

    assert (await again(from_start=False)).result == "mended"
    assert own.words(run.id) == ["first", "broken", "broken"]
    with pytest.raises(ConflictError):
        await own.lab.retry(run.id)
    assert (await again(from_start=True)).result == "mended"
    assert own.words(run.id) == ["first", "broken", "broken", "first", "broken"]


# --- crashes ---------------------------------------------------------------------------------------------------------


async def test_a_step_that_kills_its_worker_is_done_again_elsewhere(own: Here) -> None:
    run = await own.run("dying", times=1)
    assert (run.state, run.result, run.attempt) == (RunState.SUCCEEDED, "alive", 2)
    assert own.words(run.id) == ["first", "die", "die"]


async def test_a_step_that_kills_its_worker_three_times_fails_as_lost(own: Here) -> None:
    run = await own.run("dying", times=99)
    assert run.error is not None
    assert (run.state, run.error.kind) == (RunState.FAILED, "lost")
    assert own.words(run.id) == ["first", "die", "die", "die"]


async def test_a_step_that_must_not_be_repeated_is_not(own: Here) -> None:
    run = await own.run("dying-once")
    assert run.error is not None
    assert (run.state, run.error.kind) == (RunState.FAILED, "lost")
    assert own.words(run.id) == ["first", "once"]


async def test_targets_that_cannot_be_listed_do_not_leave_a_run_hanging(own: Here) -> None:
    requested = await own.lab.request(Request("one", on="t1", not_before=utc_now() + timedelta(seconds=0.5)))
    absent = own.settings.folder / "no-targets"
    absent.touch()
    await own.until(requested, lambda run: run.attempt > 0)
    await asyncio.sleep(0.3)
    absent.unlink()
    assert (await own.end(requested)).state in {RunState.SUCCEEDED, RunState.FAILED}


async def test_targets_of_a_source_are_chosen_as_others_are_also_while_it_fails(own: Here) -> None:
    (own.settings.folder / "no-targets").touch()
    await own.lab.ask("reload")
    (finding,) = (await own.lab.ask("site"))["findings"]
    assert "targets as they were told at" in finding
    assert "the inventory is away" in finding
    assert [target["name"] for target in await own.lab.ask("targets", on="of=inventory")] == ["t9"]
    run = await own.run("one", on="of=inventory")
    assert (run.target, run.state) == ("t9", RunState.SUCCEEDED)
    whole = run_request(Request("one", on="of=inventory"), FanOut.given())
    assert list((await own.run(whole.task, params=whole.params)).result["targets"]) == ["t9"]

    (own.settings.folder / "no-targets").unlink()
    await own.lab.ask("reload")
    assert (await own.lab.ask("site"))["findings"] == []


async def test_a_killed_nats_server_loses_nothing(own: Here) -> None:
    requested = [await own.lab.request(Request("acting", on=f"t{number % 3 + 1}")) for number in range(12)]
    embedded = own.server.embedded
    assert embedded is not None
    for _ in range(2):
        pid = embedded.pid()
        assert pid is not None
        generation = own.lab.journal.connection.generation
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            while own.lab.journal.connection.generation == generation:
                await asyncio.sleep(0.01)
    runs = await own.ends(requested)
    assert {run.state for run in runs.values()} == {RunState.SUCCEEDED}
    assert all(own.words(run_id) == ["begin", "end", "first", "begin", "end"] for run_id in runs)


# --- reload ----------------------------------------------------------------------------------------------------------


async def test_a_reload_is_all_or_nothing_and_workers_follow(own: Here) -> None:
    module = own.settings.folder / "wholelab" / "__init__.py"
    before = (await own.run("one")).worker
    module.write_text(PACKAGE + "\nthis is no Python\n")
    with pytest.raises(SiteError):
        await own.lab.ask("reload")
    assert (await own.run("one")).state is RunState.SUCCEEDED
    module.write_text(
        PACKAGE + '\n\n@step\nasync def fresh(ctx):\n    return "new"\n\n\nnewest = Task("newest", steps=[fresh])\n'
    )
    running = await own.lab.request(Request("napping", seconds=1))
    await own.lab.ask("reload")
    run = await own.run("newest")
    assert (run.state, run.result) == (RunState.SUCCEEDED, "new")
    assert run.worker != before
    assert (await own.end(running)).state is RunState.SUCCEEDED


# --- serve -----------------------------------------------------------------------------------------------------------


async def test_a_site_is_served_once(here: Here) -> None:
    with pytest.raises(ConflictError, match="served already") as refused:
        async with serving(here.settings, tied=True):
            pass
    assert str(os.getpid()) in refused.value.because


async def test_an_unknown_question_is_answered_with_an_error(here: Here) -> None:
    with pytest.raises(UsageError, match="knows no question"):
        await here.lab.ask("nonsense")
    with pytest.raises(LabwrightError):
        await here.lab.ask("runs", filters={"colour": "red"})


async def start_serve(folder: Path) -> asyncio.subprocess.Process:
    said = folder / f"serve-{utc_now().timestamp()}.txt"
    with said.open("wb") as file:  # a pipe would stay open in the workers that outlive it
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVE, str(folder), stdout=file, process_group=0
        )
    async with asyncio.timeout(30):
        while "ready\n" not in said.read_text():
            assert process.returncode is None
            await asyncio.sleep(0.02)
    return process


async def test_what_a_killed_serve_leaves_is_adopted_by_the_next_and_finished(tmp_path: Path) -> None:
    settings = write_lab(tmp_path / "site", processes=2)
    serve = await start_serve(settings.folder)
    try:
        async with connect_async(settings=settings) as lab:
            here = Here(settings, lab)
            requested = [
                await lab.request(Request("acting", on=f"t{number % 3 + 1}", seconds=0.15)) for number in range(12)
            ]
            await here.noted("begin", requested[0].runs[0])
            nats, parents = EmbeddedServer(settings.state_dir).pid(), holders(settings)
            serve.kill()
            await serve.wait()
            serve = await start_serve(settings.folder)
            runs = await here.ends(requested)
            assert {run.state for run in runs.values()} == {RunState.SUCCEEDED}
            assert all(here.words(run_id) == ["begin", "end", "first", "begin", "end"] for run_id in runs)
            assert (EmbeddedServer(settings.state_dir).pid(), holders(settings)) == (nats, parents)
            workers = {ProcessIdentity.parse(run.worker or "") for run in runs.values()}
            assert len(workers) <= 2
        serve.terminate()
        await asyncio.wait_for(serve.wait(), 30)
        assert slots_held(settings.state_dir) == []
        assert not EmbeddedServer(settings.state_dir).is_locked()
    finally:
        with suppress(ProcessLookupError):
            serve.kill()
        await serve.wait()
        await stop(settings)


async def test_what_waits_for_approval_waits_on_after_serve_was_killed(tmp_path: Path) -> None:
    settings = write_lab(tmp_path / "site")
    serve = await start_serve(settings.folder)
    try:
        async with connect_async(settings=settings) as lab:
            here = Here(settings, lab)
            runs, _ = await asked(here, "one", approve=True)
            serve.kill()
            await serve.wait()
            serve = await start_serve(settings.folder)
            assert (await here.run("one")).state is RunState.SUCCEEDED
            assert (await lab.run_shown(runs.runs[0]))["waiting_for"]["kind"] == "approval"
            await lab.approve(runs.runs[0])
            assert (await here.end(runs)).state is RunState.SUCCEEDED
    finally:
        serve.kill()
        await serve.wait()
        await stop(settings)


async def test_a_schedule_makes_each_point_once_however_often_serve_is_killed(tmp_path: Path) -> None:
    settings = write_lab(tmp_path / "site", processes=1)
    serve = await start_serve(settings.folder)
    try:
        async with connect_async(settings=settings) as lab:
            definition = ScheduleDefinition(
                task="one", on="kind=pump", points=to_form(every(0.02)), overlap=Overlap.PARALLEL
            )
            await lab.add_schedule("often", definition)

            async def has_settled() -> bool:
                (shown,) = await lab.ask("schedules")
                return datetime.fromisoformat(shown["watermark"]) > utc_now() - timedelta(seconds=1)

            for _ in range(3):
                await until(has_settled, "points are made")
                serve.kill()
                await serve.wait()
                serve = await start_serve(settings.folder)
            await until(has_settled, "what was missed is settled")
            await lab.change_schedule("often", "remove")
            made: Counter[tuple[str, str]] = Counter()
            missed: list[datetime] = []
            async for entries in lab.journal.follow(["run.>", "schedule.>"], after=0):
                if not entries:
                    break
                for entry in entries:
                    if isinstance(entry.record, Requested) and entry.record.cause.point:
                        made[str(entry.record.cause.point), str(entry.record.target)] += 1
                    if isinstance(entry.record, ScheduleTicked):
                        missed += [row.planned_at for row in entry.record.missed]
        assert set(made.values()) == {1}
        assert Counter(point for point, _ in made) == dict.fromkeys((point for point, _ in made), 2)
        assert len(missed) == len(set(missed))
        assert not {str(each) for each in missed} & {point for point, _ in made}
        settled = sorted({datetime.fromisoformat(point) for point, _ in made} | set(missed))
        gaps = {round((later - former).total_seconds(), 3) for former, later in pairwise(settled)}
        assert gaps == {0.02}
    finally:
        with suppress(ProcessLookupError):
            serve.kill()
        await serve.wait()
        await stop(settings)


async def test_stop_ends_all_that_a_killed_serve_has_left(tmp_path: Path) -> None:
    settings = write_lab(tmp_path / "site")
    serve = await start_serve(settings.folder)
    async with connect_async(settings=settings) as lab:
        await Here(settings, lab).run("one")
    nats, parents = EmbeddedServer(settings.state_dir).pid(), holders(settings)
    children = [child.pid for parent in parents for child in psutil.Process(parent).children(recursive=True)]
    serve.kill()
    await serve.wait()
    assert set(await stop(settings)) == {"worker 0", "nats-server"}
    left = [pid for pid in [nats, *parents, *children] if pid is not None and is_alive(pid)]
    assert left == []
    assert await stop(settings) == []


async def test_a_lab_that_is_served_again_knows_its_past(tmp_path: Path) -> None:
    settings = write_lab(tmp_path / "site")
    async with serving(settings, tied=True), connect_async(settings=settings) as lab:
        run = await Here(settings, lab).run("three")
        later = await lab.request(Request("napping", seconds=0.3))
        await Here(settings, lab).until(later, lambda run: run.state is RunState.WAITING)
    settings = load_settings(settings.folder, {})
    async with serving(settings, tied=True), connect_async(settings=settings) as lab:
        assert (await lab.run_shown(run.id))["state"] == "succeeded"
        assert (await Here(settings, lab).end(later)).state is RunState.SUCCEEDED


def holders(settings: Settings) -> set[int]:
    return {int(slot.read_text()) for slot in slots_held(settings.state_dir)}


def is_alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
