"""An agent in a process of its own: killed, told to end, doubled, cut off from nats-server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labwright.agents.following import agents_here, recorded
from labwright.agents.handle import AgentHandle, SessionHandle
from labwright.core.errors import AgentGoneError, LockedError, SessionFailedError
from labwright.core.model import SessionSnapshot, SessionState
from labwright.journal.connection import Connection
from labwright.journal.journal import Journal
from labwright.journal.nats_server import EmbeddedServer
from labwright.journal.records import SessionEnded, SessionStarted
from tests.agents.conftest import Serve, Start
from tests.agents.instrument import Instrument
from tests.support.waiting import until

PLACE = "tests.agents.instrument:Instrument"
Handle = Callable[..., AgentHandle]


async def here(agent: AgentHandle) -> bool:
    try:
        await agent.ping()
    except AgentGoneError:
        return False
    return True


def script(folder: Path, text: str) -> str:
    path = folder / "script.py"
    path.write_text(text)
    return str(path)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


async def test_it_serves_and_ends_cleanly_when_told(start_agent: Start, handle: Handle, connection: Connection) -> None:
    process = await start_agent(PLACE, "--label", "crate=1", "--arg", "port=tty1", "--arg", "sizes=[1, 2]")
    agent = handle()
    await until(lambda: here(agent))

    described = await agent.describe()
    known = await agents_here(connection)
    session = await agent.sleep.start(seconds=60)
    process.kill(signal.SIGTERM)
    code = await process.ended()

    assert described["labels"] == {"crate": "1"}
    assert described["operations"][0]["params"]["properties"] == {}
    assert {each["name"] for each in described["operations"]} >= {"run", "compute", "watch"}
    assert known["a1"]["pid"] == process.pid
    assert code == 0, process.said
    assert "a1" not in await agents_here(connection)
    ended = await session.status()
    assert ended.state is SessionState.ABORTED


async def test_a_second_agent_of_the_name_is_refused(start_agent: Start, handle: Handle, tmp_path: Path) -> None:
    await start_agent(PLACE)
    await until(lambda: here(handle()))

    same_folder = await start_agent(PLACE)
    other_folder = await start_agent(PLACE, state=tmp_path / "other")

    assert await same_folder.ended() == 6
    assert "runs here already" in same_folder.said
    assert await other_folder.ended() == 6
    assert "is here already" in other_folder.said
    assert await here(handle())


async def test_a_killed_agent_is_noticed_and_its_session_is_lost(
    start_agent: Start, handle: Handle, journal: Journal
) -> None:
    process = await start_agent(PLACE)
    agent = handle()
    await until(lambda: here(agent))
    session = await agent.sleep.start()
    waiting = asyncio.create_task(session.wait())
    await asyncio.sleep(0.5)

    process.kill()
    with pytest.raises(AgentGoneError) as gone:
        async with asyncio.timeout(30):
            await waiting
    shown = await session.status()

    assert isinstance(gone.value.session, SessionSnapshot)
    assert gone.value.session.state is SessionState.LOST
    assert shown.state is SessionState.LOST

    await start_agent(PLACE)
    await until(lambda: here(agent))
    lost = await session.wait(30)
    assert lost.state is SessionState.LOST
    assert lost.error is not None
    assert lost.error.kind == "lost"
    known = await until(lambda: _final(journal, session.id))
    assert known.state is SessionState.LOST


async def _final(journal: Journal, session_id: str) -> SessionSnapshot | None:
    known = await recorded(journal, "a1", session_id)
    return known if known is not None and known.state.is_final else None


async def test_a_restarted_agent_takes_its_script_up_again(start_agent: Start, handle: Handle, tmp_path: Path) -> None:
    go = tmp_path / "go"
    path = script(
        tmp_path,
        f"import os, time, pathlib\nprint('pid', os.getpid(), flush=True)\n"
        f"with open({str(tmp_path / 'starts')!r}, 'a') as f: f.write('x')\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.02)\nraise SystemExit(7)\n",
    )
    process = await start_agent(PLACE)
    agent = handle()
    await until(lambda: here(agent))
    session = await agent.run.start(script=path)
    await until((tmp_path / "starts").exists)

    process.kill()
    await process.ended()
    await start_agent(PLACE)
    await until(lambda: here(agent))
    assert (await session.status()).state is SessionState.RUNNING
    with pytest.raises(LockedError):
        await agent.run.start(script=path)
    go.touch()
    ended = await session.wait(30)

    assert ended.state is SessionState.SUCCEEDED
    assert ended.result == 7
    assert (tmp_path / "starts").read_text() == "x"


async def test_leftovers_are_killed_where_that_is_the_policy(
    start_agent: Start, handle: Handle, tmp_path: Path
) -> None:
    path = script(
        tmp_path, f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    )
    process = await start_agent(PLACE)
    agent = handle()
    await until(lambda: here(agent))
    session = await agent.run.start(script=path)
    pid = int(await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))

    process.kill()
    await process.ended()
    await start_agent(PLACE, "--leftovers", "kill")
    await until(lambda: here(agent))
    ended = await session.wait(30)

    assert ended.state is SessionState.LOST
    assert not is_alive(pid)
    assert (await agent.run(script=script(tmp_path, ""))).state is SessionState.SUCCEEDED


async def test_sigterm_ends_scripts_and_says_so(start_agent: Start, handle: Handle, tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n",
    )
    process = await start_agent(PLACE)
    agent = handle()
    await until(lambda: here(agent))
    session = await agent.run.start(script=path)
    pid = int(await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))

    process.kill(signal.SIGTERM)
    assert await process.ended() == 0, process.said

    assert not is_alive(pid)
    assert (await session.status()).state is SessionState.ABORTED


async def left_by_a_killed_agent(start_agent: Start, agent: AgentHandle, folder: Path) -> tuple[SessionHandle, int]:
    """Have an agent killed while a script runs; gives its session and the script's process."""
    path = script(
        folder, f"import os, time\nopen({str(folder / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    )
    process = await start_agent(PLACE)
    await until(lambda: here(agent))
    session = await agent.run.start(script=path)
    pid = int(await until(lambda: (folder / "pid").exists() and (folder / "pid").read_text()))
    process.kill()
    await process.ended()
    return session, pid


async def test_sigterm_before_an_agent_is_up_ends_what_its_predecessor_left(
    start_agent: Start, handle: Handle, tmp_path: Path
) -> None:
    agent = handle()
    session, pid = await left_by_a_killed_agent(start_agent, agent, tmp_path)

    hesitant = await start_agent("tests.agents.instrument:Hesitant")
    await until((tmp_path / "agents-state" / "agents" / "a1" / "opening").exists)
    assert is_alive(pid)
    hesitant.kill(signal.SIGTERM)
    assert await hesitant.ended() == 0, hesitant.said
    assert not is_alive(pid)

    await start_agent(PLACE)
    await until(lambda: here(agent))
    assert (await session.status()).state is SessionState.ABORTED


async def test_a_script_whose_session_cannot_be_taken_up_again_is_ended(
    start_agent: Start, handle: Handle, tmp_path: Path
) -> None:
    agent = handle()
    session, pid = await left_by_a_killed_agent(start_agent, agent, tmp_path)

    await start_agent("tests.agents.instrument:Changed")
    await until(lambda: here(agent))

    assert not is_alive(pid)
    ended = await session.wait(30)
    assert ended.state is SessionState.LOST
    assert ended.error is not None
    assert "could not be taken up again" in ended.error.because


async def test_a_script_whose_end_could_not_be_written_is_found_and_not_started_again(
    serve: Serve, handle: Handle, tmp_path: Path
) -> None:
    starts, go = tmp_path / "starts", tmp_path / "go"
    path = script(
        tmp_path,
        f"import pathlib, time\nopen({str(starts)!r}, 'a').write('x')\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.02)\nraise SystemExit(7)\n",
    )
    async with serve(Instrument) as server:
        session = await handle().run.start(script=path)
        await until(starts.exists)
        server._ledger._database.execute("PRAGMA query_only = 1")  # as a full disk
        go.touch()
        assert (await session.wait(30)).result == 7
    async with serve(Instrument):
        ended = await handle().session(session.id).wait(30)

    assert (ended.state, ended.result) == (SessionState.SUCCEEDED, 7)
    assert starts.read_text() == "x"


async def test_results_are_delivered_after_nats_server_was_killed(
    start_agent: Start, handle: Handle, server: EmbeddedServer, connection: Connection, journal: Journal
) -> None:
    process = await start_agent(PLACE)
    agent = handle()
    await until(lambda: here(agent))
    sessions = [await agent.sleep.start(seconds=1 + number / 10) for number in range(5)]
    keeping = asyncio.create_task(server.keep())
    try:
        for _ in range(2):
            pid = server.pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda: not connection.is_connected)
            await connection.wait_connected()
        ends = [await session.wait(30) for session in sessions]
        assert [end.result for end in ends] == ["slept"] * 5
        for session in sessions:
            await until(lambda session=session: _final(journal, session.id))
            entries = await journal.read(f"session.a1.{session.id}")
            kinds = [type(entry.record) for entry in entries]
            assert kinds[0] is SessionStarted
            assert kinds[-1] is SessionEnded
            assert kinds.count(SessionStarted) == kinds.count(SessionEnded) == 1
            assert len({entry.record.record_id for entry in entries}) == len(entries)
        assert process.process.returncode is None
        assert (await agent.nothing()).state is SessionState.SUCCEEDED
    finally:
        keeping.cancel()


