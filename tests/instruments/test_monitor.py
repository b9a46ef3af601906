"""The pysmurf monitor, a real agent on a real nats-server: counts, feeds and the file catalogue."""

import asyncio
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from labwright.instruments.pysmurf.receiver import SAFE_BUFFER_BYTES
from labwright.journal.follow import follow
from labwright.journal.records import FileRegistered, decode
from tests.support.real_agents import House, RealAgent, house
from tests.support.waiting import until

SCRIPTS = Path(__file__).parent / "scripts"
LIMIT_S = 30.0


class Monitor:
    """A monitor at work, with what tests ask of it."""

    def __init__(self, agent: RealAgent, home: House) -> None:
        self.agent = agent
        self._home = home
        self.port = 0
        self._numbers: dict[str, int] = {}

    async def shown(self, condition: Callable[[dict[str, Any]], Any], what: str = "it") -> dict[str, Any]:
        """Wait until the counts say something."""
        data: dict[str, Any] = {}
        try:
            async with asyncio.timeout(LIMIT_S):
                while True:
                    status = await self.agent.ask("status", "run")
                    data = status["session"]["data"]
                    if data and condition(data):
                        return data
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"the monitor did not show {what}: {data}") from None

    def publish(self, kind: str, payload: object, *, id: str = "crate1slot2", **fields: object) -> None:
        """Publish a message by the documented protocol."""
        number = self._numbers[id] = self._numbers.get(id, -1) + 1
        whole = {"host": socket.gethostname(), "id": id, "script": "test", "time": time.time(), "seq_no": number}
        self.send(json.dumps({**whole, "type": kind, "payload": payload, **fields}).encode())

    def send(self, datagram: bytes) -> None:
        """Send any bytes."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.sendto(datagram, ("127.0.0.1", self.port))

    async def hear(self, feed: str) -> list[dict[str, Any]]:
        """Listen to a feed; what comes goes into the list."""
        heard: list[dict[str, Any]] = []

        async def keep(message: Msg) -> None:
            heard.append(json.loads(message.data))

        await self._home.connection.listen(f"feed.*.{feed}", keep)
        await self._home.connection.request("$JS.API.INFO", b"", timeout_s=10)
        return heard

    async def catalogue(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Wait until the catalogue, by path, fulfils a condition, and give it."""
        files: dict[str, Any] = {}
        try:
            async with asyncio.timeout(LIMIT_S):
                async for batch in follow(self._home.connection, "JOURNAL", ["file.>"], after=0):
                    for message in batch:
                        record = decode(message.data)
                        assert isinstance(record, FileRegistered)
                        files[record.file.path] = record.file
                    if condition(files):
                        return files
        except TimeoutError:
            raise AssertionError(f"the catalogue is not as it should be: {files}") from None
        return files


@pytest.fixture
async def monitor(tmp_path: Path) -> AsyncGenerator[Monitor]:
    async with house(tmp_path) as home:
        agent = await home.agent(
            "labwright.instruments.pysmurf:PysmurfMonitor", "monitor", arguments={"port": 0, "host": "127.0.0.1"}
        )
        monitor = Monitor(agent, home)
        monitor.port = (await monitor.shown(lambda data: "port" in data))["port"]
        yield monitor


async def test_a_burst_of_two_thousand_is_counted_without_a_loss(monitor: Monitor) -> None:
    env = {**os.environ, "SMURFPUB_UDP_PORT": str(monitor.port), "SMURFPUB_ID": "burst"}
    words = [sys.executable, str(SCRIPTS / "publish.py"), "2000", "session_data", '{"value": 1}']
    process = await asyncio.create_subprocess_exec(*words, env={**env, "SMURFPUB_UDP_HOST": "127.0.0.1"})
    assert await process.wait() == 0

    if (await monitor.shown(lambda data: data["buffer_bytes"]))["buffer_bytes"] < SAFE_BUFFER_BYTES:
        pytest.skip("the system allows no receive buffer of 4 MiB: sysctl net.core.rmem_max=33554432")
    data = await monitor.shown(lambda data: data["received"] >= 2000)
    [publisher] = data["publishers"]
    assert (publisher["id"], publisher["script"]) == ("burst", "publish")
    assert (publisher["received"], publisher["lost"], publisher["duplicates"]) == (2000, 0, 0)
    assert data["types"] == {"session_data": 2000}


async def test_gaps_duplicates_disorder_and_junk_are_shown(monitor: Monitor) -> None:
    for number in (0, 1, 3, 3, 6, 5):
        monitor.publish("log", {"message": "m"}, seq_no=number, time=1000.0 + number)
    monitor.send(b"\xff\xfe")
    monitor.send(b"{}")
    monitor.publish("unheard of", None, id="other")

    data = await monitor.shown(lambda data: data["received"] == 9)
    of = {publisher["id"]: publisher for publisher in data["publishers"]}
    counts = of["crate1slot2"]
    assert (counts["received"], counts["lost"], counts["duplicates"], counts["reordered"]) == (6, 2, 1, 1)
    assert of["other"]["received"] == 1
    assert data["malformed"] == 2
    assert [sample["reason"] for sample in data["malformed_samples"]] == ["not UTF-8", "no type and no payload"]


