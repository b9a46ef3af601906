"""Scripts: started as their file asks, heard whatever they say, ended with everything below them."""

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from labwright.agents.script import Line, ScriptRunner, SideMessage
from labwright.agents.script_command import ScriptOptions
from labwright.core.errors import ConflictError, UsageError
from tests.agents.script_support import (
    STUBBORN_TREE,
    alive,
    file_of,
    first_line,
    items_of,
    keepers_of,
    kill_left,
    left_in,
    lines_of,
    messages_of,
    runner_in,
    stubborn_script,
)
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[ScriptRunner]:
    try:
        async with runner_in(tmp_path) as runner:
            yield runner
    finally:
        kill_left(tmp_path)


# --- how it is started -----------------------------------------------------------------------------------------------


async def test_a_python_file_runs_with_this_interpreter_and_its_exit_code_is_told(
    runner: ScriptRunner, tmp_path: Path
) -> None:
    path = file_of(tmp_path, "import sys; print(sys.executable, sys.argv[1:]); sys.exit(3)")
    script = await runner.start("ses_1", 1, path, ["a b", 7])
    assert await lines_of(script) == [f"{sys.executable} ['a b', '7']"]
    end = await script.wait()
    assert (end.exit_code, end.signal, end.reason, end.is_success) == (3, None, "exited", False)
    assert end.summary == "ended with exit code 3"


