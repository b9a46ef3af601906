"""Keepers: whoever dies, no exit code is lost, no output, and nothing lives on that nobody holds."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labwright.agents.keeper import start_keeper
from labwright.agents.process_tree import command_of, descendants
from labwright.agents.script import Line, ScriptRunner
from labwright.agents.script_command import ScriptOptions, command_for, job_of
from labwright.agents.script_folder import ScriptFolder
from tests.agents.script_support import (
    alive,
    file_of,
    first_line,
    items_of,
    keepers_of,
    kill_left,
    left_in,
    lines_of,
    runner_in,
    stubborn_script,
)
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(120)

AGENT = """
import asyncio, sys
from pathlib import Path
from labwright.agents.script import ScriptRunner

async def main():
    async with ScriptRunner(Path(sys.argv[1])) as runner:
        script = await runner.start("ses_1", 1, sys.argv[2])
        async for item in script.output():
            print(item.offset, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""
COUNTING = """
    import sys, time
    from pathlib import Path
    go = Path(sys.argv[0]).with_name("go")
    for n in range(1000):
        print(n, flush=True)
        if n == 300:
            while not go.exists():
                time.sleep(0.01)
    sys.exit(7)
"""


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path: Path) -> Iterator[None]:
    yield
    kill_left(tmp_path)


