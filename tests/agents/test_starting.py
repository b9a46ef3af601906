"""What starts, and what does not: keys, ids, tokens, locks, turns, numbers at once."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import pytest

from labwright import Agent, Session, operation, process
from labwright.agents.handle import AgentHandle, SessionHandle
from labwright.core.errors import ConflictError, LabwrightError, LockedError, RefusedError, WaitTimeoutError
from labwright.core.model import SessionState
from tests.agents.conftest import Serve

Handle = Callable[..., AgentHandle]


class Bench(Agent):
    def __init__(self) -> None:
        self.calls = 0
        self.done: list[int] = []

    @operation(lock="table", grace=1)
    async def work(self, session: Session, seconds: float = 0) -> int:
        self.calls += 1
        await asyncio.sleep(seconds)
        return self.calls

    @operation(lock=("table", "lamp"), grace=1)
    async def light(self, session: Session) -> None:
        pass

    @operation(lock="lamp", queue=True, grace=1)
    async def turn(self, session: Session, number: int, seconds: float = 0.1) -> None:
        await asyncio.sleep(seconds)
        self.done.append(number)

    @operation(at_once=2, grace=1)
    async def twice(self, session: Session) -> None:
        await asyncio.sleep(60)

    @operation(timeout=0.2, grace=1)
    async def slow(self, session: Session) -> None:
        await asyncio.sleep(60)

    @process(grace=1)
    async def stream(self, session: Session) -> None:
        await asyncio.sleep(60)


async def test_a_key_starts_once(serve: Serve, handle: Handle) -> None:
    async with serve(Bench) as server:
        keyed = handle().work.with_options(key="monday")
        first, again = await keyed.start(), await keyed.start()
        await first.wait(30)
        later = await keyed.start()

        assert first.id == again.id == later.id
        assert (first.is_new, again.is_new, later.is_new) == (True, False, False)
        assert later.snapshot.result == 1
        assert isinstance(server.agent, Bench)
        assert server.agent.calls == 1
        with pytest.raises(ConflictError, match="other content"):
            await keyed.start(seconds=1)


async def test_an_id_of_long_ago_does_not_start_again(
    serve: Serve, handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labwright.agents.ledger.KEPT", 1)
    monkeypatch.setattr("labwright.agents.ledger.TIDY_EVERY", 1)
    async with serve(Bench) as server:
        first = await handle().work(seconds=0.01)
        for _ in range(3):
            await handle().work()
        again = await handle().work.with_options(session=first.id).start(seconds=0.01)

        assert isinstance(server.agent, Bench)
        assert server.agent.calls == 4
        assert again.is_new is False
        assert (again.snapshot.state, again.snapshot.result) == (SessionState.SUCCEEDED, 1)
        with pytest.raises(ConflictError, match="other content"):
            await handle().work.with_options(session=first.id).start(seconds=1)


async def test_a_busy_lock_names_its_holder(serve: Serve, handle: Handle) -> None:
    async with serve(Bench):
        holder = await handle(by="alice").work.start(seconds=60)
        with pytest.raises(LockedError, match="'table' is held") as locked:
            await handle().light.start()

        assert locked.value.exit_code == 6
        for part in ("work", holder.id, "alice"):
            assert part in locked.value.because
        await holder.abort()
        await holder.wait(30)
        assert (await handle().light()).state is SessionState.SUCCEEDED


async def test_a_queue_keeps_its_order_and_can_be_left(serve: Serve, handle: Handle) -> None:
    async with serve(Bench) as server:
        sessions = [await handle().turn.start(number=number) for number in range(4)]
        await sessions[2].abort()
        ends = [await session.wait(30) for session in sessions]

        assert [end.state.value for end in ends] == ["succeeded", "succeeded", "aborted", "succeeded"]
        assert isinstance(server.agent, Bench)
        assert server.agent.done == [0, 1, 3]


async def test_a_turn_that_comes_too_late_is_refused(serve: Serve, handle: Handle) -> None:
    async with serve(Bench):
        first = await handle().turn.start(number=1, seconds=60)
        second = await handle().turn.with_options(valid_for_s=0.2).start(number=2)
        ended = await second.wait(30)
        await first.abort()

    assert ended.state is SessionState.FAILED
    assert ended.error is not None
    assert ended.error.kind == "refused"


async def test_an_old_token_is_refused(serve: Serve, handle: Handle) -> None:
    async with serve(Bench):
        await handle().work.with_options(token=7, run="run_1")()
        with pytest.raises(RefusedError, match="outdated"):
            await handle().work.with_options(token=6, run="run_1").start()
        again = await handle().work.with_options(token=7, run="run_1")()

        assert again.state is SessionState.SUCCEEDED
    async with serve(Bench):
        with pytest.raises(RefusedError, match="outdated"):
            await handle().work.with_options(token=6).start()


async def test_a_start_that_could_not_be_made_durable_holds_no_lock(
    serve: Serve, handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    async with serve(Bench):
        agent = handle()
        monkeypatch.setattr("labwright.agents.ledger.os.fsync", full)
        with pytest.raises(LabwrightError, match="ledger cannot be used"):
            await agent.work.with_options(token=5, session="ses_full").start(seconds=60)
        monkeypatch.undo()

        assert (await agent.session("ses_full").wait(30)).state is SessionState.ABORTED
        assert (await agent.work()).state is SessionState.SUCCEEDED


async def test_no_more_than_at_once(serve: Serve, handle: Handle) -> None:
    async with serve(Bench):
        for _ in range(2):
            await handle().twice.start()
        with pytest.raises(LockedError, match="running already"):
            await handle().twice.start()


async def test_a_deadline_ends_a_session_and_a_call_may_change_it(serve: Serve, handle: Handle) -> None:
    async with serve(Bench):
        ended = await (await handle().slow.start()).wait(30)
        longer = await handle().slow.with_options(timeout_s=60).start()
        with pytest.raises(WaitTimeoutError) as waited:
            await longer.wait(0.5)

    assert ended.state is SessionState.FAILED
    assert ended.error is not None
    assert ended.error.kind == "timeout"
    assert waited.value.exit_code == 124


async def test_a_process_that_does_not_listen_is_cancelled_after_its_grace(serve: Serve, handle: Handle) -> None:
    async with serve(Bench):
        session = await handle().stream()
        assert isinstance(session, SessionHandle)
        await session.stop()
        ended = await session.wait(30)

    assert ended.state is SessionState.SUCCEEDED
