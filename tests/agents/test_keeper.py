"""Keepers: whoever dies, no exit code is lost, no output, and nothing lives on that nobody holds."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from labwright.agents.keeper import start_keeper
from labwright.agents.process_tree import descendants, living
from labwright.agents.script import Line, Script, ScriptRunner
from tests.agents.script_support import (
    STUBBORN_TREE,
    file_of,
    first_line,
    items_of,
    kill_left,
    left_in,
    lines_of,
    runner_in,
    until,
)

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


async def agent_with(folder: Path, path: Path) -> asyncio.subprocess.Process:
    """Start a process that holds a runner with one script, and tells the offsets of what it hears."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT, str(folder), str(path), stdout=asyncio.subprocess.PIPE
    )


async def offset_told(agent: asyncio.subprocess.Process) -> int:
    assert agent.stdout is not None
    return int(await agent.stdout.readline())


async def pids_of(script: Script) -> tuple[int, int]:
    """Give the pids of a script's keeper and guard."""
    assert script.pid is not None
    parents = {entry.pid: entry.parent for entry in living()}
    keeper = parents[script.pid]
    return keeper, parents[keeper]


async def stubborn_script(runner: ScriptRunner, folder: Path) -> tuple[Script, list[int]]:
    """Start the stubborn tree; give it with the pids of everything that belongs to it."""
    script = await runner.start("ses_1", 1, file_of(folder, STUBBORN_TREE))
    seen = 0
    async for item in script.output():
        seen += isinstance(item, Line) and item.text in {"up", "main up"}
        if seen == 3:
            break
    keeper, _ = await pids_of(script)
    return script, [entry.pid for entry in descendants(keeper)]


def alive(pids: list[int]) -> list[int]:
    there = {entry.pid for entry in living()}
    return [pid for pid in pids if pid in there]


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
        keeper, _ = await pids_of(script)
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
        keeper, _ = await pids_of(script)
    os.kill(keeper, signal.SIGKILL)
    await until(lambda: alive(pids) == [], "the guard kills what is left")


async def test_a_keeper_killed_with_its_guard_loses_the_script_but_nothing_marked_survives(tmp_path: Path) -> None:
    async with runner_in(tmp_path) as runner:
        script, pids = await stubborn_script(runner, tmp_path)
        try:
            _, guard = await pids_of(script)
            os.killpg(guard, signal.SIGKILL)
            assert (await script.wait()).reason == "lost"
            assert left_in(tmp_path) == []
        finally:
            for pid in alive(pids):
                os.kill(pid, signal.SIGKILL)


async def test_a_killed_guard_does_not_concern_the_script(tmp_path: Path) -> None:
    async with runner_in(tmp_path) as runner:
        path = file_of(tmp_path, COUNTING)
        script = await runner.start("ses_1", 1, path)
        _, guard = await pids_of(script)
        os.kill(guard, signal.SIGKILL)
        (tmp_path / "go").touch()
        assert (await script.wait()).exit_code == 7
        assert len(await lines_of(script)) == 1000


async def test_a_keeper_that_is_told_to_end_ends_its_script(tmp_path: Path) -> None:
    async with runner_in(tmp_path) as runner:
        script = await runner.start("ses_1", 1, file_of(tmp_path, "print('up'); import time; time.sleep(600)"))
        await first_line(script, "up")
        _, guard = await pids_of(script)
        os.kill(guard, signal.SIGTERM)
        end = await script.wait()
        assert (end.reason, end.signal) == ("ended", signal.SIGTERM)


async def test_a_spare_that_was_killed_is_replaced(tmp_path: Path) -> None:
    async with runner_in(tmp_path) as runner:
        path = file_of(tmp_path, "print('ran')")
        for number in range(3):
            for entry in descendants(os.getpid()):
                os.kill(entry.pid, signal.SIGKILL)
            script = await runner.start("ses_1", number, path)
            assert await lines_of(script) == ["ran"]


async def test_a_spare_goes_with_its_agent(tmp_path: Path) -> None:
    before = {entry.pid for entry in descendants(os.getpid())}
    keeper = start_keeper()
    spare = [entry.pid for entry in descendants(os.getpid()) if entry.pid not in before]
    assert spare
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