async def agent_with(folder: Path, path: Path) -> asyncio.subprocess.Process:
    """Start a process that holds a runner with one script, and tells the offsets of what it hears."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT, str(folder), str(path), stdout=asyncio.subprocess.PIPE
    )


async def offset_told(agent: asyncio.subprocess.Process) -> int:
    assert agent.stdout is not None
    return int(await agent.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_an_agent_that_dies_costs_neither_output_nor_exit_code(tmp_path: Path, number: int) -> None:
    path = file_of(tmp_path, COUNTING)
    agent = await agent_with(tmp_path, path)
    try:
        offset = max([await offset_told(agent) for _ in range(20)])
        agent.send_signal(number)
        await agent.wait()
        async with runner_in(tmp_path) as runner:
            assert [leftover.state for leftover in runner.leftovers()] == ["running"]
            script = await runner.start("ses_1", 1, path)
            (tmp_path / "go").touch()
            rest = [item.text for item in await items_of(script, offset) if isinstance(item, Line)]
            assert rest == [str(n) for n in range(1000)][-len(rest) :]
            assert await lines_of(script) == [str(n) for n in range(1000)]
            assert (await script.wait()).exit_code == 7
    finally:
        kill_left(tmp_path)


async def test_a_script_that_ended_while_nobody_followed_is_found_with_everything(tmp_path: Path) -> None:
    path = file_of(tmp_path, COUNTING)
    agent = await agent_with(tmp_path, path)
    await offset_told(agent)
    agent.kill()
    await agent.wait()
    (tmp_path / "go").touch()
    await until(lambda: left_in(tmp_path) == [], "the script and its keeper end")
    async with runner_in(tmp_path) as runner:
        assert [leftover.state for leftover in runner.leftovers()] == ["ended"]
        script = await runner.find("ses_1", 1)
        assert script is not None
        assert len(await lines_of(script)) == 1000
        assert (await script.wait()).exit_code == 7


async def test_a_stopped_agent_holds_nothing_up(tmp_path: Path) -> None:
    path = file_of(tmp_path, "for n in range(200_000): print('x' * 50)")
    agent = await agent_with(tmp_path, path)
    try:
        await offset_told(agent)
        agent.send_signal(signal.SIGSTOP)
        await until(lambda: left_in(tmp_path) == [], "the script ends although nobody listens")
    finally:
        agent.kill()
        await agent.wait()


async def test_a_killed_keeper_leaves_no_survivor_and_the_script_is_lost(tmp_path: Path) -> None:
    async with runner_in(tmp_path) as runner:
        script, pids = await stubborn_script(runner, tmp_path)
        keeper, _ = keepers_of(script)
        os.kill(keeper, signal.SIGKILL)
        end = await script.wait()
        assert alive(pids) == []
        assert end.reason == "lost"
        assert "keeper was killed" in end.summary
    async with runner_in(tmp_path) as runner:
        found = await runner.find("ses_1", 1)
        assert found is not None
        assert (await found.wait()).reason == "lost"


async def test_a_killed_keeper_leaves_no_survivor_even_without_an_agent(tmp_path: Path) -> None:
    async with ScriptRunner(tmp_path) as runner:
        script, pids = await stubborn_script(runner, tmp_path)
        keeper, _ = keepers_of(script)
    os.kill(keeper, signal.SIGKILL)
    await until(lambda: alive(pids) == [], "the guard kills what is left")


async def test_a_keeper_killed_with_its_guard_loses_the_script_but_nothing_marked_survives(tmp_path: Path) -> None:
    async with runner_in(tmp_path) as runner:
        script, pids = await stubborn_script(runner, tmp_path)
        try:
            _, guard = keepers_of(script)
            os.killpg(guard, signal.SIGKILL)
            assert (await script.wait()).reason == "lost"
            assert left_in(tmp_path) == []
        finally:
            for pid in alive(pids):
                os.kill(pid, signal.SIGKILL)


async def test_a_script_whose_folder_was_deleted_does_not_live_on(tmp_path: Path) -> None:
    async with ScriptRunner(tmp_path) as runner:
        script = await runner.start("ses_1", 1, file_of(tmp_path, "print('up'); import time; time.sleep(600)"))
        await first_line(script, "up")
        assert script.pid is not None
        pids = [script.pid, *keepers_of(script)]
    shutil.rmtree(tmp_path / "scripts")
    await until(lambda: alive(pids) == [], "the keeper ends the script, and itself")


async def test_a_killed_guard_does_not_concern_the_script(tmp_path: Path) -> None:
    async with runner_in(tmp_path) as runner:
        path = file_of(tmp_path, COUNTING)
        script = await runner.start("ses_1", 1, path)
        _, guard = keepers_of(script)
        os.kill(guard, signal.SIGKILL)
        (tmp_path / "go").touch()
        assert (await script.wait()).exit_code == 7
        assert len(await lines_of(script)) == 1000


async def test_a_keeper_that_is_told_to_end_ends_its_script(tmp_path: Path) -> None:
    async with runner_in(tmp_path) as runner:
        script = await runner.start("ses_1", 1, file_of(tmp_path, "print('up'); import time; time.sleep(600)"))
        await first_line(script, "up")
        _, guard = keepers_of(script)
        os.kill(guard, signal.SIGTERM)
        end = await script.wait()
        assert (end.reason, end.signal) == ("ended", signal.SIGTERM)


def keepers_here() -> list[int]:
    """List the keepers and guards below this process; other tests have processes of their own below it."""
    return [
        entry.pid
        for entry in descendants(os.getpid())
        if any(word.endswith("keeper.py") for word in command_of(entry.pid))
    ]


async def test_a_spare_that_was_killed_is_replaced(tmp_path: Path) -> None:
    async with runner_in(tmp_path) as runner:
        path = file_of(tmp_path, "print('ran')")
        for number in range(3):
            for pid in keepers_here():
                os.kill(pid, signal.SIGKILL)
            script = await runner.start("ses_1", number, path)
            assert await lines_of(script) == ["ran"]


async def test_a_start_that_was_given_up_does_not_happen_later(tmp_path: Path) -> None:
    path = file_of(tmp_path, f"open({str(tmp_path / 'starts')!r}, 'a').write('x')")
    async with runner_in(tmp_path) as runner:
        await until(lambda: len(keepers_here()) == 2, "keeper and guard are up")
        spare = keepers_here()
        for pid in spare:
            os.kill(pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await runner.start("ses_1", 1, path)
        for pid in spare:
            os.kill(pid, signal.SIGCONT)
        found = await runner.find("ses_1", 1)
        if found is not None:
            await found.wait()
    assert not (tmp_path / "starts").exists()


async def test_a_spare_goes_with_its_agent(tmp_path: Path) -> None:
    before = keepers_here()
    keeper = start_keeper()
    await until(lambda: len(keepers_here()) > len(before), "the spare is there")
    spare = [pid for pid in keepers_here() if pid not in before]
    keeper.close()
    await until(lambda: alive(spare) == [], "the spare goes")


async def test_a_folder_whose_script_never_began_is_begun_anew(tmp_path: Path) -> None:
    folder = tmp_path / "scripts" / "ses_1.1"
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    (folder / "job.json").write_text("{}")
    async with runner_in(tmp_path) as runner:
        script = await runner.start("ses_1", 1, file_of(tmp_path, "print('ran')"))
        assert await lines_of(script) == ["ran"]


async def test_a_second_keeper_with_the_same_job_does_not_start_the_script_again(tmp_path: Path) -> None:
    path = file_of(tmp_path, f"open({str(tmp_path / 'starts')!r}, 'a').write('x')")
    async with runner_in(tmp_path) as runner:
        script = await runner.start("ses_1", 1, path)
        await script.wait()
        folder = ScriptFolder(tmp_path / "scripts", "ses_1", 1)
        job = job_of(folder, command_for(path, []), ScriptOptions(), None)
        with start_keeper() as keeper, (folder.path / "lock").open() as lock:
            socket.send_fds(keeper, [json.dumps(job).encode() + b"\n"], [lock.fileno()])
            keeper.settimeout(30)
            while keeper.recv(4096):
                pass
    assert (tmp_path / "starts").read_text() == "x"


STARTING = """
import asyncio, sys
from pathlib import Path
from labwright.agents.script import ScriptRunner

