"""The listener: a burst loses nothing, and nothing that comes in breaks it."""

import asyncio
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from labwright.core.errors import UsageError
from labwright.instruments.pysmurf.packets import Packet
from labwright.instruments.pysmurf.receiver import SAFE_BUFFER_BYTES, Receiver
from tests.support.waiting import until

SCRIPTS = Path(__file__).parent / "scripts"
LIMIT_S = 30.0


def send(port: int, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for datagram in datagrams:
            out.sendto(datagram, ("127.0.0.1", port))


def needs_a_safe_buffer(receiver: Receiver) -> None:
    if receiver.buffer_bytes < SAFE_BUFFER_BYTES:
        pytest.skip("the system allows no receive buffer of 4 MiB: sysctl net.core.rmem_max=33554432")


async def burst(port: int, count: int) -> int:
    script = [sys.executable, str(SCRIPTS / "publish.py"), str(count), "session_data", '{"value": "' + "x" * 200 + '"}']
    env = {**os.environ, "SMURFPUB_UDP_PORT": str(port), "SMURFPUB_UDP_HOST": "127.0.0.1", "SMURFPUB_ID": "burst"}
    process = await asyncio.create_subprocess_exec(*script, env=env)
    return await process.wait()


async def test_a_burst_of_two_thousand_from_another_process_loses_nothing() -> None:
    heard: list[Packet] = []
    async with Receiver("127.0.0.1", 0, heard.append) as receiver:
        needs_a_safe_buffer(receiver)
        assert await burst(receiver.port, 2000) == 0
        await until(lambda: len(heard) >= 2000)

        [publisher] = receiver.shown()["publishers"]
        assert [packet.seq_no for packet in heard] == list(range(2000))
        assert (publisher["received"], publisher["lost"], publisher["duplicates"]) == (2000, 0, 0)
        assert receiver.dropped_by_kernel() in {0, None}


async def test_a_burst_loses_nothing_while_the_event_loop_is_busy() -> None:
    heard: list[Packet] = []
    async with Receiver("127.0.0.1", 0, heard.append) as receiver:
        needs_a_safe_buffer(receiver)
        sending = asyncio.create_task(burst(receiver.port, 2000))
        for _ in range(8):
            await asyncio.sleep(0.02)
            end = time.monotonic() + 0.1
            while time.monotonic() < end:
                pass
        assert await sending == 0
        await until(lambda: len(heard) >= 2000)

        assert receiver.shown()["publishers"][0]["lost"] == 0


async def test_what_is_malformed_is_counted_and_the_newest_are_kept_to_be_looked_at() -> None:
    async with Receiver("127.0.0.1", 0, lambda _packet: None) as receiver:
        send(receiver.port, *(b"junk %d" % number for number in range(15)), b"", b"\xff" * 5000)
        await until(lambda: receiver.malformed == 17)

        shown = receiver.shown()
        assert shown["malformed"] == shown["received"] == 17
        assert len(shown["malformed_samples"]) == 10
        assert shown["malformed_samples"][0]["sample"] == "junk 7"
        newest = shown["malformed_samples"][-1]
        assert (newest["size"], newest["reason"]) == (5000, "not UTF-8")
        assert len(newest["sample"]) < 1000


async def test_a_port_that_another_program_has_is_said_with_its_cure() -> None:
    async with Receiver("127.0.0.1", 0, lambda _packet: None) as first:
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{first.port}"):
            await Receiver("127.0.0.1", first.port, lambda _packet: None).__aenter__()


async def test_what_was_received_is_delivered_before_the_end() -> None:
    heard: list[Packet] = []
    async with Receiver("127.0.0.1", 0, heard.append) as receiver:
        port = receiver.port
        send(port, b'{"type": "log", "payload": 1}')
        await until(lambda: receiver.received > 0 or bool(receiver._waiting))

    assert [packet.payload for packet in heard] == [1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))


async def test_a_message_that_cannot_be_delivered_does_not_end_the_others(
    event_loop_errors: list[str],
) -> None:
    heard: list[Packet] = []

    def deliver(packet: Packet) -> None:
        if packet.payload == 0:
            raise RuntimeError
        heard.append(packet)

    async with Receiver("127.0.0.1", 0, deliver) as receiver:
        send(receiver.port, b'{"type": "log", "payload": 0}')
        await until(lambda: receiver.received == 1)
        send(receiver.port, b'{"type": "log", "payload": 1}')
        await until(lambda: len(heard) == 1)

    assert len(event_loop_errors) == 1


@pytest.fixture
async def event_loop_errors() -> list[str]:
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context["message"]))
    return errors


def test_the_sender_of_a_burst_needs_nothing_of_ours() -> None:
    code = (SCRIPTS / "publish.py").read_text()

    assert "labwright" not in code
