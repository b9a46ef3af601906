"""The publisher: pysmurf's names and wire format, and never a danger to the script."""

import json
import math
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labwright.instruments.pysmurf.publisher import Publisher, set_action


class Ear:
    """A socket that hears what is published."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(30)
        self.environ = {
            "SMURFPUB_BACKEND": "udp",
            "SMURFPUB_ID": "crate1slot2",
            "SMURFPUB_UDP_HOST": "127.0.0.1",
            "SMURFPUB_UDP_PORT": str(self.socket.getsockname()[1]),
        }

    def next(self) -> dict[str, Any]:
        return json.loads(self.socket.recv(65536))


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()
    yield ear
    ear.socket.close()


def test_a_message_has_pysmurfs_fields_and_the_next_number(ear: Ear) -> None:
    publisher = Publisher("tune.py", environ=ear.environ)
    publisher.publish({"R_n": 0.0075}, msgtype="session_data")

    start, data = ear.next(), ear.next()
    assert (start["type"], start["payload"], start["seq_no"]) == ("start", {}, 0)
    assert list(data) == ["host", "id", "script", "time", "seq_no", "type", "payload"]
    assert (data["id"], data["script"], data["host"]) == ("crate1slot2", "tune.py", socket.gethostname())
    assert (data["seq_no"], data["type"], data["payload"]) == (1, "session_data", {"R_n": 0.0075})


def test_the_end_of_the_publisher_is_said(ear: Ear) -> None:
    publisher = Publisher("tune.py", environ=ear.environ)
    del publisher

    assert [ear.next()["type"], ear.next()["type"]] == ["start", "stop"]


def test_nan_and_numpy_and_whatever_else_can_be_published(ear: Ear) -> None:
    import numpy as np

    publisher = Publisher(environ=ear.environ)
    publisher.publish(
        {"nan": math.nan, "array": np.arange(3), "one": np.float32(0.5), "path": Path("/a"), "b": b"\xff"}
    )

    ear.next()
    payload = ear.next()["payload"]
    assert math.isnan(payload["nan"])
    assert (payload["array"], payload["one"], payload["path"], payload["b"]) == ([0, 1, 2], 0.5, "/a", "\\xff")


def test_what_is_larger_than_a_datagram_may_be_is_replaced_by_an_error(
    ear: Ear, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher = Publisher(environ=ear.environ)
    publisher.publish({"x": "y" * 64_000}, "session_data")
    publisher.publish({"x": "y" * 63_000}, "session_data")

    ear.next()
    error, fits = ear.next(), ear.next()
    assert error["type"] == "backend_error"
    assert "dropped large UDP packet" in error["payload"]["message"]
    assert "dropped large UDP packet" in capsys.readouterr().err
    assert fits["type"] == "session_data"
    assert fits["seq_no"] > error["seq_no"]


def test_without_a_backend_nothing_is_sent_and_nothing_said(ear: Ear, capsys: pytest.CaptureFixture[str]) -> None:
    publisher = Publisher(environ={"SMURFPUB_UDP_PORT": ear.environ["SMURFPUB_UDP_PORT"]})
    publisher.publish({"a": 1})

    ear.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        ear.next()
    assert publisher.seq_no == 2
    assert capsys.readouterr().err == ""


def test_an_unknown_backend_is_none_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Publisher(environ={"SMURFPUB_BACKEND": "carrier pigeon"}).publish({"a": 1})

    assert "carrier pigeon" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [{"SMURFPUB_UDP_PORT": "many"}, {"SMURFPUB_UDP_PORT": "700000"}, {"SMURFPUB_UDP_HOST": "no.such.invalid"}]
)
def test_a_wrong_address_never_hurts_the_script(ear: Ear, wrong: dict[str, str]) -> None:
    publisher = Publisher(environ={**ear.environ, **wrong})
    publisher.publish({"a": 1})
    publisher.publish({"a": 2})

    assert publisher.seq_no == 3


def test_a_value_that_json_cannot_say_never_hurts_the_script(ear: Ear) -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    Publisher(environ=ear.environ).publish({"cycle": cycle, ("a", "b"): 1})

    ear.next()
    assert ear.next()["type"] == "backend_error"


def test_options_given_beat_the_environment(ear: Ear) -> None:
    publisher = Publisher(options={"ID": "mine"}, environ=ear.environ)

    assert ear.next()["id"] == publisher.pub_id == "mine"


class Control:
    """A control object with a publisher, and decorated functions of it."""

    def __init__(self, publisher: Publisher) -> None:
        self.pub = publisher
        self.calls = 0

    def get_timestamp(self) -> str:
        self.calls += 1
        return str(1789900000 + self.calls)

    @set_action()
    def find_freq(self) -> str:
        self.pub.register_file("/data/freq.txt", "freq", format="txt", timestamp=12.5)
        return "found"

    @set_action("tuning")
    def tune(self) -> str:
        return self.find_freq()

    @set_action()
    def fail(self) -> None:
        raise RuntimeError


def files(ear: Ear, count: int) -> list[dict[str, Any]]:
    ear.next()
    return [ear.next()["payload"] for _ in range(count)]


def test_the_outermost_action_names_the_files(ear: Ear) -> None:
    control = Control(Publisher(environ=ear.environ))
    assert control.tune() == "found"
    control.find_freq()
    control.find_freq(pub_action="mine")  # pyright: ignore[reportCallIssue] - an argument of the decorator

    inner, alone, named = files(ear, 3)
    assert (inner["action"], inner["action_ts"]) == ("tuning", "1789900001")
    assert (alone["action"], alone["action_ts"]) == ("find_freq", "1789900002")
    assert named["action"] == "mine"
    assert inner["path"] == "/data/freq.txt"
    assert (inner["type"], inner["format"], inner["timestamp"], inner["plot"]) == ("freq", "txt", 12.5, False)
    assert "pysmurf_version" in inner


def test_the_action_is_over_even_after_a_failure(ear: Ear) -> None:
    control = Control(Publisher(environ=ear.environ))
    with pytest.raises(RuntimeError):
        control.fail()
    control.pub.register_file("/a", "b")

    assert files(ear, 1)[0]["action"] is None


def test_a_script_that_publishes_needs_the_standard_library_only_and_says_its_end(ear: Ear) -> None:
    script = textwrap.dedent("""
        import sys
        from labwright.instruments.pysmurf.publisher import Publisher
        Publisher("small.py").publish("done", "session_log")
        foreign = {"numpy", "pydantic", "nats", "structlog", "asyncio"} & set(sys.modules)
        assert not foreign, foreign
    """)
    ended = subprocess.run(
        [sys.executable, "-c", script], env=ear.environ, timeout=60, check=False, stderr=subprocess.PIPE
    )

    assert ended.returncode == 0, ended.stderr
    assert [ear.next()["type"] for _ in range(3)] == ["start", "session_log", "stop"]
