"""One operation on many agents: every target has its honest row, whatever becomes of it, and an end in any case."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from labwright import Agent, Session, operation, process
from labwright.agents.fleet import Asked, FleetCall, Reach
from labwright.agents.fleet_target import TargetCall
from labwright.agents.following import recorded
from labwright.agents.handle import AgentHandle
from labwright.core.errors import FleetFailedError, UsageError
from labwright.core.fleet import FleetResult, FleetRow, Outcome
from labwright.core.ids import hashed_id
from labwright.core.model import ErrorRecord
from labwright.journal.journal import Journal
from labwright.plan.fan_out import FanOut
from tests.agents.conftest import RealAgent, Serve, Start
from tests.support.waiting import until

INSTRUMENT = "tests.agents.instrument:Instrument"


class Card(Agent):
    """A card that does as it is told."""

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails
        self.begun: list[str] = []

    @operation(at_once=10)
    async def tune(self, session: Session, band: int = 0) -> int:
        """Tune."""
        self.begun.append(session.id)
        if len(self.begun) <= self.fails:
            raise ValueError("no light")
        return band

    @operation(at_once=10, grace=0.2)
    async def sleep(self, session: Session, seconds: float = 60) -> None:
        """Sleep."""
        self.begun.append(session.id)
        await asyncio.sleep(seconds)

    @operation(lock="card")
    async def hold(self, session: Session) -> None:
        """Hold the card."""
        await asyncio.sleep(60)

    @operation(lock="card")
    async def use(self, session: Session) -> None:
        """Use the card."""

    @process
    async def stream(self, session: Session) -> None:
        """Stream."""
        async for _ in session.every(0.05):
            pass


def reach(journal: Journal, call: str = "call-1") -> Reach:
    return Reach(
        journal=journal,
        sender="tester@here",
        by="tester@here",
        session_id=lambda name, number: hashed_id("ses", call, name, number),
    )


async def called(
    journal: Journal, targets: list[str], what: str, how: Mapping[str, Any] | None = None, **params: Any
) -> FleetResult:
    asked = Asked(operation=what, params=params, how=FanOut.given(**(how or {})))
    async with asyncio.timeout(60):
        return await FleetCall(reach(journal), targets, asked, selector="all").run()


def outcomes(result: FleetResult) -> dict[str, str]:
    return {name: row.outcome.value for name, row in result.rows.items()}


async def _here(agent: RealAgent, journal: Journal) -> AgentHandle:
    handle = AgentHandle(journal, agent.name, sender="tester@here")
    await until(lambda: _answers(handle))
    return handle


async def _answers(handle: AgentHandle) -> bool:
    try:
        await handle.ping()
    except Exception:  # noqa: BLE001 - it is not up yet
        return False
    return True


# --- the rows --------------------------------------------------------------------------------------------------------


async def test_all_succeed_with_their_results_and_sessions(journal: Journal, serve: Serve) -> None:
    async with serve(Card, name="c1"), serve(Card, name="c2"):
        result = await called(journal, ["c1", "c2"], "tune", band=3)
    assert (result.succeeded, result.quorum, result.counts) == (True, 2, {"succeeded": 2})
    assert [row.result for row in result.rows.values()] == [3, 3]
    assert result.rows["c1"].session == hashed_id("ses", "call-1", "c1", 0)
    assert all(row.duration_s is not None for row in result.rows.values())


async def test_one_that_is_not_there_is_unreachable_and_the_others_are_done(journal: Journal, serve: Serve) -> None:
    async with serve(Card, name="c1"):
        result = await called(journal, ["c1", "gone"], "tune")
    assert outcomes(result) == {"c1": "succeeded", "gone": "unreachable"}
    assert not result.succeeded
    error = result.rows["gone"].error
    assert error is not None
    assert "no agent named 'gone' is here" in error.message


async def test_a_quorum_forgives_and_says_how_many_had_to_succeed(journal: Journal, serve: Serve) -> None:
    async with serve(Card, name="c1"):
        result = await called(journal, ["c1", "gone"], "tune", {"quorum": "50%"})
    assert (result.succeeded, result.quorum) == (True, 1)
    result.raise_if_failed()


async def test_a_failure_tells_who_failed(journal: Journal, serve: Serve) -> None:
    async with serve(Card, name="c1"), serve(Card(fails=9), name="c2"):
        result = await called(journal, ["c1", "c2"], "tune")
    with pytest.raises(FleetFailedError, match="tune succeeded on 1 of 2 targets; 2 had to succeed") as caught:
        result.raise_if_failed()
    assert "c2 failed" in caught.value.because
    error = result.rows["c2"].error
    assert error is not None
    assert "no light" in error.message


async def test_who_refuses_says_why(journal: Journal, serve: Serve) -> None:
    async with serve(Card, name="c1"), serve(Card, name="c2"):
        holding = await AgentHandle(journal, "c2", sender="other@here").hold.start()
        busy = await called(journal, ["c1", "c2"], "use")
        wrong = await called(journal, ["c1"], "tune", bands=3)
        unknown = await called(journal, ["c1"], "tun")
    assert outcomes(busy) == {"c1": "succeeded", "c2": "refused"}
    errors = [row.error for row in (busy.rows["c2"], wrong.rows["c1"], unknown.rows["c1"])]
    assert [error.kind for error in errors if error] == ["locked", "usage", "not_found"]
    assert holding.id in (errors[0].because if errors[0] else "")


async def test_a_deadline_ends_what_is_slow_and_its_agent_aborts_it(journal: Journal, serve: Serve) -> None:
    async with serve(Card, name="c1") as slow:
        result = await called(journal, ["c1"], "sleep", {"timeout_s": 0.3})
        await until(lambda: not slow.sessions)
    assert outcomes(result) == {"c1": "timeout"}


async def test_a_process_is_started_and_goes_on(journal: Journal, serve: Serve) -> None:
    async with serve(Card, name="c1") as server:
        result = await called(journal, ["c1"], "stream")
        assert outcomes(result) == {"c1": "succeeded"}
        assert [session.operation for session in server.sessions.values()] == ["stream"]


# --- again -----------------------------------------------------------------------------------------------------------


async def test_what_failed_is_tried_again_in_a_session_of_its_own(journal: Journal, serve: Serve) -> None:
    card = Card(fails=2)
    async with serve(card, name="c1"):
        result = await called(journal, ["c1"], "tune", {"retries": 2})
    assert outcomes(result) == {"c1": "succeeded"}
    assert card.begun == [hashed_id("ses", "call-1", "c1", number) for number in range(3)]


async def test_a_repeated_call_finds_its_sessions_and_begins_nothing_twice(journal: Journal, serve: Serve) -> None:
    cards = {"c1": Card(), "c2": Card(fails=9)}
    async with serve(cards["c1"], name="c1"), serve(cards["c2"], name="c2"):
        first = await called(journal, ["c1", "c2"], "tune")
        again = await called(journal, ["c1", "c2"], "tune")
    assert outcomes(first) == outcomes(again) == {"c1": "succeeded", "c2": "failed"}
    assert [len(card.begun) for card in cards.values()] == [1, 1]


async def test_who_has_succeeded_before_is_left_alone(journal: Journal, serve: Serve) -> None:
    card = Card()
    before = {"c1": FleetRow(outcome=Outcome.SUCCEEDED, result=7), "c2": FleetRow(outcome=Outcome.FAILED)}
    asked = Asked(operation="tune", params={}, how=FanOut())
    async with serve(card, name="c1"), serve(Card, name="c2"):
        result = await FleetCall(reach(journal), ["c1", "c2"], asked, before=before).run()
    assert (result.succeeded, result.rows["c1"].result, card.begun) == (True, 7, [])


# --- one after the other, waves, budgets -----------------------------------------------------------------------------


async def test_one_after_the_other_never_two_at_once(journal: Journal, serve: Serve) -> None:
    running: list[int] = []

    class Shared(Agent):
        @operation
        async def act(self, session: Session) -> int:
            running.append(1)
            most = len(running)
            await asyncio.sleep(0.02)
            running.pop()
            return most

    async with serve(Shared, name="c1"), serve(Shared, name="c2"), serve(Shared, name="c3"):
        serial = await called(journal, ["c1", "c2", "c3"], "act", {"serial": True, "settle_s": 0.01})
    assert [row.result for row in serial.rows.values()] == [1, 1, 1]


async def test_a_bad_wave_stops_the_rest(journal: Journal, serve: Serve) -> None:
    later = Card()
    async with serve(Card(fails=9), name="c1"), serve(later, name="c2"), serve(later, name="c3"):
        result = await called(journal, ["c1", "c2", "c3"], "tune", {"waves": "1,all"})
    assert outcomes(result) == {"c1": "failed", "c2": "skipped", "c3": "skipped"}
    error = result.rows["c3"].error
    assert error is not None
    assert "the failure budget is 0" in error.because
    assert later.begun == []


async def test_too_many_failures_abort_what_runs_where_that_is_wanted(journal: Journal, serve: Serve) -> None:
    async with serve(Card, name="c1") as goes_on:
        result = await called(
            journal, ["c1", "gone"], "sleep", {"on_failure": "abort", "failure_budget": "0"}, seconds=60
        )
        assert not goes_on.sessions
    assert outcomes(result) == {"c1": "aborted", "gone": "unreachable"}


async def test_an_aborted_call_gives_every_row(journal: Journal, serve: Serve) -> None:
    asked = Asked(operation="sleep", params={}, how=FanOut.given(parallel=1))
    card = Card()
    async with serve(card, name="c1"), serve(Card, name="c2"):
        call = FleetCall(reach(journal), ["c1", "c2"], asked)
        running = asyncio.create_task(call.run())
        await until(lambda: card.begun)
        await call.abort("enough")
        async with asyncio.timeout(30):
            result = await running
    assert outcomes(result) == {"c1": "aborted", "c2": "skipped"}


async def test_who_was_started_and_is_left_before_its_end_was_not_skipped(journal: Journal, serve: Serve) -> None:
    """A step that is told to end has a moment for the rows: those that have not come by then are of open sessions."""
    asked = Asked(operation="sleep", params={}, how=FanOut.given(parallel=2))
    cards = Card(), Card()
    async with serve(cards[0], name="c1"), serve(cards[1], name="c2"):
        call = FleetCall(reach(journal), ["c1", "c2", "c3"], asked)
        running = asyncio.create_task(call.run())
        await until(lambda: all(card.begun for card in cards))
        aborting = asyncio.create_task(call.abort("enough"))
        for _ in range(2):  # everybody is being told, and nobody has answered
            await asyncio.sleep(0)
        result = call.result
        await aborting
        await running
    assert outcomes(result) == {"c1": "aborted", "c2": "aborted", "c3": "skipped"}
    assert [row.session for row in result.rows.values()] == [cards[0].begun[0], cards[1].begun[0], None]
    error = result.rows["c1"].error
    assert error is not None
    assert (error.kind, error.because) == ("aborted", "enough")
    assert call.result.rows["c1"].error != error


async def test_everybody_is_told_to_end_once(journal: Journal, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many fail after that."""
    told: list[str] = []
    abort = TargetCall.abort

    async def heard(self: TargetCall, reason: str) -> None:
        told.append(self.name)
        await abort(self, reason)

    monkeypatch.setattr(TargetCall, "abort", heard)
    async with serve(Card, name="c1"), serve(Card, name="c2"):
        how = {"on_failure": "abort", "failure_budget": "0"}
        result = await called(journal, ["c1", "c2", "gone", "lost"], "sleep", how)
    assert outcomes(result)["c1"] == outcomes(result)["c2"] == "aborted"
    assert [told.count(name) for name in ("c1", "c2")] == [1, 1]


