"""What the tests of scripts share: a runner in a folder, and the proof that nothing of it is left."""

import asyncio
import os
import textwrap
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from labwright.agents.process_tree import descendants, living, marked
from labwright.agents.script import Datagram, Item, Line, Script, ScriptRunner, SideMessage
from tests.support.waiting import until

LIMIT_S = 30.0


@asynccontextmanager
async def runner_in(folder: Path) -> AsyncGenerator[ScriptRunner]:
    """Give a runner; at the end, see that neither a script nor a keeper of that folder is left."""
    try:
        async with ScriptRunner(folder) as runner:
            yield runner
    finally:
        await until(lambda: left_in(folder) == [], "no process is left")


def left_in(folder: Path) -> list[int]:
    """List the processes that belong to scripts of a folder: by their mark, or because they stand in it."""
    found = marked([f"LABWRIGHT_SCRIPT_SOCKET={folder}".encode()])
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder / "scripts"):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def kill_left(folder: Path) -> None:
    """Kill what is left, so that a test that fails leaves nothing either."""
    for pid in left_in(folder):
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue


def file_of(folder: Path, text: str, name: str = "script.py") -> Path:
    """Write a script."""
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


async def items_of(script: Script, after: int = 0) -> list[Item]:
    """Give everything that comes out of a script until its end."""
    return [item async for item in script.output(after)]


async def lines_of(script: Script, stream: str = "out") -> list[str]:
    """Give the lines of one stream until the script's end, the continued ones put together."""
    lines: list[str] = []
    text = ""
    for item in await items_of(script):
        if isinstance(item, Line) and item.stream == stream:
            text += item.text
            if not item.is_continued:
                lines.append(text)
                text = ""
    return lines


async def messages_of(script: Script) -> list[dict[str, object]]:
    """Give what came over the side channel until the script's end."""
    return [item.message for item in await items_of(script) if isinstance(item, SideMessage)]


async def datagrams_of(script: Script) -> list[bytes]:
    """Give what came to the relay until the script's end."""
    return [item.data for item in await items_of(script) if isinstance(item, Datagram)]


def keepers_of(script: Script) -> tuple[int, int]:
    """Give the pids of a running script's keeper and guard."""
    parents = {entry.pid: entry.parent for entry in living()}
    assert script.pid is not None
    keeper = parents[script.pid]
    return keeper, parents[keeper]


def alive(pids: list[int]) -> list[int]:
    """Give those that have not ended."""
    there = {entry.pid for entry in living()}
    return [pid for pid in pids if pid in there]


async def first_line(script: Script, text: str) -> Line:
    """Wait for the first line that holds a text."""
    async for item in script.output():
        if isinstance(item, Line) and text in item.text:
            return item
    raise AssertionError(f"the script has ended without {text!r}")


async def stubborn_script(runner: ScriptRunner, folder: Path) -> tuple[Script, list[int]]:
    """Start the stubborn tree; give it with the pids of everything that belongs to it, once all of it is deaf."""
    script = await runner.start("ses_1", 1, file_of(folder, STUBBORN_TREE))
    seen = 0
    async with asyncio.timeout(LIMIT_S):
        async for item in script.output():
            seen += isinstance(item, Line) and item.text in {"up", "main up"}
            if seen == 3:
                break
    keeper, _ = keepers_of(script)
    return script, [entry.pid for entry in descendants(keeper)]


STUBBORN_TREE = r"""
    import os, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    def lasting(*, bare):
        deaf = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
        words = [sys.executable, "-c", deaf + "; os.write(1, b'up\\n'); time.sleep(600)"]
        subprocess.Popen(["env", "-i", *words] if bare else words, start_new_session=True)
    lasting(bare=False)
    if os.fork() == 0:           # a daemon: forks twice, a session of its own, no environment
        os.setsid()
        if os.fork() == 0:
            lasting(bare=True)
            time.sleep(600)
        os._exit(0)
    os.wait()
    os.write(1, b"main up\n")
    time.sleep(600)
"""
"""A script with children, a grandchild in a session of its own and one without environment, all deaf to SIGTERM."""
