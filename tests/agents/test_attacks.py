"""What attacks on agents have found: each test failed before the mend that it guards."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from labwright import Agent, Session, operation
from labwright.agents import session_handle
from labwright.agents.handle import AgentHandle, SessionHandle
from labwright.agents.ledger import agent_folder
from labwright.agents.pulse import HARD_EXIT, Pulse
from labwright.core.errors import AgentGoneError, TooLargeError
from labwright.core.model import SessionSnapshot, SessionState
from labwright.core.plain import to_plain
from tests.agents.conftest import Serve, Start
from tests.support.waiting import until

Handle = Callable[..., AgentHandle]


class Hostile:
    """An object that raises whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class HostileKey:
    def __str__(self) -> str:
        raise RuntimeError("no text")


class HostileMapping(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("no items")


@dataclass
class Node:
    parent: Any = None
    children: list[Any] = field(default_factory=list[Any])


HOSTILE: dict[str, Callable[[], Any]] = {
    "attribute": Hostile,
    "key": lambda: {HostileKey(): 1},
    "items": lambda: HostileMapping(a=1),
}


class Attacked(Agent):
    """An agent whose operations do what they should not."""

    @operation(lock="bench")
    async def give(self, session: Session, what: str) -> Any:
        """Return what cannot be converted."""
        session.update(shown=HOSTILE[what]())
        return HOSTILE[what]()

    @operation(lock="bench")
    async def leave(self, session: Session) -> None:
        """Raise what a coroutine raises when its loop goes away."""
        raise GeneratorExit

    @operation(adopt=True, at_once=9)
    async def count(self, session: Session, done: str, total: str) -> str:
        """Show a progress that is no number."""
        session.progress(float(done), float(total), "frames")
        await session.sleep(0.2)
        return "counted"

    @operation(grace=0.2)
    async def swallow(self, session: Session) -> None:
        """Hear no cancellation."""
        session.update(begun=True)
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    @operation
    async def keep(self, session: Session, text: str) -> int:
        """Take a text of any length."""
        return len(text)


@pytest.mark.parametrize("what", HOSTILE)
def test_a_value_whose_methods_raise_becomes_a_text(what: str) -> None:
    assert to_plain({"good": 1, "bad": HOSTILE[what]()})["good"] == 1


def test_a_tree_with_ways_up_is_converted_at_once() -> None:
    root = Node()
    root.children = [Node(parent=root) for _ in range(4)]
    loop: dict[str, Any] = {}
    loop |= {"left": loop, "right": loop}

    assert list(to_plain(root)["children"][0]) == ["parent", "children"]
    assert list(to_plain(loop)["left"]) == ["$repr"]


def test_what_stands_twice_side_by_side_is_no_cycle() -> None:
    shared = [1]

    assert to_plain([shared, shared]) == [[1], [1]]


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_result_that_cannot_be_converted_ends_its_session(serve: Serve, handle: Handle, what: str) -> None:
    async with serve(Attacked):
        session = await handle().give(what=what)
        again = await handle().give(what=what)

    assert session.state is again.state is SessionState.SUCCEEDED
    assert session.ended_at is not None


async def test_an_operation_that_raises_generator_exit_has_ended_and_frees_its_lock(
    serve: Serve, handle: Handle
) -> None:
    async with serve(Attacked):
        for _ in range(2):
            session = await handle().leave.start()
            ended = await session.wait(20)
            assert ended.state is SessionState.FAILED


@pytest.mark.parametrize("done", ["nan", "inf", "-inf"])
async def test_a_progress_that_is_no_number_is_shown_as_none(serve: Serve, handle: Handle, done: str) -> None:
    async with serve(Attacked):
        session = await handle().count.start(done=done, total=done)
        running = await session.status()
        ended = await session.wait(20)

    assert running.progress is not None
    assert (running.progress.done, running.progress.total) == (0, None)
    assert ended.state is SessionState.SUCCEEDED


async def test_an_agent_starts_again_over_such_a_progress(serve: Serve, handle: Handle) -> None:
    async with serve(Attacked) as server:
        session = await handle().count.start(done="inf", total="nan")
        server.leave_scripts = True
    async with serve(Attacked):
        ended = await session.wait(20)

    assert ended.state is SessionState.SUCCEEDED


async def test_a_command_too_large_for_the_server_is_refused_at_once(serve: Serve, handle: Handle) -> None:
    async with serve(Attacked):
        begun = time.monotonic()
        with pytest.raises(TooLargeError, match="bytes"):
            await handle().keep(text="x" * 3_000_000)
        kept = await handle().keep(text="x" * 900_000)

    assert time.monotonic() - begun < 9
    assert kept.result == 900_000


@pytest.mark.parametrize("name", [".", "..", "..."])
async def test_a_name_of_dots_has_a_folder_of_its_own(serve: Serve, handle: Handle, tmp_path: Path, name: str) -> None:
    async with serve(Attacked, name=name):
        kept = await handle(name).keep(text="x")

    assert kept.result == 1
    assert agent_folder(tmp_path / "agents-state", name).is_dir()
    assert not (tmp_path / "agents-state" / "ledger.sqlite").exists()
    assert not (tmp_path / "agents-state" / "agents" / "ledger.sqlite").exists()


async def test_a_reply_that_cannot_be_made_does_not_bring_the_agent_down(
    serve: Serve, handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(Attacked) as server:
        session = await handle().count.start(done="1", total="2")

        async def broken(*_: object) -> bytes:
            raise OSError("the disk is gone")

        monkeypatch.setattr(server._desk, "_end_of", broken)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await handle().count(done="1", total="2")

        assert not server.failure.done()
        assert (await session.status()).agent == "a1"


async def test_a_wait_outlives_the_death_of_an_agent_that_is_back_at_once(
    start_agent: Start, handle: Handle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(session_handle, "POLL_S", 1.0)
    file = tmp_path / "script.py"
    file.write_text("import time; time.sleep(8)")
    first = await start_agent("tests.agents.instrument:Instrument")
    agent = handle(patience_s=1.0)
    session = await until_started(agent, str(file))
    waiting = asyncio.create_task(waited(session))
    await asyncio.sleep(0.3)

    first.kill()
    await first.ended()
    await start_agent("tests.agents.instrument:Instrument")

    assert (await waiting).state is SessionState.SUCCEEDED


async def test_an_operation_that_swallows_cancellations_does_not_keep_its_agent_from_ending(
    start_agent: Start, handle: Handle
) -> None:
    process = await start_agent("tests.agents.test_attacks:Attacked")
    session = await until_begun(handle())
    process.kill(signal.SIGTERM)

    assert await process.ended(20) == HARD_EXIT
    with pytest.raises(AgentGoneError):
        await handle().ping()
    assert (await session.status()).state is SessionState.ABORTED


async def until_begun(agent: AgentHandle) -> SessionHandle:
    async with asyncio.timeout(20):
        while True:
            try:
                return await agent.swallow.start()
            except AgentGoneError:
                await asyncio.sleep(0.05)


async def until_started(agent: AgentHandle, script: str) -> SessionHandle:
    async with asyncio.timeout(20):
        while True:
            try:
                return await agent.run.start(script=script)
            except AgentGoneError:
                await asyncio.sleep(0.05)


async def waited(session: SessionHandle) -> SessionSnapshot:
    """Wait for a session, over the time in which its agent is honestly said to be away; nothing else may come."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await session.wait()
            except AgentGoneError:
                await asyncio.sleep(0.05)


async def test_an_operation_that_holds_the_loop_is_noticed_and_ends_the_agent() -> None:
    codes: list[int] = []
    with Pulse(look_s=0.05, ended_after=5, exit_hard=codes.append):
        await asyncio.sleep(0.5)
        assert not codes
        time.sleep(1)
    await until(lambda: codes)

    assert codes[0] == HARD_EXIT


async def test_a_loop_that_only_pauses_is_left_alone() -> None:
    codes: list[int] = []
    with Pulse(look_s=0.1, ended_after=20, exit_hard=codes.append):
        time.sleep(0.5)
        await asyncio.sleep(0.3)

    assert not codes
