"""What attackers have found: each was a way to lose, hang or orphan something, and none is any more."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from labwright.client import AsyncLab, connect_async
from labwright.core.errors import NotFoundError, UsageError
from labwright.core.model import Cause, RunState
from labwright.core.plain import to_plain
from labwright.core.request import Request
from labwright.plan.dispatch import Candidate
from labwright.run.processes import lock_holder
from labwright.run.requesting import requested
from labwright.run.settings import load_settings
from labwright.run.worker_keeper import stop_holder
from labwright.server import Server, serving

pytestmark = pytest.mark.timeout(90)

PACKAGE = """\
import asyncio
import os
import subprocess
import sys
from pathlib import Path

from labwright import Task, step

PLACE = Path(__file__).resolve().parent.parent


@step
async def greet(ctx):
    return "hello"


@step
async def crash(ctx):
    os._exit(7)


@step
async def slow(ctx):
    (PLACE / "slow").touch()
    await asyncio.sleep(0.5)
    return "done"


@step
async def leave_a_child(ctx):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    (PLACE / "child").write_text(str(child.pid))
    await asyncio.sleep(300)


greeting = Task("greeting", steps=[greet])
crashing = Task("crashing", steps=[crash])
patient = Task("patient", steps=[slow])
leaving = Task("leaving", steps=[leave_a_child])
"""


@asynccontextmanager
async def attacked(folder: Path) -> AsyncGenerator[tuple[AsyncLab, Server]]:
    """Start a lab of one worker."""
    (folder / "attacked").mkdir()
    (folder / "attacked" / "__init__.py").write_text(PACKAGE)
    (folder / "labwright.toml").write_text('[site]\npackage = "attacked"\n')
    settings = load_settings(folder, {})
    async with serving(settings, tied=True) as server, connect_async(settings=settings) as lab:
        await server.dispatcher.wait_for_workers(1)
        yield lab, server


async def test_garbage_about_who_is_here_does_not_end_the_lab(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (lab, _):
        connection = lab.journal.connection
        for name in ("x", f"{'9' * 30}:1:2", "a:99999999999999999999999:1"):
            for body in (b"not json", b"[]", b'{"slots":"abc"}', b'{"slots":1,"pools":null}', b"[" * 100_000):
                await connection.publish(f"presence.worker.{name}", body)
        await connection.publish("work.default.nonsense.1", b"garbage")
        await connection.publish("signal.aborting", b"garbage")
        await connection.publish("run.deep", b'{"type":"snapshot","$blob":' + b"[" * 100_000)
        runs = await lab.request(Request("greeting"))
        (run,) = (await lab.wait(lab.follow_runs(runs), timeout_s=30)).values()
    assert run.state is RunState.SUCCEEDED


async def test_a_crashing_task_does_not_fail_its_neighbours(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (lab, _):
        crashing = await lab.request(Request("crashing"))
        patient = [await lab.request(Request("patient")) for _ in range(3)]
        for runs in patient:
            (run,) = (await lab.wait(lab.follow_runs(runs), timeout_s=60)).values()
            assert run.state is RunState.SUCCEEDED
        (run,) = (await lab.wait(lab.follow_runs(crashing), timeout_s=60)).values()
    assert run.state is RunState.FAILED
    assert run.error is not None
    assert run.error.kind == "lost"


async def test_what_a_step_leaves_behind_in_a_session_of_its_own_ends_with_its_worker(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (lab, server):
        await lab.request(Request("leaving"))
        child = tmp_path / "child"
        while not child.exists() or not child.read_text():
            await asyncio.sleep(0.02)
        pid = int(child.read_text())
        (worker,) = server.dispatcher.workers
        os.kill(int(worker.split(":")[1]), signal.SIGKILL)
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("run_id", ["*", ">", "", "a b", "a..b", "run_\r\nPUB x", "\ud800"])
async def test_what_cannot_be_an_id_is_not_found(tmp_path: Path, run_id: str) -> None:
    async with attacked(tmp_path) as (lab, _):
        with pytest.raises(NotFoundError):
            await lab.abort(run_id)
        with pytest.raises(NotFoundError):
            await lab.retry(run_id)
        with pytest.raises(NotFoundError):
            _ = [line async for line in lab.log(run_id)]


def test_a_priority_beyond_reason_is_refused_and_harms_no_order() -> None:
    with pytest.raises(UsageError, match="priority"):
        Request("one", priority=10**400)
    assert Candidate(run="a", priority=10**400).rank < Candidate(run="b", priority=5).rank


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(UsageError, match="key"):
        Request("one", key="\ud800")


def test_a_latest_start_at_the_end_of_all_time_is_none() -> None:
    request = Request("one", not_before=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    record = requested(request, target=None, cause=Cause(kind="operator", id="me"), by="me", start_within=60)
    assert record.not_after is None


def test_an_output_that_ends_the_program_when_it_is_shown_is_represented() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise SystemExit(3)

    assert to_plain({"x": Hostile()}) == {"x": {"$repr": "<Hostile>"}}


async def test_a_holder_that_leads_no_group_is_ended_too(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    hold = (
        "import signal, sys, time; from pathlib import Path; from labwright.run.processes import hold_lock; "
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); fd = hold_lock(Path(sys.argv[1])); time.sleep(300)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", hold, str(lock))
    while not lock_holder(lock):  # held, and its holder's pid written
        await asyncio.sleep(0.02)
    await asyncio.to_thread(stop_holder, lock, 0.3)
    assert lock_holder(lock) is None
    assert await process.wait() == -signal.SIGKILL


SERVE = """
import asyncio, os, sys
from pathlib import Path
from labwright.run.settings import load_settings
from labwright.server import serve
asyncio.run(serve(load_settings(Path(sys.argv[1]), os.environ), lambda text: print(text, flush=True)))
"""


async def test_workers_that_a_killed_serve_has_left_take_up_the_code_of_now(tmp_path: Path) -> None:
    (tmp_path / "attacked").mkdir()
    module = tmp_path / "attacked" / "__init__.py"
    module.write_text(PACKAGE)
    (tmp_path / "labwright.toml").write_text('[site]\npackage = "attacked"\n')
    settings = load_settings(tmp_path, {})
    first = await served(tmp_path)
    async with connect_async(settings=settings) as lab:
        assert await greeted(lab) == "hello"
        first.kill()
        await first.wait()
        module.write_text(PACKAGE.replace('"hello"', '"good day"'))
        second = await served(tmp_path)
        async with asyncio.timeout(30):
            while await greeted(lab) != "good day":
                await asyncio.sleep(0.1)
    second.send_signal(signal.SIGTERM)
    await second.communicate()
    await first.communicate()


async def served(folder: Path) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(folder), stdout=asyncio.subprocess.PIPE, process_group=0
    )
    assert process.stdout is not None
    while await process.stdout.readline() != b"ready\n":
        pass
    return process


async def greeted(lab: AsyncLab) -> object:
    runs = await lab.request(Request("greeting"))
    (run,) = (await lab.wait(lab.follow_runs(runs), timeout_s=30)).values()
    return run.result
