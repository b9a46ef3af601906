"""The ticker with a real journal: each point is requested once, whoever dies, leads twice or comes back after days."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from labwright.client.schedules import ScheduleActs
from labwright.core.errors import ConflictError, NotFoundError, ParameterError
from labwright.core.model import Cause, Run
from labwright.journal.connection import Address, Connection
from labwright.journal.journal import Journal
from labwright.journal.nats_server import EmbeddedServer
from labwright.journal.records import Finished, ScheduleDefined, ScheduleFired, SchedulePaused, ScheduleResumed
from labwright.journal.schedule_fold import schedule_subject
from labwright.plan.durable import ScheduleDefinition, ScheduleSnapshot
from labwright.plan.point_forms import to_form
from labwright.plan.points import Points
from labwright.plan.timepoints import at, every
from labwright.run.folding import Folding
from labwright.run.ticker import Ticker
from labwright.testing.clock import ManualClock
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(120)
START = datetime(2026, 1, 1, tzinfo=UTC)


def definition(points: Points, **fields: Any) -> ScheduleDefinition:
    return ScheduleDefinition.given(task="one", points=to_form(points), **fields)


class Bench:
    """A journal, and a ticker on a clock that tests move; targets and wrong parameters are what the test says."""

    def __init__(self, journal: Journal, folding: Folding, clock: ManualClock) -> None:
        self.journal = journal
        self.folding = folding
        self.clock = clock
        self.targets: list[str] = ["t1", "t2"]
        self.acts = ScheduleActs(journal=journal, by="ada", role="")
        self.ticker = Ticker(journal, folding, dict, choose=self._choose, prepare=self._prepare, clock=clock)
        folding.listeners.append(lambda _entries, changes: self.ticker.note(changes))

    async def _choose(self, on: str) -> Sequence[str]:
        return [on] if on in self.targets else list(self.targets)

    async def _prepare(self, task: str, params: Mapping[str, object]) -> Mapping[str, object]:
        if "wrong" in params:
            raise ParameterError(f"{task} takes no wrong")
        return {**params, "x": 1}

    async def define(self, name: str, points: Points, **fields: Any) -> None:
        """Add a schedule that begins at the clock's now."""
        record = ScheduleDefined(definition=definition(points, **fields), by="ada", at=self.clock.now())
        await self.say(name, record)

    async def say(self, name: str, record: Any) -> None:
        """Write a record of a schedule behind whatever others write."""
        entries = await self.journal.read(schedule_subject(name))
        seq = await self.journal.append(schedule_subject(name), record, after=entries[-1].seq if entries else 0)
        await self.folding.folded(seq)

    def state(self, name: str) -> ScheduleSnapshot:
        return self.folding.present.schedules[name].schedule

    async def settled(self, name: str, seconds: float) -> ScheduleSnapshot:
        """Wait until what is due so many seconds after the start is settled."""
        moment = START + timedelta(seconds=seconds)
        await until(lambda: self.state(name).watermark >= moment, f"{name} is settled up to {moment}")
        return self.state(name)

    def runs(self) -> list[Run]:
        """Give the runs that are open, in the order of their points."""
        found = [entry.run for entry in self.folding.present.runs.values()]
        return sorted(found, key=lambda run: (run.cause.point or START, run.target or ""))

    def points(self) -> list[tuple[float, str | None]]:
        return [((run.cause.point - START).total_seconds(), run.target) for run in self.runs() if run.cause.point]

    async def end(self, state: Any = "succeeded") -> None:
        """End all runs."""
        for entry in list(self.folding.present.runs.values()):
            seq = await self.journal.append(f"run.{entry.run.id}", Finished(state=state), after=entry.seq)
            await self.folding.folded(seq)

    async def pass_on(self, seconds: float) -> None:
        """Let time pass, after the schedules have gone to sleep."""
        await asyncio.sleep(0)
        self.clock.advance(seconds)


