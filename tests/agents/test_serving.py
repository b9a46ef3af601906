"""An agent at work, over a real nats-server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from labwright import Agent, Session, operation, process
from labwright.agents.handle import AgentHandle, SessionHandle
from labwright.core.errors import NotFoundError, NotRunningError, ParameterError, SessionFailedError, UsageError
from labwright.core.model import SessionSnapshot, SessionState
from tests.agents.conftest import Serve
from tests.support.waiting import until

Handle = Callable[..., AgentHandle]


class Pump(Agent):
    """A syringe pump."""

    def __init__(self, volume_ml: float = 10) -> None:
        self.left_ml = volume_ml
        self.is_open = False
        self.is_enough = False

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    @operation(timeout=60, lock="pump")
    async def dispense(self, session: Session, volume_ml: float) -> float:
        """Dispense a volume."""
        session.update(asked={"ml": volume_ml})
        session.log("dispensing")
        self.left_ml -= volume_ml
        return self.left_ml

    @operation
    async def fail(self, session: Session) -> None:
        raise RuntimeError("it leaks")

    @process
    async def pressure(self, session: Session) -> str:
        async for number in session.every(0.02):
            session.update(number=number)
        return "stopped well"

    @operation(grace=0.2)
    async def sleep(self, session: Session, seconds: float = 60) -> None:
        await asyncio.sleep(seconds)

    @operation(grace=0.2, lock="stubborn")
    async def stubborn(self, session: Session) -> None:
        while True:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                if self.is_enough:
                    raise


async def test_a_task_is_called_and_gives_its_result(serve: Serve, handle: Handle) -> None:
    async with serve(Pump, arguments={"volume_ml": "12.5"}):
        session = await handle().dispense(volume_ml=2.5)

    assert isinstance(session, SessionSnapshot)
    assert session.state is SessionState.SUCCEEDED
    assert session.result == 10.0
    assert session.data == {"asked": {"ml": 2.5}}
    assert [message.text for message in session.messages] == ["dispensing"]
    assert session.by == "tester@here"


async def test_what_an_operation_raises_is_its_error(serve: Serve, handle: Handle) -> None:
    async with serve(Pump):
        with pytest.raises(SessionFailedError, match="it leaks") as caught:
            await handle().fail()

    assert caught.value.kind == "bug"
    assert isinstance(caught.value.session, SessionSnapshot)
    assert "RuntimeError" in (caught.value.session.error.traceback if caught.value.session.error else "")


async def test_a_process_runs_until_it_is_stopped(serve: Serve, handle: Handle) -> None:
    async with serve(Pump):
        session = await handle().pressure()
        assert isinstance(session, SessionHandle)
        assert session.snapshot.state in {SessionState.STARTING, SessionState.RUNNING}

        states = [state async for state in _until_number(session, 3)]
        await session.stop()
        end = await session.wait(30)

    assert states
    assert end.state is SessionState.SUCCEEDED
    assert end.result == "stopped well"


async def _until_number(session: SessionHandle, number: int) -> AsyncIterator[SessionSnapshot]:
    updates = session.updates()
    async for state in updates:
        if state.data.get("number", 0) >= number:
            yield state
            break
    await updates.aclose()


async def test_an_abort_ends_a_session_at_once(serve: Serve, handle: Handle) -> None:
    async with serve(Pump):
        session = await handle().sleep.start()
        begun = time.monotonic()
        await session.abort("enough")
        end = await session.wait(30)
        took = time.monotonic() - begun

    assert end.state is SessionState.ABORTED
    assert end.error is not None
    assert end.error.kind == "aborted"
    assert "tester@here: enough" in end.error.because
    assert took < 10


async def test_what_ignores_an_abort_is_given_up_and_keeps_its_lock(serve: Serve, handle: Handle) -> None:
    async with serve(Pump) as server:
        session = await handle().stubborn.start()
        await session.abort()
        end = await session.wait(30)

        assert end.state is SessionState.ABORTED
        assert "given up" in (end.error.because if end.error else "")
        assert server._desk.locks.held["stubborn"].session == session.id
        with pytest.raises(Exception, match="held"):
            await handle().stubborn.start()
        assert isinstance(server.agent, Pump)
        server.agent.is_enough = True
        await until(lambda: not server._desk.locks.held)


async def test_every_question_has_its_exact_answer(serve: Serve, handle: Handle) -> None:
    async with serve(Pump):
        agent = handle()
        with pytest.raises(NotFoundError, match="has no operation 'dispens'") as unknown:
            await agent.dispens.start()
        assert "'dispense'" in unknown.value.because
        with pytest.raises(NotRunningError, match="dispense is not running") as idle:
            await agent.dispense.abort()
        assert "it never ran here" in idle.value.because
        with pytest.raises(UsageError, match="cannot be stopped"):
            await agent.dispense.stop()
        with pytest.raises(ParameterError) as wrong:
            await agent.dispense.start(volume="x")
        assert len(wrong.value.findings) == 2
        assert await agent.dispense.status() is None

        first = await agent.dispense.start(volume_ml=1)
        ended = await first.wait(30)
        assert (await first.abort()).state is ended.state is SessionState.SUCCEEDED
        with pytest.raises(NotRunningError) as done:
            await agent.dispense.abort()
        assert f"{first.id} ended as succeeded" in done.value.because
