"""A blocking operation in a process of its own: everything it says arrives, and how it ended, whatever it does."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from labwright.agents.child import child_command
from labwright.agents.script import Script, ScriptEnd, ScriptRunner, SideMessage
from labwright.core.clock import to_text
from labwright.core.model import utc_now
from tests.agents.script_support import file_of, items_of, kill_left, messages_of, runner_in

pytestmark = pytest.mark.timeout(120)

PUMP = '''
import ctypes, os, signal, subprocess, sys, threading, time
from labwright import Agent, operation

class Pump(Agent):
    """A pump that can do everything wrong."""

    def __init__(self, port: str, volume: float = 1.0) -> None:
        self.port, self.volume, self.is_open = port, volume, False

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        print("closed", flush=True)

    @operation
    def dispense(self, session, volume_ml: float):
        session.log("dispensing {0}")
        session.update(volume={"ml": volume_ml})
        session.update({"volume": {"done": True}})
        session.progress(1, 2, "half")
        return [self.port, self.volume, self.is_open, self.name, dict(self.labels), session.data, volume_ml * 2]

    @operation
    def fail(self, session):
        raise ValueError("no {water}")

    @operation
    def large(self, session, size: int):
        return "r" * size

    @operation
    def leave(self, session):
        os._exit(3)

    @operation
    def crash(self, session):
        os.kill(os.getpid(), signal.SIGSEGV)

    @operation
    def loop(self, session):
        try:
            session.log("looping")
            while True:
                time.sleep(0.001)
                session.update(n=1)
        finally:
            session.log("cleaned up")

    @operation
    def patient(self, session):
        session.log("waiting")
        return session.sleep(600), session.reason

    @operation
    def stubborn(self, session):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        session.log("stubborn")
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass

    @operation
    def asking(self, session):
        end = session.script("tune.py", ["a", 1], cwd="/")
        return end.exit_code

    @operation
    def leaving_a_thread(self, session):
        threading.Thread(target=time.sleep, args=(600,)).start()
        return "done"

    @operation
    def measuring(self, session):
        self.feed("pressure", buffer_s=5).publish({"bar": 1.5}, at=3.0)
        return None
'''


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[ScriptRunner]:
    file_of(tmp_path, PUMP, "pumps.py")
    try:
        async with runner_in(tmp_path) as runner:
            yield runner
    finally:
        kill_left(tmp_path)


async def child(
    runner: ScriptRunner, operation: str, params: Mapping[str, Any] | None = None, **options: Any
) -> Script:
    """Start an operation of the pump in a child process."""
    site = runner._folder.parent
    job = {
        "session": "ses_1",
        "name": "pump",
        "labels": {"crate": "1"},
        "params": dict(params or {}),
        "arguments": {"port": "/dev/ttyUSB0", "volume": "2.5"},
        "started_at": to_text(utc_now()),
        "state_dir": str(site),
        "site": str(site),
    }
    return await runner.start_command("ses_1", 0, child_command("pumps:Pump", operation), stdin_json=job, **options)


async def outcome(script: Script) -> tuple[dict[str, Any], ScriptEnd]:
    """Give the last message, and how the process ended."""
    messages = await messages_of(script)
    return dict(messages[-1]) if messages else {}, await script.wait()


async def when_it_says(script: Script, text: str) -> None:
    async for item in script.output():
        if isinstance(item, SideMessage) and item.message.get("args", [""])[0] == text:
            return
    raise AssertionError(f"it ended without saying {text!r}")


async def test_everything_that_is_said_and_the_result_arrive(runner: ScriptRunner) -> None:
    script = await child(runner, "dispense", {"volume_ml": 2})
    assert await messages_of(script) == [
        {"do": "log", "args": ["dispensing {0}", "info"], "named": {}},
        {"do": "update", "args": [{"volume": {"ml": 2.0}}], "named": {}},
        {"do": "update", "args": [{"volume": {"done": True}}], "named": {}},
        {"do": "progress", "args": [1, 2, "half"], "named": {}},
        {
            "do": "returned",
            "value": [
                "/dev/ttyUSB0",
                2.5,
                True,
                "pump",
                {"crate": "1"},
                {"volume": {"ml": 2.0, "done": True}},
                4.0,
            ],
        },
    ]
    assert (await script.wait()).is_success


async def test_an_error_arrives_with_its_traceback(runner: ScriptRunner) -> None:
    said, end = await outcome(await child(runner, "fail"))
    assert (said["do"], said["is_stopped"]) == ("raised", False)
    assert said["error"]["message"] == "ValueError: no {water}"
    assert "in fail" in said["error"]["traceback"]
    assert end.exit_code == 1


@pytest.mark.parametrize(
    ("operation", "params", "kind"), [("absent", {}, "usage"), ("dispense", {"volume_ml": "much"}, "usage")]
)
async def test_what_cannot_be_called_is_an_error(
    runner: ScriptRunner, operation: str, params: dict[str, Any], kind: str
) -> None:
    said, _ = await outcome(await child(runner, operation, params))
    assert said["error"]["kind"] == kind


async def test_a_large_result_arrives_and_one_that_is_too_large_is_an_error(runner: ScriptRunner) -> None:
    said, _ = await outcome(await child(runner, "large", {"size": 60_000_000}))
    assert said["value"] == "r" * 60_000_000


async def test_a_result_that_is_too_large_is_an_error(runner: ScriptRunner) -> None:
    said, _ = await outcome(await child(runner, "large", {"size": 70_000_000}))
    assert said["error"]["kind"] == "usage"
    assert "return the path" in said["error"]["try"]


@pytest.mark.parametrize(
    ("operation", "summary"), [("leave", "ended with exit code 3"), ("crash", "was ended by SIGSEGV")]
)
async def test_a_child_that_dies_without_a_word_is_told_of_by_its_end(
    runner: ScriptRunner, operation: str, summary: str
) -> None:
    said, end = await outcome(await child(runner, operation))
    assert said == {}
    assert end.summary == summary


async def test_the_end_raises_in_the_midst_of_the_operation_which_may_clean_up(runner: ScriptRunner) -> None:
    script = await child(runner, "loop")
    await when_it_says(script, "looping")
    await script.end(30, "abort")
    said, end = await outcome(script)
    assert (said["do"], said["is_stopped"]) == ("raised", True)
    assert (await messages_of(script))[-2]["args"] == ["cleaned up", "info"]
    assert (end.reason, end.exit_code) == ("ended", 1)


async def test_the_word_to_stop_wakes_a_sleep_and_leaves_the_operation_its_end(runner: ScriptRunner) -> None:
    script = await child(runner, "patient")
    await when_it_says(script, "waiting")
    await script.tell({"end": "enough"})
    said, end = await outcome(script)
    assert said == {"do": "returned", "value": [False, "enough"]}
    assert end.is_success


async def test_an_operation_that_ignores_its_end_is_killed(runner: ScriptRunner) -> None:
    script = await child(runner, "stubborn")
    await when_it_says(script, "stubborn")
    await script.end(0.2)
    _, end = await outcome(script)
    assert (end.reason, end.signal) == ("ended", 9)


async def test_a_script_is_asked_of_the_agent_and_its_end_comes_back(runner: ScriptRunner) -> None:
    script = await child(runner, "asking")
    async for item in script.output():
        assert isinstance(item, SideMessage)
        assert item.message == {
            "do": "script",
            "number": 1,
            "path": "tune.py",
            "args": ["a", "1"],
            "options": {"cwd": "/"},
        }
        await script.tell({"answer": 1, "end": {"exit_code": 4, "reason": "exited"}})
        break
    said, _ = await outcome(script)
    assert said == {"do": "returned", "value": 4}


async def test_a_script_that_could_not_be_run_is_an_error_in_the_operation(runner: ScriptRunner) -> None:
    script = await child(runner, "asking")
    await script.tell({"answer": 1, "error": {"message": "there is no script", "because": "gone", "try": "again"}})
    said, _ = await outcome(script)
    assert (said["error"]["message"], said["error"]["because"]) == ("there is no script", "gone")


async def test_a_thread_that_is_left_does_not_hold_the_end_up_for_ever(runner: ScriptRunner) -> None:
    script = await child(runner, "leaving_a_thread")
    async with asyncio.timeout(60):
        said, end = await outcome(script)
    assert said["value"] == "done"
    assert end.is_success


async def test_samples_of_feeds_go_through_the_agent(runner: ScriptRunner) -> None:
    messages = await messages_of(await child(runner, "measuring"))
    assert messages[0]["do"] == "publish"
    assert messages[0]["subject"] == "feed.pump.pressure"
    assert messages[0]["data"] == '{"agent": "pump", "feed": "pressure", "at": 3.0, "data": {"bar": 1.5}}'


async def test_the_output_of_an_operation_is_kept_like_a_scripts(runner: ScriptRunner) -> None:
    script = await child(runner, "dispense", {"volume_ml": 1})
    assert "closed" in [getattr(item, "text", "") for item in await items_of(script)]