async def test_an_agent_starts_while_nats_server_is_away_and_delivers_later(
    start_agent: Start, handle: Handle, server: EmbeddedServer, journal: Journal, connection: Connection
) -> None:
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not connection.is_connected)
    await start_agent(PLACE)
    await asyncio.sleep(4)

    await server.start()
    await connection.wait_connected()
    agent = handle()
    await until(lambda: here(agent))
    session = await agent.watch.status()

    assert session is not None
    assert session.data["number"] > 20
    await until(lambda: recorded(journal, "a1", session.id))


@pytest.mark.parametrize(
    ("how", "kind", "text"), [("die", "died", "exit code 3"), ("raise", "bug", "does not compute")]
)
async def test_a_child_that_fails_is_a_failure(
    start_agent: Start, handle: Handle, how: str, kind: str, text: str
) -> None:
    await start_agent(PLACE)
    agent = handle()
    await until(lambda: here(agent))

    with pytest.raises(SessionFailedError) as failed:
        await agent.compute(number=3, how=how)

    assert failed.value.kind == kind
    assert text in f"{failed.value.message} {failed.value.because}"
    assert (await agent.compute(number=3)).result == 6


async def test_a_child_has_the_agents_arguments_and_ends_when_aborted(start_agent: Start, handle: Handle) -> None:
    await start_agent(PLACE, "--arg", "port=tty1", "--arg", "sizes=[1, 2]")
    agent = handle()
    await until(lambda: here(agent))
    session = await agent.compute.start(number=1, how="hang")
    data = await until(lambda: _data(session, "sizes"))

    begun = time.monotonic()
    await session.abort()
    ended = await session.wait(30)

    assert data["port"] == "tty1"
    assert data["sizes"] == [1, 2]
    assert ended.state is SessionState.ABORTED
    assert not is_alive(data["pid"])
    assert time.monotonic() - begun < 20


