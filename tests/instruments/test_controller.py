"""The pysmurf controller as a user meets it: scripts, operations on a simulated SMuRF, feeds, environment."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from labwright.core.model import FileEntry
from labwright.journal.follow import follow
from labwright.journal.journal import Entry
from labwright.journal.records import decode
from labwright.journal.state import Present
from labwright.journal.view import View
from tests.instruments.test_faults import Site
from tests.support.real_agents import RealAgent, RefusedError, house, nothing_left

pytestmark = pytest.mark.timeout(150)

ENVIRONMENT = """
    import json, os, sys
    names = ("SMURFPUB_BACKEND", "SMURFPUB_ID", "SMURFPUB_UDP_HOST", "SLOT", "OCS_CONFIG_DIR")
    print("environment", json.dumps({name: os.environ.get(name) for name in names}))
    print("port", os.environ["SMURFPUB_UDP_PORT"])
    print("args", json.dumps(sys.argv[1:]))
    print("stdin", repr(sys.stdin.read()))
"""
PUBLISHES = """
    import json, os, socket
    place = (os.environ["SMURFPUB_UDP_HOST"], int(os.environ["SMURFPUB_UDP_PORT"]))
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    def publish(number, kind, payload):
        packet = {"host": "h", "id": os.environ["SMURFPUB_ID"], "script": "s", "time": 1.5, "seq_no": number}
        sender.sendto(json.dumps({**packet, "type": kind, "payload": payload}).encode(), place)
    publish(0, "session_data", {"bands": {"0": {"tuned": True}}, "noise": float("nan")})
    publish(1, "session_data", {"bands": {"0": {"channels": 12}, "1": {"tuned": False}}})
    publish(2, "session_log", "half way")
    publish(3, "data_file", {"path": "/data/a.npy"})
    sender.sendto(b"no packet", place)
"""
FOREIGN = """
    import json, os, socket, subprocess, sys
    generation = int(sys.argv[1])
    packet = {
        "host": socket.gethostname(), "id": os.environ.get("SMURFPUB_ID", "undeclared"), "script": sys.argv[0],
        "time": 1700000000.5, "seq_no": 0, "type": "session_data", "payload": {"generations": {str(generation): True}},
    }
    place = (os.environ["SMURFPUB_UDP_HOST"], int(os.environ["SMURFPUB_UDP_PORT"]))
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(json.dumps(packet).encode(), place)
    if generation < 3:
        subprocess.run([sys.executable, "-I", sys.argv[0], str(generation + 1)], check=True)
    assert not {"labwright", "pysmurf"} & set(sys.modules)