async def test_session_data_and_logs_go_out_on_their_feed(monitor: Monitor) -> None:
    heard = await monitor.hear("pysmurf_session_data")
    monitor.publish("session_data", {"R_n": float("nan"), "deep": {"a": [1, 2]}})
    monitor.publish("session_log", "tuned")
    monitor.publish("general", {"not": "for the feed"})

    await until(lambda: len(heard) == 2, "two samples")
    data, log = (message["data"] for message in heard)
    assert (data["id"], data["type"], data["script"], data["seq_no"]) == ("crate1slot2", "session_data", "test", 0)
    assert json.loads(data["payload"])["deep"] == {"a": [1, 2]}
    assert "NaN" in data["payload"]
    assert json.loads(log["payload"]) == "tuned"


async def test_metadata_goes_out_in_batches_under_valid_names(monitor: Monitor) -> None:
    heard = await monitor.hear("crate1_slot2_meta")
    publisher = "STREAMER:crate1-slot2"
    for number in range(150):
        payload = {"path": f"AMCc.Fpga[{number}].Enable", "value": number, "type": "int"}
        monitor.publish("metadata", payload, id=publisher)
    monitor.publish("metadata", {"path": "AMCc.tags", "value": [1], "type": "list"}, id=publisher)
    monitor.publish("metadata", {"path": "AMCc:tags", "value": "b", "type": "str"}, id=publisher)
    monitor.publish("metadata", {"no": "path"}, id=publisher)

    samples: list[dict[str, Any]] = []
    await until(lambda: sum(len(batch["samples"]) for batch in heard) == 152, "all samples")
    for batch in heard:
        samples += batch["samples"]
    values = {name: value for sample in samples for name, value in sample["data"].items()}
    assert len(heard) < 30
    assert values["AMCc_Fpga_7__Enable"] == 7
    assert values["AMCc_tags"] == "[1]"
    assert len(values) == 152
    data = await monitor.shown(lambda data: data["types"].get("metadata") == 153)
    assert list(data["trouble"].values()) == [1]


async def test_files_are_catalogued_with_size_and_checksum(monitor: Monitor, tmp_path: Path) -> None:
    path = tmp_path / "1789900000_iv_analysis.npy"
    path.write_bytes(b"x" * 3_000_000)
    payload = {
        "path": str(path),
        "type": "sodetlib_data",
        "format": "npy",
        "timestamp": 1789900000.5,
        "action": "take_iv",
        "action_ts": "1789899990",
        "plot": False,
        "pysmurf_version": "v8",
    }
    monitor.publish("data_file", payload)
    monitor.publish("g3_file", {"path": "/nowhere/1789900000_000.g3", "type": "g3", "timestamp": 1789900001})

    files = await monitor.catalogue(
        lambda files: len(files) == 2 and all(file.sha256 or file.note for file in files.values())
    )
    file = files[str(path)]
    assert (file.size, file.sha256) == (3_000_000, hashlib.sha256(path.read_bytes()).hexdigest())
    assert (file.kind, file.format, file.action, file.archive) == ("sodetlib_data", "npy", "take_iv", "smurf")
    assert (file.source, file.host, file.is_plot) == ("crate1slot2", socket.gethostname(), False)
    assert file.action_at is not None
    assert file.written_at is not None
    assert (file.action_at.timestamp(), file.written_at.timestamp()) == (1789899990, 1789900000.5)
    missing = files["/nowhere/1789900000_000.g3"]
    assert (missing.archive, missing.size) == ("timestreams", None)
    assert "no such file" in (missing.note or "")


async def test_short_and_odd_paths_are_never_lost(monitor: Monitor, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    paths = ["/a.npy", "a", "/", "", "x" * 3000, "with\nline end", "null\0byte", str(tmp_path / "pipe"), "\ud800"]
    for path in paths:
        monitor.publish("data_file", {"path": path, "type": "t", "format": "txt"})
    monitor.publish("data_file", {"path": 7, "timestamp": "never", "action_ts": [], "plot": "yes"})
    monitor.publish("data_file", "/only/a/path")
    monitor.publish("data_file", {"path": "/short", "format": "npy"})

    files = await monitor.catalogue(
        lambda files: len(files) == 12 and all(file.sha256 or file.note for file in files.values())
    )
    assert {"/a.npy", "a", "/", "", "7", "/only/a/path", "/short.npy"} <= set(files)
    assert "without a path" in (files[""].note or "")
    data = await monitor.shown(lambda data: data["files"]["examined"] == 12)
    assert data["files"] == {"announced": 12, "catalogued": 12, "examined": 12, "waiting": 0}
    assert data["trouble"] == {}


async def test_a_monitor_that_was_killed_listens_again_and_a_stopped_one_ends(monitor: Monitor) -> None:
    await monitor.agent.kill()
    await monitor.agent.start()

    monitor.port = (await monitor.shown(lambda data: "port" in data))["port"]
    monitor.publish("log", {"message": "again"})
    data = await monitor.shown(lambda data: data["received"] == 1)
    assert data["publishers"][0]["lost"] == 0
    stopped = await monitor.agent.ask("stop", "run")
    ended = await monitor.agent.ended(stopped["session"])
    assert ended["state"] == "succeeded"