@asynccontextmanager
async def engine(folder: Path) -> AsyncGenerator[Journal]:
    server = EmbeddedServer(folder, tied=True)
    await server.start()
    try:
        async with Connection(lambda: Address.read(server.connection_file), patience_s=30) as connection:
            journal = Journal(connection)
            await journal.prepare()
            yield journal
    finally:
        await server.stop()


@asynccontextmanager
async def ticking(
    journal: Journal, view: Path, clock: ManualClock | None = None, *, leads: bool = True
) -> AsyncGenerator[Bench]:
    """Have a ticker, which leads unless told otherwise."""
    folding = Folding(journal, view)
    bench = Bench(journal, folding, clock or ManualClock(START))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(folding.run())]
        await folding.caught_up.wait()
        if leads:
            tasks.append(group.create_task(bench.ticker.lead()))
        yield bench
        for task in tasks:
            task.cancel()
    folding.view.close()


async def test_each_point_becomes_a_run_on_each_target_with_the_point_as_its_cause(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal, ticking(journal, tmp_path / "view.sqlite") as bench:
        await bench.define("s", 2 * every(60), on="kind=pump", priority=3, window_s=30)
        await bench.pass_on(60)
        await bench.settled("s", 60)
        assert bench.points() == [(60, "t1"), (60, "t2")]
        run = bench.runs()[0]
        assert run.cause == Cause(kind="schedule", id="s", point=START + timedelta(seconds=60))
        assert (run.params, run.priority, run.by) == ({"x": 1}, 3, "ada")
        assert run.not_after == START + timedelta(seconds=90)
        await bench.end()
        await bench.pass_on(60)
        await bench.settled("s", 120)
        assert bench.points() == [(120, "t1"), (120, "t2")]


async def test_who_dies_between_the_request_and_the_watermark_requests_nothing_twice(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal:
        async with ticking(journal, tmp_path / "view.sqlite") as bench:
            await bench.define("s", every(60), on="kind=pump")
            real = journal.append

            async def dies(subject: str, record: Any, **options: Any) -> int:
                if record.type == "schedule_ticked":
                    await asyncio.Event().wait()
                return await real(subject, record, **options)

            journal.append = dies  # type: ignore[method-assign]
            await bench.pass_on(60)
            await until(lambda: len(bench.runs()) == 2, "both runs are requested")
            assert bench.state("s").watermark < START
        journal.append = real  # type: ignore[method-assign]
        clock = ManualClock(START)
        clock.advance(61)
        async with ticking(journal, tmp_path / "view.sqlite", clock) as bench:
            await bench.settled("s", 60)
            assert bench.points() == [(60, "t1"), (60, "t2")]
        entries = [entry async for batch in _all(journal) for entry in batch]
        assert [entry.record.type for entry in entries].count("requested") == 2


async def _all(journal: Journal) -> AsyncGenerator[Any]:
    async for batch in journal.follow(["run.>"], after=0):
        if not batch:
            return
        yield batch


async def test_two_who_both_believe_that_they_lead_make_each_point_once(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal:
        clock = ManualClock(START)
        one, two = tmp_path / "one.sqlite", tmp_path / "two.sqlite"
        async with ticking(journal, one, clock) as first, ticking(journal, two, clock) as second:
            await first.define("s", every(60), overlap="parallel")
            await until(lambda: "s" in second.folding.present.schedules)
            for seconds in (60, 120, 180):
                await first.pass_on(60)
                for bench in (first, second):
                    await bench.settled("s", seconds)
            assert first.points() == second.points() == [(60, None), (120, None), (180, None)]


async def test_what_came_while_no_ticker_led_is_missed_save_the_last(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal:
        async with ticking(journal, tmp_path / "view.sqlite", leads=False) as bench:
            await bench.define("s", every(1))
            bench.clock.advance(3 * 86_400 + 0.5)
        clock = ManualClock(START)
        clock.advance(3 * 86_400 + 0.5)
        async with ticking(journal, tmp_path / "view.sqlite", clock) as bench:
            state = await bench.settled("s", 3 * 86_400)
            assert bench.points() == [(259_200, None)]
            assert {row.outcome.value for row in state.rows} == {"missed_down"}
        ticks = [entry for entry in await journal.read(schedule_subject("s")) if entry.record.type == "schedule_ticked"]
        assert sum(len(entry.record.missed) for entry in ticks) == 259_199  # type: ignore[attr-defined]
        assert len(ticks) < 300


async def test_a_point_waits_for_the_run_before_it(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal, ticking(journal, tmp_path / "view.sqlite") as bench:
        await bench.define("s", every(60))
        await bench.pass_on(60)
        await bench.settled("s", 60)
        await bench.pass_on(60)
        state = await bench.settled("s", 120)
        assert (bench.points(), len(state.waiting)) == ([(60, None)], 1)
        await bench.end()
        await until(lambda: bench.points() == [(120, None)], "the waiting point is made")


async def test_a_fired_point_is_made_once_also_in_a_pause(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal, ticking(journal, tmp_path / "view.sqlite") as bench:
        await bench.define("s", every(60))
        await bench.say("s", SchedulePaused(at=bench.clock.now()))
        bench.clock.advance(5)
        await bench.say("s", ScheduleFired(at=bench.clock.now()))
        await until(lambda: not bench.state("s").fires, "it has its run")
        assert bench.points() == [(5, None)]
        await bench.say("s", ScheduleResumed(at=bench.clock.now()))
        await bench.pass_on(60)
        await bench.settled("s", 65)
        assert bench.points() == [(5, None)]  # the next one waits for it


async def test_what_has_not_begun_is_withdrawn_by_a_pause_a_removal_and_a_target_that_goes(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal, ticking(journal, tmp_path / "view.sqlite") as bench:
        for name in ("paused", "removed", "left"):
            await bench.define(name, every(60), on="all")
        await bench.pass_on(60)
        for name in ("paused", "removed", "left"):
            await bench.settled(name, 60)
        bench.clock.advance(1)
        await bench.say("paused", SchedulePaused(at=bench.clock.now()))
        await bench.acts.change("removed", "remove")
        bench.targets.remove("t2")
        bench.ticker.look_again()

        def withdrawn() -> list[tuple[str, str | None]]:
            return sorted((run.cause.id, run.target) for run in bench.runs() if run.aborting)

        expected = [("left", "t2"), ("paused", "t1"), ("paused", "t2"), ("removed", "t1"), ("removed", "t2")]
        await until(lambda: withdrawn() == expected, "they are withdrawn")
        reasons = {run.cause.id: run.aborting for run in bench.runs() if run.aborting}
        assert reasons["left"] == "withdrawn by left: its selector no longer chooses it"


async def test_a_schedule_that_stops_on_an_error_is_paused_and_says_why(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal, ticking(journal, tmp_path / "view.sqlite") as bench:
        await bench.define("s", every(60), on_error="stop")
        await bench.pass_on(60)
        await bench.settled("s", 60)
        (run,) = bench.runs()
        await bench.end("failed")
        await until(lambda: not bench.state("s").is_active, "it is paused")
        assert bench.state("s").reason == f"{run.id} failed"


async def test_a_point_for_which_nobody_is_chosen_has_failed_and_wrong_parameters_fail_the_run(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal, ticking(journal, tmp_path / "view.sqlite") as bench:
        bench.targets.clear()
        await bench.define("nobody", every(60), on="kind=pump")
        await bench.define("wrong", every(60), params={"wrong": 1})
        await bench.pass_on(60)
        state = await bench.settled("nobody", 60)
        await bench.settled("wrong", 60)
        assert [(row.outcome.value, row.reason) for row in state.rows] == [("failed", "nobody is chosen by kind=pump")]
        (run,) = bench.runs()
        assert run.refused is not None
        assert run.refused.message == "one takes no wrong"


async def test_a_clock_that_is_set_forward_makes_no_point_for_each_second_it_passed_over(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal, ticking(journal, tmp_path / "view.sqlite") as bench:
        await bench.define("s", every(1), overlap="parallel")
        await asyncio.sleep(0)
        bench.clock.step_wall(3600)
        bench.ticker.clock_was_set()
        await bench.settled("s", 3600)
        assert bench.points() == [(3600, None)]


async def test_acts_are_refused_where_they_make_no_sense(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal:
        acts = ScheduleActs(journal=journal, by="ada", role="")
        first = await acts.add("a.b", definition(every(60)))
        assert await acts.add("a.b", definition(every(60))) == first
        with pytest.raises(ConflictError, match="another schedule"):
            await acts.add("a.b", definition(every(61)))
        with pytest.raises(ConflictError, match="not paused"):
            await acts.change("a.b", "resume")
        await acts.change("a.b", "pause")
        with pytest.raises(ConflictError, match="paused already"):
            await acts.change("a.b", "pause")
        await acts.change("a.b", "remove")
        with pytest.raises(NotFoundError):
            await acts.change("a.b", "fire")
        assert await acts.add("a.b", definition(every(61))) > first


async def test_what_has_not_ended_at_its_cutoff_is_aborted_also_after_a_restart(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal:
        clock = ManualClock(START)
        async with ticking(journal, tmp_path / "view.sqlite", clock) as bench:
            await bench.define("s", at(START + timedelta(seconds=60), START + timedelta(seconds=600)), cutoff_s=120)
            await bench.pass_on(60)
            await bench.settled("s", 60)
            await until(lambda: len(bench.runs()) == 1)
            clock.advance(119)
            assert bench.runs()[0].aborting is None
        clock.advance(1)
        async with ticking(journal, tmp_path / "view.sqlite", clock) as bench:
            await until(lambda: bench.runs()[0].aborting, "it is aborted")
            assert bench.runs()[0].aborting == "cut off by s: it had to end 120 s after its point"


async def test_the_cutoff_wakes_the_schedule(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal, ticking(journal, tmp_path / "view.sqlite") as bench:
        await bench.define("s", 1 * every(60), cutoff_s=120)
        await bench.pass_on(60)
        await bench.settled("s", 60)
        loop = bench.ticker._loops["s"]
        await until(lambda: loop.wakes_in() == 120.0, "it sleeps until the cutoff")
        bench.clock.advance(120)
        await until(lambda: bench.runs()[0].aborting, "it is aborted")


async def test_the_targets_of_a_point_are_spread_the_same_each_time_and_otherwise_in_another_schedule(
    tmp_path: Path,
) -> None:
    async with engine(tmp_path) as journal, ticking(journal, tmp_path / "view.sqlite") as bench:
        for name in ("s", "other"):
            await bench.define(name, every(60), on="all", spread_s=60, window_s=10, overlap="parallel")
        for seconds in (60, 120):
            await bench.pass_on(60)
            for name in ("s", "other"):
                await bench.settled(name, seconds)

        def turns(name: str, seconds: float) -> dict[str | None, float]:
            point = START + timedelta(seconds=seconds)
            mine = [run for run in bench.runs() if run.cause.id == name and run.cause.point == point]
            return {run.target: (run.not_before - point).total_seconds() for run in mine if run.not_before}

        first = turns("s", 60)
        assert set(first) == {"t1", "t2"}
        assert all(0 <= each < 60 for each in first.values())
        assert len(set(first.values())) == 2
        assert turns("s", 120) == first
        assert turns("other", 60) != first
        run = bench.runs()[0]
        assert run.not_before is not None
        assert run.not_after == run.not_before + timedelta(seconds=10)


async def test_waves_are_left_to_one_run_that_makes_the_others(tmp_path: Path) -> None:
    async with engine(tmp_path) as journal, ticking(journal, tmp_path / "view.sqlite") as bench:
        fleet = {"waves": ["1", "all"], "failure_budget": "2"}
        await bench.define("s", every(60), on="kind=pump", fleet=fleet, params={"depth": 2}, priority=1)
        await bench.pass_on(60)
        await bench.settled("s", 60)
        (run,) = bench.runs()
        assert (run.task, run.target, run.priority) == ("fleet-run", None, 1)
        assert run.params == {
            "task": "one",
            "selector": "kind=pump",
            "params": {"depth": 2, "x": 1},
            "options": fleet,
            "priority": 1,
        }
