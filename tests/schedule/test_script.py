"""A schedule in a plain script: nothing but the standard library is loaded, and a killed script goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

FOREIGN = ("pydantic", "nats", "typer", "httpx", "cronsim", "rich", "yaml", "structlog", "psutil", "numpy")
LIMIT_S = 60.0


def script(folder: Path, text: str) -> Path:
    path = folder / "sampling.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def run(path: Path) -> str:
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=LIMIT_S, check=True
    ).stdout


def test_the_published_script_needs_the_standard_library_alone_and_opens_no_socket(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        f"""
        import sys

        sockets = []
        sys.addaudithook(lambda name, given: sockets.append(name) if name.startswith("socket.") else None)
        from labwright import Schedule, every, after, at, pairs

        def take_sample():
            return "sample"

        def inject(volume_ml=1.0):
            return volume_ml

        def calibrate():
            return "calibrated"

        schedule = Schedule(take_sample, inject).at(5 * every(0.01) + 10 * every(0.02))
        schedule.also(calibrate, points=[1, 3, 5])
        print(schedule.preview())
        with schedule:
            schedule.join()
        print(schedule.rows)
        schedule.rows.to_csv("{(tmp_path / "samples.csv").as_posix()}")
        loaded = [name for name in {FOREIGN!r} if name in sys.modules]
        assert not loaded and not sockets and "asyncio" not in sys.modules, (loaded, sockets)
        """,
    )

    told = run(path)

    assert told.count("succeeded") == 15
    assert len((tmp_path / "samples.csv").read_text(encoding="utf-8").splitlines()) == 16
    assert (tmp_path / "sampling.take_sample-inject.rows.jsonl").exists()


def test_a_script_that_is_killed_in_a_point_goes_on_where_it_was(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        """
        import os, signal, sys
        from labwright import Crash, Schedule, every

        def take_sample():
            if not os.path.exists("killed"):
                open("killed", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return 1

        os.chdir(os.path.dirname(os.path.abspath(__file__)))
        schedule = Schedule(take_sample, crash=Crash.REPEAT).at(3 * every(0.01))
        with schedule:
            schedule.join()
        print(schedule.rows.outcomes)
        """,
    )

    first = subprocess.run([sys.executable, str(path)], capture_output=True, timeout=LIMIT_S, check=False)
    second = run(path)

    assert first.returncode == -signal.SIGKILL
    assert "'succeeded': 1" in second
    rows = (tmp_path / "sampling.take_sample.rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(line["point"] for line in map(json.loads, rows) if line["record"] == "row") == [1, 2, 3]


AFTER_A_CRASH = """
    import os, signal, sys, threading
    from labwright import Schedule, every

    def tell_when_it_waits():
        while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and not schedule.is_over:
            threading.Event().wait(0.01)
        print("waiting", flush=True)

    def take_sample():
        with open("sampled", "a") as file:
            file.write("x")
        if os.path.getsize("sampled") == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    schedule = Schedule(take_sample, safe_state=lambda: print("safe")).at(2 * every(0.01) + 2 * every(1000))
    leaves = sys.argv[1]
    with schedule:
        if leaves == "resumes":
            schedule.resume()
            schedule.stop()
        if leaves == "exits":
            sys.exit("somebody must look")
        if leaves != "leaves":
            threading.Thread(target=tell_when_it_waits).start()
            schedule.join()
    print(schedule.rows.outcomes)
    """


@pytest.mark.parametrize("leaves", ["SIGINT", "SIGTERM", "exits", "leaves"])
def test_a_run_that_waits_after_a_crash_stays_unfinished_until_somebody_has_his_say(
    tmp_path: Path, leaves: str
) -> None:
    path = script(tmp_path, AFTER_A_CRASH)
    command = [sys.executable, str(path)]
    subprocess.run([*command, "joins"], capture_output=True, timeout=LIMIT_S, check=False)

    for _ in range(2):
        with subprocess.Popen([*command, leaves], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
            if leaves.startswith("SIG"):
                assert waiting.stdout is not None
                assert waiting.stdout.readline() == "waiting\n"
                waiting.send_signal(signal.Signals[leaves])
            out, told = waiting.communicate(timeout=LIMIT_S)
        assert "safe" in out
        assert "call resume() to go on, or start(fresh=True) to begin anew" in told
    ended = subprocess.run([*command, "resumes"], capture_output=True, text=True, timeout=LIMIT_S, check=True)

    assert "{'succeeded': 1, 'interrupted': 1, 'aborted': 2}" in ended.stdout
    assert (tmp_path / "sampled").read_text(encoding="utf-8") == "xx"


def test_a_script_that_comes_from_a_pipe_keeps_its_rows_in_the_current_folder(tmp_path: Path) -> None:
    text = "from labwright import Schedule\nwith Schedule(print, name='rows').every(0.01, times=1) as s: s.join()"

    subprocess.run([sys.executable], input=text, text=True, cwd=tmp_path, timeout=LIMIT_S, check=True)

    assert [each.name for each in tmp_path.iterdir()] == ["rows.rows.jsonl"]


def test_a_program_that_is_installed_keeps_no_rows_beside_itself(tmp_path: Path) -> None:
    text = """
    from labwright import Schedule
    with Schedule(print, name="rows").every(0.01, times=1) as schedule: schedule.join()
    """
    (tmp_path / "sampling.py").write_text(textwrap.dedent(text), encoding="utf-8")

    command = [sys.executable, "-m", "unittest", "sampling"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=LIMIT_S, check=False)

    assert (tmp_path / "rows.rows.jsonl").exists()


def interrupted(tmp_path: Path, number: signal.Signals) -> subprocess.CompletedProcess[str]:
    path = script(
        tmp_path,
        """
        import signal, threading
        from labwright import Schedule, every

        def sample():
            while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                threading.Event().wait(0.01)  # until join() waits
            print("sampling", flush=True)
            threading.Event().wait()

        schedule = Schedule(sample, safe_state=lambda: print("safe"))
        schedule.every(1000, first=0).start()
        schedule.join()
        """,
    )
    with subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == "sampling\n"
        held.send_signal(number)
        out, err = held.communicate(timeout=LIMIT_S)
    return subprocess.CompletedProcess([], held.returncode, out, err)


def test_ctrl_c_and_a_termination_reach_the_safe_state_of_a_script(tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        assert interrupted(tmp_path, number).stdout == "safe\n"


def test_a_script_that_ends_without_a_join_reaches_the_safe_state(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        """
        from labwright import Schedule

        Schedule(lambda: None, safe_state=lambda: print("safe")).every(1000).start()
        """,
    )

    assert run(path) == "safe\n"
