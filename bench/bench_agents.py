"""Agents: the round trip of an operation beside OCS, the run of an empty script, an abort, a death, and memory.

The agent is a process of its own on an embedded nats-server, as for a user, without `serve`. OCS's agent with its
crossbar router runs in the same rounds, from .venv-ocs; where that could not be made, ours is measured alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from pathlib import Path

import psutil
from support import row, spread

from labwright.agents.handle import AgentHandle
from labwright.core.model import SessionState
from labwright.journal.connection import Address, Connection
from labwright.journal.journal import Journal
from labwright.journal.logs import ensure_logs
from labwright.journal.nats_server import EmbeddedServer
from labwright.journal.presence import ensure_presence, watch

ROUNDS = 5
CALLS = 500
SCRIPTS = 40
HERE = Path(__file__).resolve().parent
OCS = HERE.parent / ".venv-ocs" / "bin" / "python"
GRACE_S = 5.0
STUBBORN = """\
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
nested = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
for _ in range(3):
    subprocess.Popen([sys.executable, "-c", nested], start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""


async def main() -> None:
    """Measure all of it, in turn."""
    with tempfile.TemporaryDirectory(prefix="labwright-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        server = EmbeddedServer(folder / "state", tied=True)
        await server.start()
        locate = lambda: Address.read(server.connection_file)  # noqa: E731 - one expression
        try:
            async with Connection(locate, patience_s=10) as connection:
                journal = Journal(connection)
                await journal.prepare()
                await ensure_logs(journal, days=1, replicas=1)
                await ensure_presence(journal)
                await measure(folder, server, journal)
        finally:
            await server.stop()


async def measure(folder: Path, server: EmbeddedServer, journal: Journal) -> None:
    """Measure one agent."""
    handle = AgentHandle(journal, "bench", sender="bench", by="bench")
    async with agent(folder, server, handle) as process:
        await round_trips(handle)
        await scripts(folder, handle)
        await abort(folder, handle)
        memory = psutil.Process(process.pid).memory_info().rss / 1e6
        row("memory of an agent", memory, "MB", at_most=45, detail="resident, after all of the above")
    await deaths(folder, server, handle)


@contextlib.asynccontextmanager
async def agent(folder: Path, server: EmbeddedServer, handle: AgentHandle) -> AsyncGenerator[Process]:
    """Start the agent, and end it again."""
    command = ["-m", "labwright.agents.main", "agents:Bench", "--name", "bench", "--state", str(folder / "state")]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        "--connection",
        str(server.connection_file),
        env={**os.environ, "PYTHONPATH": str(HERE)},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(Exception):
                    await handle.ping()
                    break
                await asyncio.sleep(0.05)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def round_trips(handle: AgentHandle) -> None:
    """Take turns with OCS."""
    ours: list[float] = []
    slowest: list[float] = []
    theirs: list[float] = []
    for _ in range(100):
        await handle.nothing()
    for _ in range(ROUNDS):
        times = [await timed(handle) for _ in range(CALLS)]
        ours.append(statistics.median(times))
        slowest.append(statistics.quantiles(times, n=100)[98])
        theirs += await of_ocs()
    row("operation, start to done, p50", statistics.median(ours), "ms", at_most=1.5, detail=spread(ours))
    row("operation, start to done, p99", statistics.median(slowest), "ms", detail=spread(slowest))
    if theirs:
        row("the same on OCS and crossbar, p50", statistics.median(theirs), "ms", detail=spread(theirs))
        ratio = statistics.median(peer / mine for mine, peer in zip(ours, theirs, strict=True))
        row("OCS / ours", ratio, "x", detail="median of the rounds")


async def timed(handle: AgentHandle) -> float:
    """Call the operation that does nothing, and give the milliseconds."""
    began = time.perf_counter()
    await handle.nothing()
    return (time.perf_counter() - began) * 1000


async def of_ocs() -> list[float]:
    """Have OCS measured once, if it is there."""
    if not (OCS.with_name("crossbar")).exists():
        return []
    process = await asyncio.create_subprocess_exec(
        str(OCS), str(HERE / "peer_ocs.py"), str(CALLS), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return [json.loads(said.splitlines()[-1])["round_trip_p50_ms"]] if process.returncode == 0 else []


async def scripts(folder: Path, handle: AgentHandle) -> None:
    """Run an empty script, beside the bare start of the interpreter."""
    script = folder / "empty.py"
    script.write_text("")
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(SCRIPTS):
        began = time.perf_counter()
        session = await handle.run(script=str(script))
        ours.append((time.perf_counter() - began) * 1000)
        assert session.result == 0
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(sys.executable, "-u", str(script))
        await process.wait()
        bare.append((time.perf_counter() - began) * 1000)
    above = statistics.median(ours) - statistics.median(bare)
    row("empty script", statistics.median(ours), "ms", detail=spread(ours, 1))
    row("empty script above interpreter start", above, "ms", at_most=20, detail=f"interpreter: {spread(bare, 1)}")


async def abort(folder: Path, handle: AgentHandle) -> None:
    """Abort a script that ignores SIGTERM, as its children in sessions of their own do."""
    script = folder / "stubborn.py"
    script.write_text(STUBBORN)
    times: list[float] = []
    for _ in range(3):
        session = await handle.run.start(script=str(script))
        async for line in session.log():
            if line["text"].endswith("ready"):
                break
        began = time.perf_counter()
        await session.abort()
        ended = await session.wait(60)
        times.append(time.perf_counter() - began)
        assert ended.state is SessionState.ABORTED
        left = [process.pid for process in psutil.process_iter() if session.id in environment(process)]
        assert not left, left
    row("abort of a stubborn tree", max(times), "s", at_most=GRACE_S + 0.5, detail=spread(times))


def environment(process: psutil.Process) -> str:
    """Give what a process was started with, as far as it can be seen."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.environ().values())
    return ""


async def deaths(folder: Path, server: EmbeddedServer, handle: AgentHandle) -> None:
    """Tell how soon a killed agent, and one that closes, are seen as gone."""
    for name, number, most in (("killed", signal.SIGKILL, 3.0), ("closed", signal.SIGTERM, None)):
        times: list[float] = []
        for _ in range(3):
            async with agent(folder, server, handle) as process:
                gone = asyncio.create_task(until_gone(server))
                await asyncio.sleep(1)
                began = time.perf_counter()
                process.send_signal(number)
                await asyncio.wait_for(gone, 30)
                times.append(time.perf_counter() - began)
        row(
            f"an agent that is {name} is seen as gone",
            statistics.median(times),
            "s",
            at_most=most,
            detail=spread(times),
        )


async def until_gone(server: EmbeddedServer) -> None:
    """Watch until the agent has gone."""
    was_here = False
    async with Connection(lambda: Address.read(server.connection_file)) as connection:
        async for seen in watch(connection, "agent"):
            if seen is None or seen.name != "bench":
                continue
            was_here = was_here or seen.body is not None
            if was_here and seen.body is None:
                return


if __name__ == "__main__":
    asyncio.run(main())