async def test_an_executable_file_runs_by_itself_and_others_need_an_interpreter(
    runner: ScriptRunner, tmp_path: Path
) -> None:
    path = file_of(tmp_path, "#!/bin/sh\necho $1\n", "script")
    with pytest.raises(UsageError, match="cannot be executed"):
        await runner.start("ses_1", 1, path)
    script = await runner.start("ses_1", 1, path, ["with sh"], interpreter="sh")
    assert await lines_of(script) == ["with sh"]
    path.chmod(0o755)
    assert await lines_of(await runner.start("ses_1", 2, path, ["alone"])) == ["alone"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interpreter": "no-such-program"}, "not found"),
        ({"cwd": "/no/such/folder"}, "cannot run in"),
        ({"log_file": "/no/such/folder/log"}, "cannot be written"),
        ({"deadline": 3}, "no option 'deadline'"),
        ({"args": ["a\0b"]}, "zero bytes"),
    ],
)
async def test_what_could_only_fail_later_is_refused_at_once(
    runner: ScriptRunner, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        await runner.start("ses_1", 1, file_of(tmp_path, ""), **options)
    with pytest.raises(UsageError, match="no script"):
        await runner.start("ses_1", 1, tmp_path / "absent.py")
    assert runner.leftovers() == []


async def test_a_program_that_cannot_be_executed_ends_as_not_started(runner: ScriptRunner, tmp_path: Path) -> None:
    path = file_of(tmp_path, "#!/no/such/interpreter\n", "script")
    path.chmod(0o755)
    script = await runner.start("ses_1", 1, path)
    end = await script.wait()
    assert end.reason == "not_started"
    assert "No such file" in end.summary
    assert await items_of(script) == []


async def test_environment_folder_and_standard_input_are_as_asked(runner: ScriptRunner, tmp_path: Path) -> None:
    text = """
        import json, os, sys
        print(json.dumps([os.environ["SLOT"], os.environ["PATH"] != "", os.getcwd(), sys.stdin.read()]))
    """
    path = file_of(tmp_path, text)
    script = await runner.start("ses_1", 1, path, env={"SLOT": "2"}, cwd=tmp_path, stdin_json={"bands": [0]})
    assert await lines_of(script) == [f'["2", true, "{tmp_path}", "{{\\"bands\\": [0]}}"]']
    script = await runner.start("ses_1", 2, path, env={"SLOT": "3"})
    assert await lines_of(script) == [f'["3", true, "{Path.cwd()}", ""]']


async def test_a_script_inherits_nothing_but_its_three_streams(runner: ScriptRunner, tmp_path: Path) -> None:
    text = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"
    told, tell = os.pipe()
    os.set_inheritable(tell, True)
    try:
        for number in range(2):  # the keeper that stood ready, and one that was started with the pipe open
            script = await runner.start("ses_1", number, file_of(tmp_path, text))
            assert await lines_of(script) == ["[0, 1, 2, 3]"]  # the last one is the listing's own
            await script.wait()
            await asyncio.sleep(0)
    finally:
        os.close(told)
        os.close(tell)


async def test_the_same_number_is_started_once_however_often_it_is_asked_for(
    runner: ScriptRunner, tmp_path: Path
) -> None:
    path = file_of(tmp_path, f"open({str(tmp_path / 'starts')!r}, 'a').write('x')")
    scripts = await asyncio.gather(*(runner.start("ses_1", 1, path) for _ in range(8)))
    assert {id(script) for script in scripts} == {id(scripts[0])}
    await scripts[0].wait()
    assert await runner.start("ses_1", 1, path) is scripts[0]
    assert (tmp_path / "starts").read_text() == "x"


async def test_forty_scripts_at_once(runner: ScriptRunner, tmp_path: Path) -> None:
    path = file_of(tmp_path, "import sys; print(sys.argv[1])")
    scripts = await asyncio.gather(*(runner.start("ses_1", number, path, [number]) for number in range(40)))
    assert [await lines_of(script) for script in scripts] == [[str(number)] for number in range(40)]


async def test_a_script_is_forgotten_once_it_has_ended(runner: ScriptRunner, tmp_path: Path) -> None:
    script = await runner.start("ses_1", 1, file_of(tmp_path, "import time; time.sleep(600)"))
    with pytest.raises(ConflictError):
        script.forget()
    await script.end(0)
    await script.wait()
    script.forget()
    assert runner.leftovers() == []
    assert await runner.find("ses_1", 1) is None


# --- what it says ----------------------------------------------------------------------------------------------------


async def test_both_streams_come_line_by_line_and_braces_and_odd_bytes_survive(
    runner: ScriptRunner, tmp_path: Path
) -> None:
    text = r"""
        import os
        os.write(1, b"{not a {format}\r\n")
        os.write(2, b"{0} %s caf\xc3\xa9 \xff\xfe\n\n")
        os.write(1, b"no end")
    """
    script = await runner.start("ses_1", 1, file_of(tmp_path, text))
    lines = [item for item in await items_of(script) if isinstance(item, Line)]
    assert [line.text for line in lines if line.stream == "out"] == ["{not a {format}", "no end"]
    assert [line.text for line in lines if line.stream == "err"] == ["{0} %s café \\xff\\xfe", ""]
    assert not any(line.is_continued for line in lines)
    assert (await script.wait()).is_success


async def test_a_line_is_seen_while_the_script_runs(runner: ScriptRunner, tmp_path: Path) -> None:
    script = await runner.start("ses_1", 1, file_of(tmp_path, "print('here'); import time; time.sleep(600)"))
    await first_line(script, "here")
    assert not script.has_ended
    await script.end(0)
    assert (await script.wait()).signal == signal.SIGTERM


async def test_fourteen_megabytes_without_a_line_end_come_whole(runner: ScriptRunner, tmp_path: Path) -> None:
    text = "import sys; sys.stdout.write('é{' * 4_900_000)"
    script = await runner.start("ses_1", 1, file_of(tmp_path, text))
    lines = await lines_of(script)
    assert len(lines) == 1
    assert lines[0] == "é{" * 4_900_000
    assert (await script.wait()).is_success


async def test_every_byte_on_both_streams_at_once_hurts_nobody(runner: ScriptRunner, tmp_path: Path) -> None:
    text = """
        import os
        for _ in range(2000):
            os.write(1, bytes(range(256)))
            os.write(2, bytes(range(255, -1, -1)) * 4)
    """
    script = await runner.start("ses_1", 1, file_of(tmp_path, text))
    end = await script.wait()
    assert end.is_success
    assert end.lines_dropped == 0
    assert len(await lines_of(script, "err")) == 8001


async def test_a_hundred_thousand_lines_on_standard_error_come_in_order(runner: ScriptRunner, tmp_path: Path) -> None:
    text = "import sys\nfor n in range(100_000): sys.stderr.write(f'{n}\\n')"
    script = await runner.start("ses_1", 1, file_of(tmp_path, text))
    assert await lines_of(script, "err") == [str(number) for number in range(100_000)]
    assert (await script.wait()).is_success


async def test_output_above_the_limit_is_dropped_and_counted(runner: ScriptRunner, tmp_path: Path) -> None:
    text = "for n in range(100_000): print('x' * 99)"
    script = await runner.start("ses_1", 1, file_of(tmp_path, text), output_bytes=100_000)
    end = await script.wait()
    assert end.is_success
    assert await lines_of(script) == ["x" * 99] * 1000
    assert (end.lines_dropped, end.bytes_dropped) == (99_000, 9_900_000)
    assert any("limit" in line for line in await lines_of(script, "keeper"))


async def test_output_is_read_on_from_any_item(runner: ScriptRunner, tmp_path: Path) -> None:
    text = """
        import sys
        for n in range(300): print(n); print(-n, file=sys.stderr)
        sys.stdout.write("long" * 20_000)
    """
    script = await runner.start("ses_1", 1, file_of(tmp_path, text))
    items = await items_of(script)
    for place in (0, 1, 7, 299, 300, 598, len(items) - 2, len(items) - 1):
        assert await items_of(script, items[place].offset) == items[place + 1 :]


async def test_the_log_file_gets_each_line_behind_the_time(runner: ScriptRunner, tmp_path: Path) -> None:
    log_file = tmp_path / "log"
    log_file.write_text("before\n")
    text = "import sys, time; print('one'); print('two {x}', file=sys.stderr); sys.stdout.write('no end')"
    script = await runner.start("ses_1", 1, file_of(tmp_path, text), log_file=log_file)
    assert (await script.wait()).log_failures == 0
    before, *lines = log_file.read_text().splitlines()
    assert before == "before"
    stamped = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (.*)")
    assert sorted(match[1] for line in lines if (match := stamped.fullmatch(line))) == ["no end", "one", "two {x}"]


async def test_a_full_disk_for_the_log_file_only_is_counted(runner: ScriptRunner, tmp_path: Path) -> None:
    text = "for n in range(50_000): print(n)"
    script = await runner.start("ses_1", 1, file_of(tmp_path, text), log_file="/dev/full")
    end = await script.wait()
    assert end.is_success
    assert end.log_failures > 0
    assert len(await lines_of(script)) == 50_000


async def test_a_full_disk_for_the_spool_drops_output_but_neither_script_nor_end(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = await asyncio.create_subprocess_exec(
        "mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk), stderr=-3
    )
    if await mounting.wait() != 0:
        pytest.skip("no file system may be mounted here")
    try:
        text = """
            import os, sys
            from labwright import script_session
            for n in range(20_000): print("x" * 99)
            script_session.set_result("r" * 300_000)
            script_session.update(n=1)
            sys.exit(5)
        """
        async with runner_in(disk) as runner:
            script = await runner.start("ses_1", 1, file_of(tmp_path, text))
            end = await script.wait()
            assert end.exit_code == 5
            assert 0 < end.lines_dropped < 20_000
            assert len(await lines_of(script)) == 20_000 - end.lines_dropped
            assert end.messages_dropped == 2
    finally:
        kill_left(disk)
        unmounting = await asyncio.create_subprocess_exec("umount", "-l", str(disk))
        await unmounting.wait()


# --- what it says to its session -------------------------------------------------------------------------------------


async def test_the_side_channel_brings_every_word_in_order(runner: ScriptRunner, tmp_path: Path) -> None:
    text = """
        import os
        from labwright import script_session
        script_session.update({"a": {"b": 1}}, c=float("nan"))
        script_session.progress(1, 8, "bands")
        script_session.log("{x}", "warning")
        script_session.set_result(b"bytes")
        script_session.check()
    """
    script = await runner.start("ses_1", 1, file_of(tmp_path, text))
    assert await messages_of(script) == [
        {"do": "update", "args": [{"a": {"b": 1}, "c": {"$float": "nan"}}]},
        {"do": "progress", "args": [1, 8, "bands"]},
        {"do": "log", "args": ["{x}", "warning"]},
        {"do": "set_result", "args": [{"$bytes": "Ynl0ZXM="}]},
    ]
    assert (await script.wait()).is_success


async def test_a_fork_has_a_side_channel_of_its_own(runner: ScriptRunner, tmp_path: Path) -> None:
    text = """
        import os
        from labwright import script_session
        script_session.log("first")
        fork = os.fork()
        for n in range(1000):
            script_session.log(f"{fork == 0} {n}")
    """
    script = await runner.start("ses_1", 1, file_of(tmp_path, text))
    said = [cast("list[str]", message["args"])[0] for message in await messages_of(script)]
    assert said[0] == "first"
    for who in ("True", "False"):
        assert [text for text in said if text.startswith(who)] == [f"{who} {n}" for n in range(1000)]


async def test_a_result_of_sixty_megabytes_comes_whole(runner: ScriptRunner, tmp_path: Path) -> None:
    text = "from labwright import script_session; script_session.set_result('r' * 60_000_000)"
    script = await runner.start("ses_1", 1, file_of(tmp_path, text))
    (message,) = await messages_of(script)
    assert message["args"] == ["r" * 60_000_000]


async def test_what_is_no_json_on_the_side_channel_is_shown_as_a_remark(runner: ScriptRunner, tmp_path: Path) -> None:
    text = r"""
        import os, socket
        side = socket.socket(socket.AF_UNIX)
        side.connect(os.environ["LABWRIGHT_SCRIPT_SOCKET"])
        side.sendall(b'not json\n[1]\n{"do": "log", "args": ["x"]}\nno end')
    """
    script = await runner.start("ses_1", 1, file_of(tmp_path, text), cwd=tmp_path)
    items = await items_of(script)
    assert [item.text.partition(": ")[2] for item in items if isinstance(item, Line)] == ["not json", "[1]"]
    assert len([item for item in items if isinstance(item, SideMessage)]) == 1


async def test_a_script_that_checks_ends_by_itself_when_it_is_asked_to(runner: ScriptRunner, tmp_path: Path) -> None:
    text = """
        import time
        from labwright import script_session
        try:
            while True:
                script_session.check()
                print("alive", flush=True)
                time.sleep(0.01)
        finally:
            print("cleaned up", flush=True)
    """
    script = await runner.start("ses_1", 1, file_of(tmp_path, text))
    await first_line(script, "alive")
    await script.end(30, "enough")
    end = await script.wait()
    assert (await lines_of(script))[-1] == "cleaned up"
    said = await lines_of(script, "err")
    assert said[-2].endswith("Stopped: the script was asked to end")
    assert said[-1] == "because: enough"
    assert (end.reason, end.detail, end.exit_code) == ("ended", "enough", 1)


# --- how it ends -----------------------------------------------------------------------------------------------------


async def test_a_signal_that_ends_it_is_told(runner: ScriptRunner, tmp_path: Path) -> None:
    script = await runner.start("ses_1", 1, file_of(tmp_path, "import os; os.kill(os.getpid(), 11)"))
    end = await script.wait()
    assert (end.exit_code, end.signal, end.reason) == (None, 11, "signalled")
    assert end.summary == "was ended by SIGSEGV"


async def test_the_deadline_ends_it(runner: ScriptRunner, tmp_path: Path) -> None:
    script = await runner.start("ses_1", 1, file_of(tmp_path, "import time; time.sleep(600)"), deadline_s=0.2)
    end = await script.wait()
    assert (end.reason, end.signal) == ("deadline", signal.SIGTERM)


async def test_the_memory_limit_holds(runner: ScriptRunner, tmp_path: Path) -> None:
    script = await runner.start("ses_1", 1, file_of(tmp_path, "x = bytearray(2**30)"), memory_bytes=2**29)
    assert (await script.wait()).exit_code == 1
    assert (await lines_of(script, "err"))[-1].startswith("MemoryError")


async def test_a_stubborn_tree_is_ended_whole(runner: ScriptRunner, tmp_path: Path) -> None:
    script, pids = await stubborn_script(runner, tmp_path)
    begun = time.monotonic()
    await script.end(0.5, "abort")
    end = await script.wait()
    assert time.monotonic() - begun >= 0.5
    assert alive(pids) == []
    assert (end.reason, end.signal) == ("ended", signal.SIGKILL)


async def test_what_a_script_leaves_behind_is_ended_and_told(runner: ScriptRunner, tmp_path: Path) -> None:
    text = STUBBORN_TREE.rstrip().removesuffix("time.sleep(600)") + "sys.exit(4)"
    script = await runner.start("ses_1", 1, file_of(tmp_path, text), grace_s=0.2)
    end = await script.wait()
    assert (end.exit_code, end.reason) == (4, "exited")
    assert end.leftovers_killed >= 2
    assert any("left processes behind" in line for line in await lines_of(script, "keeper"))


async def test_output_of_a_child_that_ends_shortly_after_the_script_is_kept(
    runner: ScriptRunner, tmp_path: Path
) -> None:
    path = file_of(tmp_path, "#!/bin/sh\n(sleep 0.1; echo late) &\necho early\n", "script")
    script = await runner.start("ses_1", 1, path, interpreter="sh")
    assert await lines_of(script) == ["early", "late"]
    assert (await script.wait()).leftovers_killed == 0


async def test_a_stopped_script_goes_on_and_can_be_ended(runner: ScriptRunner, tmp_path: Path) -> None:
    text = "import time\nwhile True: print('tick', flush=True); time.sleep(0.01)"
    script = await runner.start("ses_1", 1, file_of(tmp_path, text))
    assert script.pid is not None
    line = await first_line(script, "tick")
    os.kill(script.pid, signal.SIGSTOP)
    os.kill(script.pid, signal.SIGCONT)
    async for item in script.output(line.offset):
        assert isinstance(item, Line)
        break
    os.kill(script.pid, signal.SIGSTOP)
    await script.end(30)
    assert (await script.wait()).signal == signal.SIGTERM


async def test_a_stopped_keeper_cannot_hold_up_the_end(runner: ScriptRunner, tmp_path: Path) -> None:
    script = await runner.start("ses_1", 1, file_of(tmp_path, "import time; time.sleep(600)"))
    keeper, _ = keepers_of(script)
    os.kill(keeper, signal.SIGSTOP)
    await script.end(0.1)
    assert (await script.wait()).reason == "ended"


async def test_nothing_is_left_of_a_runner_that_is_closed(tmp_path: Path) -> None:
    async with ScriptRunner(tmp_path) as runner:
        script = await runner.start("ses_1", 1, file_of(tmp_path, ""))
        await script.wait()
    await until(lambda: left_in(tmp_path) == [], "the keeper goes")


@pytest.mark.parametrize(
    ("name", "value"), [("deadline_s", "x"), ("deadline_s", float("nan")), ("grace_s", -1), ("output_bytes", "x")]
)
def test_an_option_that_is_no_number_is_refused_before_anything_starts(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        ScriptOptions.of({name: value})