async def _data(session: SessionHandle, name: str) -> dict[str, Any] | None:
    state = await session.status()
    return state.data if name in state.data else None


async def test_a_child_is_taken_up_again(start_agent: Start, handle: Handle) -> None:
    process = await start_agent(PLACE)
    agent = handle()
    await until(lambda: here(agent))
    session = await agent.compute.start(number=21, how="slow")
    pid = (await until(lambda: _data(session, "pid")))["pid"]

    process.kill()
    await process.ended()
    assert is_alive(pid)
    await start_agent(PLACE)
    await until(lambda: here(agent))
    ended = await session.wait(30)

    assert ended.state is SessionState.SUCCEEDED
    assert ended.result == 42
    assert ended.data["pid"] == pid


async def test_a_thread_that_hears_nothing_takes_the_agent_with_it(start_agent: Start, handle: Handle) -> None:
    process = await start_agent(PLACE)
    agent = handle()
    await until(lambda: here(agent))
    session = await agent.think.start(how="stone")
    await until(lambda: _data(session, "how"))

    await session.abort()
    ended = await session.wait(30)
    code = await process.ended()

    assert ended.state is SessionState.ABORTED
    assert code == 70


async def test_forty_sessions_run_and_an_abort_acts_at_once(start_agent: Start, handle: Handle) -> None:
    await start_agent(PLACE)
    agent = handle()
    await until(lambda: here(agent))
    sessions = [await agent.sleep.start() for _ in range(40)]

    begun = time.monotonic()
    await sessions[17].abort()
    ended = await sessions[17].wait(30)
    took = time.monotonic() - begun

    assert ended.state is SessionState.ABORTED
    assert took < 10
    assert (await sessions[18].status()).state is SessionState.RUNNING


async def test_a_file_is_registered_and_logs_are_kept(
    start_agent: Start, handle: Handle, journal: Journal, tmp_path: Path
) -> None:
    await start_agent(PLACE)
    agent = handle()
    await until(lambda: here(agent))
    written = await agent.write(path=str(tmp_path / "x.dat"))
    session = await agent.compute.start(number=5)

    lines = [entry["text"] async for entry in session.log()]
    entries = await until(lambda: journal.read(f"file.{written.result}"))

    assert "computing 5" in lines
    assert json.loads(entries[0].record.model_dump_json())["file"]["path"].endswith("x.dat")
