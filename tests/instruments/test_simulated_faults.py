"""Faults of the simulated SMuRF, as a script meets them."""

import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labwright.instruments.pysmurf.simulated.faults import Fault, read_faults
from tests.instruments.smurf_support import Heard, run, smurf_environment, succeed

START = """
import sodetlib as sdl
from sodetlib.operations import uxm_setup
cfg = sdl.DetConfig()
cfg.load_config_files()
S = cfg.get_smurf_control()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(START)
    return path


def test_faults_are_read_with_value_and_place() -> None:
    assert read_faults("hang, crash=segv@take_iv ,nan") == (
        Fault(name="hang"),
        Fault(name="crash", value="segv", place="take_iv"),
        Fault(name="nan"),
    )
    with pytest.raises(ValueError, match="'explode' is no fault"):
        read_faults("explode")


@pytest.mark.parametrize(("fault", "code"), [("crash", 3), ("crash=7", 7), ("crash=kill", -9), ("crash=segv", -11)])
def test_a_crash_is_without_a_word(fault: str, code: int, script: Path) -> None:
    assert run(script, env=smurf_environment(script.parent, faults=fault)).returncode == code


def test_a_stubborn_hang_ends_by_kill_only(script: Path) -> None:
    environment = smurf_environment(script.parent, faults="hang=stubborn")
    with subprocess.Popen([sys.executable, "-u", str(script)], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"hangs" in process.stdout.readline()
        process.terminate()
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        assert process.poll() is None
        process.kill()
        assert process.wait(30) == -signal.SIGKILL


def test_a_chatty_script_says_much_on_both_streams(script: Path) -> None:
    ended = run(script, env=smurf_environment(script.parent, faults="chatty=2000"))

    assert ended.returncode == 0
    assert ended.stdout.count(b"{chatty}") == ended.stderr.count(b"{warning}") == 2000


def test_binary_output_is_no_text_and_has_no_line_end(script: Path) -> None:
    ended = run(script, env=smurf_environment(script.parent, faults="binary=50000"))

    assert len(ended.stdout) >= 50_000
    with pytest.raises(UnicodeDecodeError):
        ended.stdout.decode()
    assert b"\n" not in ended.stdout[:50_000]


def test_a_slow_start_takes_the_machines_time(script: Path) -> None:
    environment = {**smurf_environment(script.parent, faults="slow=30"), "LABWRIGHT_SMURF_SPEED": "60"}
    begun = time.monotonic()
    assert run(script, env=environment).returncode == 0
    assert time.monotonic() - begun >= 0.5


def test_amplifiers_that_fail_end_the_setup(script: Path, heard: Heard) -> None:
    script.write_text(START + "ok, summary = uxm_setup.uxm_setup(S, cfg)\nprint('ok:', ok, list(summary))\n")
    output = succeed(script, env=smurf_environment(script.parent, heard.variables, faults="amps"))

    assert "ok: False ['timestamps', 'setup_amps']" in output
    [summary] = [
        message["payload"]["setup_amps_summary"]
        for message in heard.all()
        if message["type"] == "session_data" and "setup_amps_summary" in message["payload"]
    ]
    assert summary["success"] is False
    assert summary["hemt_drain_current"] == 0.4


def test_results_that_are_no_numbers_are_published_as_they_are(tuned: Path, heard: Heard) -> None:
    succeed("noise.py", "--acq-time", "2", env=smurf_environment(tuned, heard.variables, faults="nan"))

    medians = next(
        message["payload"]["noise"]["band_medians"]
        for message in heard.all()
        if message["type"] == "session_data" and "noise" in message["payload"]
    )
    assert math.isinf(medians[0])
    assert all(math.isnan(value) for value in medians[1:])


def test_a_band_without_resonators_is_empty_and_the_others_are_not(tmp_path: Path) -> None:
    output = succeed("tune.py", "--bands", "0", "1", env=smurf_environment(tmp_path, faults="empty=1"))

    assert "Band 1: 0 resonators found" in output
    assert "Band 0: 12 resonators found" in output


def test_published_messages_are_lost_doubled_and_too_large(script: Path, heard: Heard) -> None:
    script.write_text(START + "for number in range(200):\n    S.pub.publish({'number': number}, 'session_data')\n")
    faults = "udp_loss=0.2, udp_twice=0.2, large"
    ended = run(script, env=smurf_environment(script.parent, heard.variables, faults=faults))

    messages = heard.all()
    numbers = [message["seq_no"] for message in messages]
    assert 100 < len(set(numbers)) < 200
    assert len(numbers) > len(set(numbers))
    assert b"dropped large UDP packet" in ended.stderr


def test_an_exception_is_raised_where_it_was_asked_for(tuned: Path) -> None:
    ended = run("noise.py", env=smurf_environment(tuned, faults="raise=no helium@take_noise"))

    assert ended.returncode == 1
    assert b"RuntimeError: no helium" in ended.stderr