async def test_what_never_began_is_tried_again_under_the_same_id(journal: Journal) -> None:
    """Else, where the first command is heard late, it would be done twice."""
    ids: list[int] = []
    asked = Asked(operation="tune", params={}, how=FanOut(retries=2))

    def session_id(name: str, number: int) -> str:
        ids.append(number)
        return hashed_id("ses", name, number)

    call = FleetCall(Reach(journal=journal, sender="tester@here", session_id=session_id), ["gone"], asked)
    assert outcomes(await call.run()) == {"gone": "unreachable"}
    assert set(ids) == {0}


async def test_a_name_that_stands_twice_and_a_quorum_out_of_reach_are_refused(journal: Journal) -> None:
    asked = Asked(operation="tune", params={}, how=FanOut())
    with pytest.raises(UsageError, match="c1 is named twice"):
        FleetCall(reach(journal), ["c1", "c1"], asked)
    with pytest.raises(UsageError, match="cannot be reached"):
        FleetCall(reach(journal), ["c1"], Asked(operation="tune", params={}, how=FanOut(quorum="2")))


# --- agents that go away ---------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "agents-state"


async def test_one_that_vanishes_in_the_middle_is_unreachable(journal: Journal, start_agent: Start) -> None:
    agent = await start_agent(INSTRUMENT, name="a1")
    await _here(agent, journal)
    session = hashed_id("ses", "call-1", "a1", 0)
    calling = asyncio.create_task(called(journal, ["a1"], "sleep", {"return_within_s": 0.5}))
    await until(lambda: recorded(journal, "a1", session))  # so the caller may have been told, or not quite
    agent.kill()
    result = await calling
    row = result.rows["a1"]
    assert (row.outcome, row.session) == (Outcome.UNREACHABLE, session)