"""
"""A publisher that knows nothing but the documented datagrams, and starts a child and a grandchild that publish too."""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    async with house(tmp_path / "state") as home:
        yield Site(home, tmp_path / "config")
    await nothing_left(str(tmp_path))


def texts(lines: list[dict[str, Any]], stream: str = "out") -> list[str]:
    return [line["text"] for line in lines if line.get("fields", {}).get("stream") == stream]


async def sample_of(site: Site, agent: RealAgent, feed: str, operation: str, **params: Any) -> dict[str, Any]:
    """Call an operation and give the first sample that it publishes on a feed."""
    came: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def hear(message: Any) -> None:
        came.put_nowait(json.loads(message.data))

    await site.home.connection.listen(f"feed.{agent.name}.{feed}", hear)
    await site.home.connection.request("$SYS.REQ.USER.INFO", b"")  # the subscription is known to the server
    ended = await agent.call(operation, **params)
    assert ended["state"] == "succeeded", ended
    async with asyncio.timeout(30):
        return (await came.get())["data"]


# --- scripts ---------------------------------------------------------------------------------------------------------


async def test_a_script_runs_with_its_arguments_in_the_documented_environment(site: Site) -> None:
    agent = await site.controller(SMURFPUB_BACKEND="null")
    script = site.script("environment.py", ENVIRONMENT)

    ended = await agent.call("run", script=script, args=["--band", 3, "{x}"])
    lines = texts(await agent.log(ended, until_text="stdin"))

    assert ended["state"] == "succeeded"
    assert ended["note"] == "Script has finished with exit code 0"
    assert json.loads(lines[0].partition(" ")[2]) == {
        "SMURFPUB_BACKEND": "udp",
        "SMURFPUB_ID": "crate1slot2",
        "SMURFPUB_UDP_HOST": "127.0.0.1",
        "SLOT": "2",
        "OCS_CONFIG_DIR": str(site.folder),
    }
    assert int(lines[1].split()[1]) not in {0, 8200}
    assert lines[2:] == ['args ["--band", "3", "{x}"]', "stdin ''"]


async def test_what_a_script_publishes_reaches_its_session_and_goes_on_unchanged(site: Site) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as monitor:
        monitor.bind(("127.0.0.1", 0))
        monitor.settimeout(10)
        port = str(monitor.getsockname()[1])
        agent = await site.controller(SMURFPUB_BACKEND="udp", SMURFPUB_UDP_HOST="127.0.0.1", SMURFPUB_UDP_PORT=port)

        ended = await agent.call("run", script=site.script("publishes.py", PUBLISHES))
        received: list[bytes] = []
        while len(received) < 5:  # what check_state publishes beside it goes to the same place
            packet = await asyncio.to_thread(monitor.recv, 65536)
            received += [packet] if b"operation_script" not in packet else []

    assert ended["data"] == {
        "bands": {"0": {"tuned": True, "channels": 12}, "1": {"tuned": False}},
        "noise": {"$float": "nan"},
    }
    assert ended["messages"][0]["text"] == "half way"
    assert [json.loads(data)["seq_no"] for data in received[:4]] == [0, 1, 2, 3]
    assert json.loads(received[0])["id"] == "crate1slot2"
    assert received[4] == b"no packet"


async def test_a_foreign_publisher_and_its_grandchild_fill_the_session_by_the_documented_datagrams(site: Site) -> None:
    agent = await site.controller(SMURFPUB_BACKEND="null")

    ended = await agent.call("run", script=site.script("foreign.py", FOREIGN), args=["1"])

    assert ended["state"] == "succeeded", ended
    assert ended["data"] == {"generations": {"1": True, "2": True, "3": True}}


async def test_with_the_null_backend_the_session_gets_what_is_published_and_nobody_else(site: Site) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as monitor:
        monitor.bind(("127.0.0.1", 0))
        monitor.setblocking(False)
        agent = await site.controller(SMURFPUB_BACKEND="", SMURFPUB_UDP_PORT=str(monitor.getsockname()[1]))

        ended = await agent.call("run", script=site.script("publishes.py", PUBLISHES))

        with pytest.raises(BlockingIOError):
            monitor.recv(65536)
    assert ended["data"]["bands"]["0"]["channels"] == 12


async def test_output_may_go_to_a_file_and_not_into_the_log(site: Site, tmp_path: Path) -> None:
    agent = await site.controller()
    script = site.script("talks.py", "import sys; print('out'); print('err', file=sys.stderr)")
    file = tmp_path / "run.log"
    file.write_text("before\n")

    ended = await agent.call("run", script=script, log=str(file))

    before, *lines = file.read_text().splitlines()
    assert ended["state"] == "succeeded"
    assert before == "before"
    assert sorted(line.split(" ", 1)[1] for line in lines) == ["err", "out"]
    assert all(line.startswith("20") and line.split()[0].endswith("Z") for line in lines)
    log = await agent.log(ended, until_text="")
    assert texts(log) == texts(log, "err") == []


async def test_a_script_that_fails_tells_its_exit_code_and_last_words(site: Site) -> None:
    agent = await site.controller()
    script = site.script("fails.py", "import sys; print('no tone in band 3', file=sys.stderr); sys.exit(7)")

    ended = await agent.call("run", script=script)

    assert ended["state"] == "failed"
    assert ended["error"]["message"] == "fails.py ended with exit code 7"
    assert ended["error"]["because"] == "no tone in band 3"


async def test_a_script_that_takes_too_long_is_ended_at_its_deadline(site: Site) -> None:
    agent = await site.controller()
    script = site.script("sleeps.py", "import time; time.sleep(600)")

    ended = await agent.call("run", script=script, timeout=0.5)

    assert (ended["state"], ended["error"]["kind"]) == ("failed", "timeout")


async def test_tune_squids_runs_its_own_script(site: Site) -> None:
    agent = await site.controller()
    (site.folder / "scripts" / "pysmurf").mkdir(parents=True)
    site.script("scripts/pysmurf/tune_squids.py", "import sys; print('tuning', *sys.argv[1:])")

    ended = await agent.call("tune_squids", args=["--band", 1])

    assert ended["state"] == "succeeded"
    assert texts(await agent.log(ended, until_text="tuning")) == ["tuning --band 1"]


# --- operations ------------------------------------------------------------------------------------------------------


async def test_the_controller_starts_without_hardware_and_says_what_is_missing(site: Site) -> None:
    agent = await site.controller(simulate=False, SLOT="2")

    ended = await agent.call("take_noise")
    state = (await agent.ask("status", "check_state"))["session"]

    assert ended["state"] == "failed"
    assert "'sodetlib' is not installed" in ended["error"]["message"]
    assert "simulate=true" in ended["error"]["try"]
    assert state["state"] == "running"
    state = await agent.shown(state, lambda known: known["data"].get("reachable") is False, "that it is unreachable")
    assert "sodetlib" in state["data"]["last_error"]


async def test_the_usual_order_of_operations_succeeds_on_a_simulated_smurf(site: Site) -> None:
    agent = await site.controller(LABWRIGHT_SMURF_RESONATORS="8")

    setup = await agent.call("uxm_setup", bands=[0, 1])
    mapped = await agent.call("take_bgmap")
    curves = await agent.call("take_iv", kwargs={"bias_step": 0.1}, tag="evening")
    biased = await agent.call("bias_dets", rfrac=0.5)
    steps = await agent.call("take_bias_steps")
    normal = await agent.call("overbias_tes", bgs=[0, 1])
    off = await agent.call("all_off")

    for ended in (setup, mapped, curves, biased, steps, normal, off):
        assert ended["state"] == "succeeded", ended
        assert ended["data"]["result"]["success"] is True
    assert setup["progress"]["text"] == "end"
    assert sum(mapped["data"]["nchans_per_bg"]) == 16
    assert len(mapped["data"]["nchans_per_bg"]) == 13
    assert curves["data"]["quantiles"]["Rn"]["total"] > 0
    assert Path(curves["data"]["filepath"]).is_file()
    assert len(biased["data"]["biases"]) >= 12
    assert steps["data"]["biased_total"] == sum(steps["data"]["biased_per_bg"]) > 0


async def test_biases_are_one_for_all_or_one_for_each_group(site: Site) -> None:
    agent = await site.controller()

    every = await agent.call("set_biases", bias=2)
    each = await agent.call("set_biases", bias=[1.0, 2.5], bgs=[0, 3])
    wrong = await agent.call("set_biases", bias=[1.0, 2.5, 3.0], bgs=[0, 3])
    with pytest.raises(RefusedError) as refused:
        await agent.begin("set_biases")

    assert every["result"]["biases"] == {str(group): 2.0 for group in range(12)}
    assert each["result"]["biases"] == {"0": 1.0, "3": 2.5}
    assert each["progress"] == {"done": 2.0, "total": 2.0, "text": "bias group 3"}
    assert wrong["state"] == "failed"
    assert "3 biases for 2 bias groups" in wrong["error"]["because"]
    assert refused.value.kind == "usage"


async def test_nonsense_is_refused_at_the_start_and_described_by_the_schema(site: Site) -> None:
    agent = await site.controller()
    nonsense: list[tuple[str, dict[str, Any], str]] = [
        ("take_noise", {"duration": 0}, "greater than 0"),
        ("take_noise", {"duration": -3.5}, "greater than 0"),
        ("stream", {"duration": -1}, "greater than 0"),
        ("uxm_setup", {"bands": [0, 8]}, "less than 8"),
        ("uxm_relock", {"bands": -1}, "greater than or equal to 0"),
        ("overbias_tes", {"bgs": [15]}, "less than 15"),
        ("set_biases", {"bias": 1.0, "bgs": [-1]}, "greater than or equal to 0"),
        ("bias_dets", {"rfrac": 1.5}, "less than or equal to 1"),
        ("bias_dets", {"rfrac": [0.6, 0.3]}, "the lower limit is above the upper one"),
        ("take_bias_steps", {"rfrac_range": [-0.1, 0.9]}, "greater than or equal to 0"),
        ("check_state", {"poll_interval": 0}, "greater than 0"),
    ]
    for operation, params, said in nonsense:
        with pytest.raises(RefusedError, match=said) as refused:
            await agent.begin(operation, **params)
        assert refused.value.kind == "usage"
    operations = (await agent.ask("describe"))["agent"]["operations"]
    noise = next(each for each in operations if each["name"] == "take_noise")
    assert noise["params"]["properties"]["duration"]["exclusiveMinimum"] == 0


async def test_a_stream_flows_until_it_is_stopped(site: Site) -> None:
    agent = await site.controller()
    await agent.call("uxm_setup", bands=[0])
    session = await agent.begin("stream", subtype="cmb", tag="night")

    flowing = await agent.shown(session, lambda known: known["data"].get("stream_on"), "that data flow")
    with pytest.raises(RefusedError) as refused:
        await agent.begin("take_noise")
    await agent.ask("stop", "stream")
    ended = await agent.ended(session)

    assert flowing["data"]["sid"] > 0
    assert refused.value.kind == "locked"
    assert "stream" in refused.value.error["because"]
    assert ended["state"] == "succeeded", ended
    assert ended["data"]["stream_on"] is False


async def test_a_stream_with_a_duration_ends_by_itself(site: Site) -> None:
    agent = await site.controller()
    await agent.call("uxm_setup", bands=[0])

    ended = await agent.call("stream", duration=0.2, stream_type="oper")

    assert ended["state"] == "succeeded", ended
    assert ended["result"] == {"sid": ended["data"]["sid"]}


async def test_the_state_is_read_beside_whatever_runs(site: Site) -> None:
    agent = await site.controller(faults="hang@take_noise")
    busy = await agent.begin("take_noise")

    sample = await sample_of(site, agent, "state_results", "run_test_func")
    state = (await agent.ask("status", "check_state"))["session"]
    state = await agent.shown(state, lambda known: known["data"].get("reachable"), "that it is reachable")

    assert sample["stream_id"] == state["data"]["stream_id"]
    assert {"channel_mask", "num_active_channels", "downsample_factor", "agg_time", "open_g3stream"} <= set(
        state["data"]
    )
    assert {"pysmurf_action", "pysmurf_action_timestamp", "stream_tag", "last_update"} <= set(state["data"])
    await agent.ask("abort", session=busy["id"])


async def test_results_go_out_on_feeds(site: Site) -> None:
    agent = await site.controller()
    await agent.call("uxm_setup", bands=[0])

    tracking = await sample_of(site, agent, "tracking_results", "uxm_relock", bands=[0])
    noise = await sample_of(site, agent, "noise_results", "take_noise", duration=1)

    assert tracking["all_det_num_band0"] == 4
    assert tracking["alarm_band0"] is (tracking["good_det_num_band0"] < 2)
    assert set(noise) == {f"white_noise_level_{name}" for name in ("q10", "q25", "q50", "q75", "q90", "total")}
    assert noise["white_noise_level_total"] == 4


async def test_results_that_are_no_numbers_break_nothing(site: Site) -> None:
    agent = await site.controller(faults="nan")
    await agent.call("uxm_setup", bands=[0])

    ended = await agent.call("take_noise", duration=1)

    assert ended["state"] == "succeeded", ended
    assert ended["data"]["quantiles"]["white_noise_level"] == {
        "name": "white_noise_level",
        "quantiles": [10, 25, 50, 75, 90],
        "values": [None] * 5,
        "total": 0,
    }
    assert (await agent.call("run_test_func"))["result"] == {"test": 10}


async def test_an_operation_goes_on_when_its_agent_is_killed_and_comes_back(site: Site) -> None:
    agent = await site.controller(faults="slow=3000@take_noise")
    await agent.call("uxm_setup", bands=[0])
    session = await agent.begin("take_noise", duration=1)
    await agent.shown(session, lambda known: known["state"] == "running", "that it runs")

    await agent.kill()
    await agent.start()
    with pytest.raises(RefusedError, match="locked"):
        await agent.begin("take_iv")
    ended = await agent.ended(session)

    assert ended["state"] == "succeeded", ended
    assert ended["result"]["quantiles"]["white_noise_level"]["total"] > 0


# --- files -----------------------------------------------------------------------------------------------------------


async def files_of(site: Site, session: str, condition: Callable[[list[FileEntry]], object]) -> list[FileEntry]:
    """Wait until the catalogue shows files of a session as they should be, as `files list --session` does."""
    view = View(site.folder / "view.sqlite")
    present = Present(recall=view)
    files: list[FileEntry] = []
    try:
        async with asyncio.timeout(60):
            async for batch in follow(site.home.connection, "JOURNAL", ["file.>"], after=0):
                entries = [
                    Entry(seq=message.seq, subject=message.subject, record=decode(message.data)) for message in batch
                ]
                await view.write(present.take(entries))
                files = view.files({"session": session})[0]
                if condition(files):
                    return files
    except TimeoutError:
        raise AssertionError(f"the catalogue is not as it should be: {files}") from None
    finally:
        view.close()
    return files


async def test_the_files_of_an_operation_are_catalogued_with_its_session_where_no_monitor_is(site: Site) -> None:
    agent = await site.controller(SMURFPUB_BACKEND="")
    await agent.call("uxm_setup", bands=[0])

    ended = await agent.call("take_noise", duration=1)

    assert ended["state"] == "succeeded", ended
    files = await files_of(
        site, ended["id"], lambda files: len(files) >= 2 and all(file.sha256 or file.note for file in files)
    )
    for file in files:
        content = Path(file.path).read_bytes()
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert (file.agent, file.action) == (agent.name, "take_noise")


async def test_a_file_that_a_monitor_hears_of_too_is_one_file_of_its_session(site: Site) -> None:
    monitor = await site.home.agent(
        "labwright.instruments.pysmurf:PysmurfMonitor", "monitor", arguments={"port": 0, "host": "127.0.0.1"}
    )
    running = (await monitor.ask("status", "run"))["session"]
    port = (await monitor.shown(running, lambda known: "port" in known["data"], "its port"))["data"]["port"]
    agent = await site.controller(SMURFPUB_BACKEND="udp", SMURFPUB_UDP_HOST="127.0.0.1", SMURFPUB_UDP_PORT=str(port))

    ended = await agent.call("run", script=site.script("publishes.py", PUBLISHES))
    await monitor.shown(running, lambda known: known["data"]["files"]["examined"] == 1, "the file")

    files = await files_of(site, ended["id"], lambda files: len(files) == 1 and files[0].note)
    assert (files[0].path, files[0].agent) == ("/data/a.npy", agent.name)
