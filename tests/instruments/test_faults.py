"""The faults that made people cycle their pysmurf controllers, one test each: a real agent, real scripts, none of them.

The numbers are those of the reference of faults found in OCS's controller; each name says what ours does instead.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from textwrap import dedent
from typing import Any

import psutil
import pytest

from tests.support.real_agents import House, RealAgent, RefusedError, house, nothing_left, processes_naming

pytestmark = pytest.mark.timeout(120)

CONTROLLER = "labwright.instruments.pysmurf.controller:PysmurfController"
TREE = """
    import os, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]])
    print("pids", os.getpid(), child.pid, flush=True)
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.02)
    child.kill()
    child.wait()
    print("done", flush=True)
"""
"""A script with a child of its own, which ends when a file is there."""


class Site:
    """A house with a folder of scripts."""

    def __init__(self, home: House, folder: Path) -> None:
        self.home = home
        self.folder = folder
        self.go = folder / "go"
        folder.mkdir()

    async def controller(self, *, faults: str = "", simulate: bool = True, **env: str) -> RealAgent:
        """Start a controller, on a simulated SMuRF with faults, if need be."""
        variables = {
            "OCS_CONFIG_DIR": str(self.folder),
            "SMURFPUB_ID": "crate1slot2",
            "LABWRIGHT_SMURF_RESONATORS": "4",
            "LABWRIGHT_SMURF_SPEED": "1000",
            "LABWRIGHT_SMURF_FAULTS": faults,
            **env,
        }
        return await self.home.agent(CONTROLLER, arguments={"slot": 2, "simulate": simulate}, env=variables)

    def script(self, name: str, text: str) -> str:
        """Write a script; gives the name by which it is run."""
        (self.folder / name).write_text(dedent(text), encoding="utf-8")
        return name

    async def tree(self, agent: RealAgent) -> tuple[dict[str, Any], list[psutil.Process]]:
        """Run a script with a child of its own; gives its session and both processes."""
        name = self.script("tree.py", TREE)
        session = await agent.begin("run", script=name, args=[str(self.go)])
        lines = await agent.log(session, until_text="pids")
        pids = next(line["text"] for line in lines if line["text"].startswith("pids")).split()[1:]
        return session, [psutil.Process(int(pid)) for pid in pids]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    async with house(tmp_path / "state") as home:
        yield Site(home, tmp_path / "config")
    await nothing_left(str(tmp_path))


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(("crash", "said"), [("3", "exit code 3"), ("segv", "SIGSEGV"), ("kill", "SIGKILL")])
async def test_d01_a_child_that_dies_without_a_result_fails_its_operation_and_frees_the_lock(
    site: Site, crash: str, said: str
) -> None:
    agent = await site.controller(faults=f"crash={crash}@take_noise")

    crashed = await agent.call("take_noise", duration=1)
    after = await agent.call("set_biases", bias=1.0, bgs=[0])

    assert crashed["state"] == "failed"
    assert said in crashed["error"]["message"]
    assert crashed["data"]["result"]["success"] is False
    assert after["state"] == "succeeded"


async def test_d02_a_result_of_any_size_arrives_whole(site: Site) -> None:
    modules = {
        "__init__": "",
        "operations/__init__": "",
        "det_config": """
            class DetConfig:
                class dev:
                    exp = {}
                def load_config_files(self, slot): ...
                def get_smurf_control(self, **options):
                    return type("Control", (), {})()
        """,
        "operations/uxm_setup": """
            def uxm_setup(S, cfg, bands=None):
                return True, {"samples": "x" * 300_000}
        """,
    }
    for name, text in modules.items():
        path = site.folder / "sodetlib" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    agent = await site.controller(simulate=False, PYTHONPATH=f"{site.folder}:{os.environ.get('PYTHONPATH', '')}")

    session = await agent.call("uxm_setup")

    assert session["state"] == "succeeded"
    size = len(json.dumps(session["result"]))
    assert size > 300_000 or session["result"]["$left_out"] > 300_000
    assert (await agent.call("uxm_setup"))["state"] == "succeeded"


async def test_d03_a_restarted_agent_takes_up_its_script_and_starts_no_second_one_beside_it(site: Site) -> None:
    agent = await site.controller()
    session, tree = await site.tree(agent)

    await agent.kill()
    assert not any(is_gone(process) for process in tree)
    await agent.start()
    with pytest.raises(RefusedError) as refused:
        await agent.begin("tune_squids")
    site.go.touch()
    ended = await agent.ended(session)

    assert refused.value.kind == "locked"
    assert session["id"] in refused.value.error["because"]
    assert ended["state"] == "succeeded", ended
    assert [line["text"] for line in await agent.log(session, until_text="done")].count("done") == 1
    assert all(is_gone(process) for process in tree)


async def test_d04_an_agent_told_to_end_ends_with_its_script_and_everything_below(site: Site) -> None:
    agent = await site.controller()
    session, tree = await site.tree(agent)

    await agent.terminate()  # within its limit, or the test fails

    assert all(is_gone(process) for process in tree)
    await agent.start()
    assert (await agent.status(session))["state"] == "aborted"


@pytest.mark.parametrize("how", ["verb", "operation"])
async def test_d05_aborting_run_ends_the_script_and_its_children(site: Site, how: str) -> None:
    agent = await site.controller()
    session, tree = await site.tree(agent)

    if how == "verb":
        await agent.ask("abort", "run")
    else:
        assert (await agent.call("abort"))["result"] == {"aborted": [session["id"]]}
    ended = await agent.ended(session)

    assert ended["state"] == "aborted"
    assert "tester@here" in ended["error"]["because"]
    assert all(is_gone(process) for process in tree)


@pytest.mark.parametrize("hang", ["hang", "hang=stubborn"])
async def test_d06_aborting_an_operation_that_hangs_ends_it(site: Site, hang: str) -> None:
    agent = await site.controller(faults=f"{hang}@take_noise")
    session = await agent.begin("take_noise", duration=1)
    await agent.log(session, until_text="hangs, as it was asked to")

    await agent.ask("abort", "take_noise")
    ended = await agent.ended(session)

    assert ended["state"] == "aborted"
    assert not processes_naming(f"LABWRIGHT_SESSION={session['id']}")
    assert (await agent.call("set_biases", bias=0.0, bgs=[0]))["state"] == "succeeded"


async def test_d07_aborting_when_nothing_runs_is_answered_honestly(site: Site) -> None:
    agent = await site.controller()
    script = site.script("empty.py", "")
    await agent.call("run", script=script)

    with pytest.raises(RefusedError) as refused:
        await agent.ask("abort", "run")
    by_operation = await agent.call("abort")

    assert refused.value.kind == "not_running"
    assert by_operation["state"] == "failed"
    assert by_operation["error"]["kind"] == "not_running"
    assert (await agent.call("run", script=script))["state"] == "succeeded"


@pytest.mark.parametrize("log", [False, True])
async def test_d08_a_script_may_write_what_it_likes_to_standard_error(site: Site, log: bool) -> None:
    script = site.script(
        "chatty.py",
        """
        import sys
        for number in range(2000):
            print("line", number, file=sys.stderr, flush=True)
        print("the end", file=sys.stderr)
        """,
    )
    agent = await site.controller()

    ended = await agent.call("run", script=script, log=log)

    assert (ended["state"], ended["result"]["exit_code"]) == ("succeeded", 0)
    if log:
        assert len(await agent.log(ended, until_text="the end")) >= 2001


async def test_d09_output_that_is_no_text_harms_nothing(site: Site) -> None:
    script = site.script(
        "binary.py",
        r"""
        import sys
        sys.stdout.buffer.write(b"\xff\xfe voltage \x00\n" + bytes(range(128, 256)) * 1000)
        sys.stdout.flush()
        print("\nthe end")
        """,
    )
    agent = await site.controller()

    ended = await agent.call("run", script=script)
    lines = [line["text"] for line in await agent.log(ended, until_text="the end")]

    assert (ended["state"], ended["result"]["exit_code"]) == ("succeeded", 0)
    assert lines[0].startswith("\\xff\\xfe voltage")


async def test_d10_braces_in_output_are_logged_as_they_are(site: Site) -> None:
    script = site.script("braces.py", "import sys; print('{a} {0} {log_source!r} %s {', file=sys.stderr)")
    agent = await site.controller()

    ended = await agent.call("run", script=script)

    lines = [line["text"] for line in await agent.log(ended, until_text="{a}")]
    assert lines[0] == "{a} {0} {log_source!r} %s {"


async def test_d11_uxm_setup_runs_with_its_parameters_by_their_right_names(site: Site) -> None:
    agent = await site.controller()

    ended = await agent.call("uxm_setup", bands=[0], run_in_main_process=True)
    with pytest.raises(RefusedError) as refused:
        await agent.begin("uxm_setup", run_in_main_procsess=True)

    assert ended["state"] == "succeeded", ended
    assert refused.value.kind == "usage"
    assert "did you mean 'run_in_main_process'?" in refused.value.findings[0]


async def test_d12_take_bias_waves_runs_and_counts_within_its_range(site: Site) -> None:
    agent = await site.controller()
    await agent.call("uxm_setup", bands=[0])

    ended = await agent.call("take_bias_waves")

    assert ended["state"] == "succeeded", ended
    assert ended["params"]["rfrac_range"] == [0.2, 0.9]
    assert len(ended["data"]["biased_per_bg"]) == 12
    assert set(ended["data"]["quantiles"]) == {"Rfrac", "Si", "Rtes"}


async def test_d13_zero_biases_is_a_success_only_once_the_biases_are_zero(site: Site) -> None:
    agent = await site.controller()
    await agent.call("set_biases", bias=5.0, bgs=[0, 1])
    session, _ = await site.tree(agent)

    with pytest.raises(RefusedError) as refused:
        await agent.begin("zero_biases")
    site.go.touch()
    await agent.ended(session)
    zeroed = await agent.call("zero_biases")
    script = site.script(
        "read.py",
        """
        from labwright import script_session
        from sodetlib.det_config import DetConfig
        cfg = DetConfig()
        cfg.load_config_files(slot=2)
        S = cfg.get_smurf_control()
        script_session.set_result([float(volts) for volts in S.get_tes_bias_bipolar_array()])
        """,
    )
    read = await agent.call("run", script=script)

    assert refused.value.kind == "locked"
    assert "run" in refused.value.error["because"]
    assert zeroed["state"] == "succeeded"
    assert read["result"][:12] == [0.0] * 12


async def test_d13_zero_biases_fails_when_the_hardware_does(site: Site) -> None:
    agent = await site.controller(faults="raise=no answer@control")

    ended = await agent.call("zero_biases")

    assert ended["state"] == "failed"
    assert "no answer" in ended["error"]["message"]


async def test_d14_a_setup_whose_amplifiers_fail_is_a_failure(site: Site) -> None:
    agent = await site.controller(faults="amps")

    ended = await agent.call("uxm_setup", bands=[0])

    assert ended["state"] == "failed"
    assert "setup_amps" in ended["error"]["message"]
    assert ended["data"]["setup_amps_summary"]["success"] is False


async def test_d15_what_an_operation_finds_is_shown_while_it_runs(site: Site) -> None:
    agent = await site.controller(faults="hang@find_freq")
    session = await agent.begin("uxm_setup", bands=[0])

    known = await agent.shown(session, lambda shown: shown["data"].get("setup_phase_delay"), "its phase delay")
    known = await agent.shown(session, lambda shown: shown["progress"], "its progress")

    assert known["state"] == "running"
    assert known["data"]["setup_amps_summary"]["success"] is True
    assert known["data"]["timestamps"][0][0] == "setup_amps"
    await agent.ask("abort", session=session["id"])


async def test_d16_what_cannot_be_run_is_refused_at_once(site: Site, tmp_path: Path) -> None:
    agent = await site.controller()
    script = site.script("empty.py", "")

    with pytest.raises(RefusedError) as refused:
        await agent.begin("run")
    began = time.monotonic()
    missing = await agent.call("run", script="no/such/script.py")
    unwritable = await agent.call("run", script=script, log=str(tmp_path / "no" / "such" / "folder" / "log.txt"))
    took_s = time.monotonic() - began

    assert refused.value.kind == "usage"
    assert refused.value.findings == ["script: it is required and not given"]
    assert (missing["state"], missing["error"]["kind"]) == ("failed", "usage")
    assert str(site.folder / "no/such/script.py") in missing["error"]["because"]
    assert (unwritable["state"], unwritable["error"]["kind"]) == ("failed", "usage")
    assert "log.txt" in unwritable["error"]["message"]
    assert took_s < 5


async def test_d17_no_datagram_of_a_burst_is_lost_without_a_word(site: Site) -> None:
    script = site.script(
        "burst.py",
        """
        import json, os, socket, time
        place = (os.environ["SMURFPUB_UDP_HOST"], int(os.environ["SMURFPUB_UDP_PORT"]))
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        packet = {"host": "h", "id": os.environ["SMURFPUB_ID"], "script": "burst", "type": "session_data"}
        for number in range(2000):
            body = {**packet, "time": time.time(), "seq_no": number, "payload": {"burst": {str(number): number}}}
            sender.sendto(json.dumps(body).encode(), place)
        """,
    )
    agent = await site.controller()

    ended = await agent.call("run", script=script)

    said = [message["text"] for message in ended["messages"] if "published packets" in message["text"]]
    lost = int(said[0].split()[0]) if said else 0
    assert ended["state"] == "succeeded"
    assert len(ended["data"]["burst"]) + lost == 2000
    assert lost == 0 or not may_widen_buffers()


def may_widen_buffers() -> bool:
    """Tell whether a process here may have a receive buffer as large as a burst."""
    return int(Path("/proc/sys/net/core/rmem_max").read_text()) >= 4 * 1024 * 1024


@pytest.mark.parametrize(("running", "refused"), [("bias_dets", "take_bias_steps"), ("take_bias_steps", "bias_dets")])
async def test_d18_who_is_refused_is_told_what_really_holds_the_smurf(site: Site, running: str, refused: str) -> None:
    agent = await site.controller(faults="hang@bias_dets,hang@take_bias_steps")
    session = await agent.begin(running)

    with pytest.raises(RefusedError) as error:
        await agent.begin(refused)

    assert error.value.kind == "locked"
    assert running in error.value.error["because"]
    assert refused not in error.value.error["because"]
    assert session["id"] in error.value.error["because"]
    assert error.value.session["id"] == session["id"]
    await agent.ask("abort", session=session["id"])
    await asyncio.wait_for(agent.ended(session), 30)
