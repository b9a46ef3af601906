"""Services, processes and files that are real: what is there, what is another's, and what is not as it should be."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from labwright import Finding, Task, TerminalError, TransientError
from labwright.core.errors import UsageError
from labwright.maintenance import (
    ensure_file,
    file_check,
    process_check,
    service_check,
    service_gate,
    space_check,
    tell_process,
)
from labwright.testing import FakeContext, ManualClock, crash_after_every_step, run_task
from tests.maintenance.conftest import HOST, free_port, quiet

# --- services --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def greeter() -> AsyncGenerator[str]:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with await asyncio.start_server(greet, HOST, 0) as listening:
        yield f"{HOST}:{listening.sockets[0].getsockname()[1]}"
        await quiet(listening)


async def test_a_service_that_greets_lets_a_task_go_on(greeter: str, ctx: FakeContext) -> None:
    host, _, port = greeter.partition(":")
    there = ctx.with_target("mail-1", host=host, port=int(port))
    assert await service_gate("{host}:{port}")(there) == ""
    assert await service_gate("{host}:{port}", greets="ESMTP")(there) == "220 mail.example ESMTP"


async def test_another_service_is_not_the_one_that_is_meant(greeter: str, ctx: FakeContext) -> None:
    with pytest.raises(TerminalError, match="another one") as caught:
        await service_gate(greeter, greets="SSH-2.0")(ctx)
    assert "ESMTP" in caught.value.because
    with pytest.raises(Finding, match="another one"):
        await service_check(greeter, greets="SSH-2.0")(ctx)


async def test_a_service_that_is_down_is_transient_terminal_or_a_finding(ctx: FakeContext) -> None:
    nobody = f"{HOST}:{free_port()}"
    with pytest.raises(TransientError, match="is down"):
        await service_gate(nobody)(ctx)
    with pytest.raises(TerminalError, match="is down"):
        await service_gate(nobody, down="terminal")(ctx)
    with pytest.raises(Finding, match="is down"):
        await service_check(nobody)(ctx)


async def test_a_service_that_says_nothing_is_down(ctx: FakeContext) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, HOST, 0) as listening:
        place = f"{HOST}:{listening.sockets[0].getsockname()[1]}"
        with pytest.raises(TransientError, match="is down") as caught:
            await service_gate(place, greets="220", timeout=0.2)(ctx)
        assert "nothing came within 0.2 s" in caught.value.because
        await quiet(listening)


@pytest.mark.parametrize("address", ["host", "host:", ":1", "host:0", "host:70000", "host:x", "[]:1"])
async def test_an_address_that_is_none_is_refused(ctx: FakeContext, address: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        await service_gate(address)(ctx)


# --- processes -------------------------------------------------------------------------------------------------------

COUNTER = """
import os, pathlib, signal, sys
place = pathlib.Path(sys.argv[1])
heard = 0
def hear(*_):
    global heard
    heard += 1
    (place / "heard").write_text(str(heard))
signal.signal(signal.SIGHUP, hear)
(place / "pid").write_text(str(os.getpid()))
print("ready", flush=True)
while True:
    signal.pause()