async def test_one_that_comes_back_with_its_session_answers_with_its_end(
    journal: Journal, start_agent: Start, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    script = tmp_path / "wait.py"
    script.write_text(f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)\n")
    agent = await start_agent(INSTRUMENT, name="a1")
    handle = await _here(agent, journal)
    calling = asyncio.create_task(called(journal, ["a1"], "run", script=str(script)))
    await until(lambda: _runs(handle, "run"))
    agent.kill()
    await agent.ended()
    await _here(await start_agent(INSTRUMENT, name="a1"), journal)
    gate.touch()
    result = await calling
    assert outcomes(result) == {"a1": "succeeded"}
    assert result.rows["a1"].result == 0


async def test_one_that_comes_back_without_its_session_is_unreachable_and_nothing_starts_again(
    journal: Journal, start_agent: Start
) -> None:
    agent = await start_agent(INSTRUMENT, name="a1")
    handle = await _here(agent, journal)
    calling = asyncio.create_task(called(journal, ["a1"], "sleep"))
    await until(lambda: _runs(handle, "sleep"))
    agent.kill()
    await agent.ended()
    again = await _here(await start_agent(INSTRUMENT, name="a1"), journal)
    result = await calling
    assert outcomes(result) == {"a1": "unreachable"}
    assert not await _runs(again, "sleep")


async def test_a_frozen_agent_is_unreachable_within_the_deadline(journal: Journal, start_agent: Start) -> None:
    agent = await start_agent(INSTRUMENT, name="a1")
    await _here(agent, journal)
    agent.kill(signal.SIGSTOP)
    result = await called(journal, ["a1"], "nothing", {"timeout_s": 2})
    agent.kill(signal.SIGCONT)
    assert outcomes(result) == {"a1": "unreachable"}


async def test_a_session_of_a_frozen_agent_that_began_untold_is_found(journal: Journal, start_agent: Start) -> None:
    agent = await start_agent(INSTRUMENT, name="a1")
    handle = await _here(agent, journal)
    session = hashed_id("ses", "call-1", "a1", 0)
    await handle.operation("sleep").with_options(session=session).start()  # its answer shall be that which was lost
    await until(lambda: recorded(journal, "a1", session))
    agent.kill(signal.SIGSTOP)
    result = await called(journal, ["a1"], "sleep", {"timeout_s": 1.5})
    agent.kill(signal.SIGCONT)
    row = result.rows["a1"]
    assert (row.outcome, row.session) == (Outcome.UNREACHABLE, session)


async def test_one_that_is_back_before_the_others_end_is_taken_up_again(journal: Journal, serve: Serve) -> None:
    card = Card()
    async with serve(card, name="c1"):
        calling = asyncio.create_task(called(journal, ["c1", "c2"], "sleep", seconds=1))
        await until(lambda: card.begun)
        async with serve(Card, name="c2"):
            result = await calling
    assert outcomes(result) == {"c1": "succeeded", "c2": "succeeded"}


async def _runs(handle: AgentHandle, what: str) -> bool:
    return any(session["operation"] == what for session in await handle.sessions())


def test_a_row_reads_back_from_its_json() -> None:
    row = FleetRow(outcome=Outcome.TIMEOUT, session="ses_1", error=ErrorRecord(kind="timeout", message="late"))
    result = FleetResult.of("tune", "all", 1, {"c1": row})
    assert FleetResult.model_validate_json(result.model_dump_json(by_alias=True)) == result


# --- answers that are none --------------------------------------------------------------------------------------------

ODD = {
    "no JSON": b"\xff{",
    "no object": b"[1, 2]",
    "a number": b"7",
    "deep": b"[" * 100_000,
    "nothing in it": b"{}",
    "no session": b'{"session": {"id": 7}}',
    "a session of others": b'{"session": null, "is_new": true}',
    "an error that is none": b'{"session": null, "error": [1]}',
    "an exit code that is none": b'{"session": null, "error": {"kind": "x", "message": "m"}, "exit_code": "many"}',
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
async def test_an_answer_that_is_none_costs_that_target_its_row_and_nobody_else(
    journal: Journal, serve: Serve, answer: bytes
) -> None:
    async def hear(message: Msg) -> None:
        await journal.connection.publish(message.reply, answer)

    end = await journal.connection.listen("command.*.odd.*", hear)
    async with serve(Card, name="c1"):
        result = await called(journal, ["c1", "odd"], "tune", band=3)
    await end()
    assert outcomes(result) == {"c1": "succeeded", "odd": "failed"}
    error = result.rows["odd"].error
    assert error is not None
    assert "cannot be read" in error.message
