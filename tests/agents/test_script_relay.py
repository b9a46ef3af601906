"""The relay: a script's datagrams are kept, go on unchanged, and are all there before its end is told."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from labwright.core.model import utc_now
from tests.agents.script_support import datagrams_of, file_of, runner_in

pytestmark = pytest.mark.timeout(120)

SENDING = """
    import os, socket, sys
    publisher = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    to = os.environ["SMURFPUB_UDP_HOST"], int(os.environ["SMURFPUB_UDP_PORT"])
    for n in range(int(sys.argv[1])):
        publisher.sendto(b"%d \\xff{" % n + b"x" * 300, to)
"""


@pytest.fixture
def monitor() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        for option in (socket.SO_RCVBUF, 33):
            try:
                receiver.setsockopt(socket.SOL_SOCKET, option, 64 * 1024 * 1024)
            except PermissionError:
                continue
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(30)
        yield receiver


def sent(count: int) -> list[bytes]:
    return [b"%d \xff{" % n + b"x" * 300 for n in range(count)]


async def test_a_burst_of_two_thousand_arrives_whole_here_and_onward(tmp_path: Path, monitor: socket.socket) -> None:
    async with runner_in(tmp_path) as runner:
        path = file_of(tmp_path, SENDING)
        script = await runner.start("ses_1", 1, path, [2000], relay=("localhost", monitor.getsockname()[1]))
        end = await script.wait()
        assert end.is_success
        assert await datagrams_of(script) == sent(2000)
        assert (end.datagrams, end.datagrams_lost, end.datagrams_not_forwarded) == (2000, 0, 0)
        assert [monitor.recv(65536) for _ in range(2000)] == sent(2000)


async def test_a_monitor_that_is_away_or_unknown_is_counted(tmp_path: Path) -> None:
    async with runner_in(tmp_path) as runner:
        path = file_of(tmp_path, SENDING)
        script = await runner.start("ses_1", 1, path, [3], relay=("no-such-host.invalid", 8200))
        assert await datagrams_of(script) == sent(3)
        assert (await script.wait()).datagrams_not_forwarded == 3
        script = await runner.start("ses_1", 2, path, [3], relay=("127.0.0.1", 9))
        assert await datagrams_of(script) == sent(3)


async def test_the_largest_datagram_passes(tmp_path: Path, monitor: socket.socket) -> None:
    text = SENDING.replace('b"x" * 300', 'b"x" * 64_000')
    async with runner_in(tmp_path) as runner:
        script = await runner.start(
            "ses_1", 1, file_of(tmp_path, text), [2], relay=("127.0.0.1", monitor.getsockname()[1])
        )
        assert [len(datagram) for datagram in await datagrams_of(script)] == [64_004, 64_004]
        assert len(monitor.recv(65536)) == 64_004


async def test_scripts_have_relays_of_their_own_and_datagrams_come_while_they_run(tmp_path: Path) -> None:
    text = SENDING.rstrip() + '\n    sys.stdin.read()\n    if sys.argv[1] != "0": import time; time.sleep(600)\n'
    async with runner_in(tmp_path) as runner:
        path = file_of(tmp_path, text)
        begun = utc_now()
        one = await runner.start("ses_1", 1, path, [1], relay=("", 0))
        other = await runner.start("ses_1", 2, path, [0], relay=("", 0))
        async with asyncio.timeout(30):
            item = await anext(one.output())
        assert item.at >= begun
        assert await datagrams_of(other) == []
        await one.end(0)
        assert await datagrams_of(one) == sent(1)