"""


def started(folder: Path) -> subprocess.Popen[bytes]:
    script = folder / "counter.py"
    script.write_text(COUNTER)
    process = subprocess.Popen([sys.executable, str(script), str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


async def heard(folder: Path, times: int) -> bool:
    async with asyncio.timeout(30):
        while not (folder / "heard").exists() or int((folder / "heard").read_text() or 0) < times:
            await asyncio.sleep(0.01)
    return True


async def test_a_process_is_told_and_a_crash_may_tell_it_twice(tmp_path: Path, ctx: FakeContext) -> None:
    process = started(tmp_path)
    told = Task("reload", steps=[tell_process("{folder}/pid", program="counter.py")])
    there = ctx.with_target("counter", folder=str(tmp_path))
    try:
        assert process_check("{folder}/pid", program="counter.py")(there.blocking) == process.pid
        run = await run_task(told, there)
        assert (run.state, run.result) == ("succeeded", process.pid)
        assert await heard(tmp_path, 1)
        report = await crash_after_every_step(told, lambda: there)
        assert [crash.ran_again for crash in report.crashes] == [("tell_process",)]
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
    with pytest.raises(Finding, match="does not run"):
        process_check("{folder}/pid", program="counter.py")(there.blocking)
    with pytest.raises(TransientError, match="does not run"):
        tell_process("{folder}/pid", program="counter.py")(there.blocking)


def test_another_process_that_has_the_number_now_gets_no_signal(tmp_path: Path, ctx: FakeContext) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (tmp_path / "pid").write_text(f"{other.pid}\n")
    try:
        with pytest.raises(TransientError) as caught:
            tell_process(str(tmp_path / "pid"), "SIGKILL", program="nginx")(ctx.blocking)
        assert "is another" in caught.value.because
        assert other.poll() is None
    finally:
        other.kill()
        other.communicate()


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "1", "99999999999999"])
def test_a_file_that_holds_no_number_is_no_process(tmp_path: Path, ctx: FakeContext, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    with pytest.raises(Finding, match="does not run"):
        process_check(str(tmp_path / "pid"), program="")(ctx.blocking)


def test_a_signal_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="no signal"):
        tell_process("/run/a.pid", "HUP!", program="a")


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"newer_than": 3600}, "was written 7200 s ago"),
        ({"at_least": 7}, "has 5 bytes, and should have 7 at least"),
        ({"at_most": 4}, "has 5 bytes, and should have 4 at most"),
        ({"contains": "world"}, "does not hold 'world'"),
        ({"private": True}, "can be read by others"),
        ({"at_most": 4, "private": True}, "at most, can be read by others"),
    ],
)
def test_what_is_wrong_with_a_file_is_found(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    path = tmp_path / "report"
    path.write_text("hello")
    path.chmod(0o644)
    clock = ManualClock()
    written = (clock.now() - timedelta(hours=2)).timestamp()
    os.utime(path, (written, written))
    there = FakeContext(clock=clock).with_target("nas", folder=str(tmp_path)).blocking
    with pytest.raises(Finding, match=said):
        file_check("{folder}/report", **options)(there)
    fine = file_check("{folder}/report", newer_than=8000, at_least=5, at_most=5, contains="hell")
    assert fine(there) == {"bytes": 5, "age_s": 7200.0}


def test_a_file_that_is_not_there_is_found_and_one_that_cannot_be_seen_is_asked_for_later(
    tmp_path: Path, ctx: FakeContext
) -> None:
    with pytest.raises(Finding, match="is not there"):
        file_check(str(tmp_path / "absent"))(ctx.blocking)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(TransientError, match="cannot be looked at"):
        file_check(str(tmp_path / "loop"))(ctx.blocking)


def test_a_file_system_that_is_nearly_full_is_found(tmp_path: Path, ctx: FakeContext) -> None:
    assert space_check(str(tmp_path), least_share=0)(ctx.blocking)["free_bytes"] > 0
    for options in ({"least_share": 1.0}, {"least_share": 0.0, "least_bytes": 10**18}):
        with pytest.raises(Finding, match="nearly full"):
            space_check(str(tmp_path), **options)(ctx.blocking)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TransientError, match="cannot be looked at"):
        space_check(str(tmp_path / "absent"))(ctx.blocking)
    with pytest.raises(UsageError, match="share"):
        space_check("/", least_share=10)


async def test_a_file_is_made_as_it_should_be_whatever_was_there(tmp_path: Path, ctx: FakeContext) -> None:
    there = ctx.with_target("web-1", folder=str(tmp_path))
    ensure = ensure_file("{folder}/motd", "this is {name}\n", mode=0o640)
    path = tmp_path / "motd"

    assert ensure(there.blocking) == "created"
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("this is web-1\n", 0o640)
    assert ensure(there.blocking) == "unchanged"
    path.chmod(0o600)
    assert ensure(there.blocking) == "changed"
    path.write_text("something else")
    report = await crash_after_every_step(Task("motd", steps=[ensure]), lambda: there, same_result=False)
    assert report.undisturbed.result == "changed"
    assert path.read_text() == "this is web-1\n"
    assert [each.name for each in tmp_path.iterdir()] == ["motd"]


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path, ctx: FakeContext) -> None:
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "folder", tmp_path / "absent" / "file"):
        with pytest.raises(TerminalError, match="cannot be written"):
            ensure_file(str(place), "x")(ctx.blocking)
    assert not [each for each in tmp_path.iterdir() if each.name.endswith(".part")]