async def main():
    async with ScriptRunner(Path(sys.argv[1])) as runner:
        print("ready", flush=True)
        await runner.start("ses_1", 1, sys.argv[2])
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("pause_s", [0.0005 * 1.5**number for number in range(12)])
async def test_an_agent_killed_at_any_moment_of_a_start_has_it_started_once(tmp_path: Path, pause_s: float) -> None:
    path = file_of(tmp_path, f"open({str(tmp_path / 'starts')!r}, 'a').write('x')")
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTING, str(tmp_path), str(path), stdout=asyncio.subprocess.PIPE
    )
    assert agent.stdout is not None
    await agent.stdout.readline()
    await asyncio.sleep(pause_s)
    agent.kill()
    await agent.wait()
    async with runner_in(tmp_path) as runner:
        script = await runner.start("ses_1", 1, path)
        assert (await script.wait()).is_success
    assert (tmp_path / "starts").read_text() == "x"


async def test_leftovers_of_a_session_are_killed_together(tmp_path: Path) -> None:
    path = file_of(tmp_path, "print('up'); import time; time.sleep(600)")
    async with ScriptRunner(tmp_path) as runner:
        for session, number in (("ses_1", 1), ("ses_1", 2), ("ses_2", 1)):
            await first_line(await runner.start(session, number, path), "up")
    async with runner_in(tmp_path) as runner:
        assert await runner.kill_leftovers("ses_1", 5) == 2
        states = {(each.session_id, each.number): each.state for each in runner.leftovers()}
        assert states == {("ses_1", 1): "ended", ("ses_1", 2): "ended", ("ses_2", 1): "running"}
        assert await runner.kill_leftovers("ses_2", 5) == 1


async def test_a_path_too_long_for_a_socket_is_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 100) / ("b" * 100)
    text = "from labwright import script_session; script_session.log('heard')"
    try:
        async with ScriptRunner(deep) as runner:
            await runner.start("ses_1", 1, file_of(tmp_path, text))
        async with runner_in(deep) as runner:
            script = await runner.find("ses_1", 1)
            assert script is not None
            assert (await script.wait()).is_success
            assert len(await items_of(script)) == 1
    finally:
        kill_left(deep)
