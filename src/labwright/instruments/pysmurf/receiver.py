"""The SMURFPUB listener: a UDP socket that a burst does not overflow, read by a thread of its own.

The thread only takes datagrams out of the kernel; they are read and counted on the event loop, in batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from labwright.core.errors import UsageError
from labwright.instruments.pysmurf.packets import Malformed, Packet, read_packet
from labwright.instruments.pysmurf.sequences import Sequences

BUFFER_BYTES: Final = 32 * 1024 * 1024
SAFE_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""What holds a burst of 2 000 small messages while the reader is not scheduled."""
LARGEST_DATAGRAM: Final = 65_536
WAITING_BYTES: Final = 64 * 1024 * 1024
SAMPLES: Final = 10
BATCH: Final = 4000
"""How many datagrams are taken out of the kernel before the loop is woken."""
TURN: Final = 200
"""How many of them are read in one turn of the loop."""
QUIET_MS: Final = 2
BURST_S: Final = 0.1

Datagram = tuple[bytes, tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A malformed datagram that was kept to be looked at."""

    at: float
    sender: str
    malformed: Malformed

    def shown(self) -> dict[str, Any]:
        """Give it for a session's data."""
        return {
            "at": self.at,
            "from": self.sender,
            "reason": self.malformed.reason,
            "size": self.malformed.size,
            "sample": self.malformed.sample,
        }


class Receiver:
    """Listens on a UDP port and gives each packet to `deliver`, on the event loop, in the order of arrival.

    `async with Receiver(host, port, deliver) as receiver`. Port zero takes a free one; `port` tells which.
    """

    def __init__(self, host: str, port: int, deliver: Callable[[Packet], None]) -> None:
        self.sequences = Sequences()
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        self.received = self.malformed = self.overflowed = 0
        self._deliver = deliver
        self._address = (host, port)
        self._waiting: deque[Datagram] = deque()
        self._waiting_bytes = 0
        self._is_woken = False
        self._lock = threading.Lock()

    async def __aenter__(self) -> Self:
        """Bind the socket and start to read.

        Raises:
            UsageError: the address cannot be listened on.
        """
        self._loop = asyncio.get_running_loop()
        self._socket = self._bound()
        self.port: int = self._socket.getsockname()[1]
        self._is_open = True
        self._thread = threading.Thread(target=self._read, name="smurfpub", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop to listen; what was received is still delivered."""
        self._is_open = False
        self._wake_reader()
        await asyncio.to_thread(self._thread.join)
        self._socket.close()
        while self._waiting:
            self._take_batch()

    @property
    def buffer_bytes(self) -> int:
        """How much the kernel keeps for us while we are busy."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def dropped_by_kernel(self) -> int | None:
        """Ask how many datagrams did not fit in the buffer; None where the platform does not tell."""
        wanted = str(_inode(self._socket))
        with contextlib.suppress(OSError):
            for line in Path("/proc/net/udp").read_text(encoding="ascii").splitlines()[1:]:
                columns = line.split()
                if columns[9] == wanted:
                    return int(columns[12])
        return None

    def shown(self) -> dict[str, Any]:
        """Give all counts for a session's data."""
        return {
            "received": self.received,
            "malformed": self.malformed,
            "malformed_samples": [sample.shown() for sample in self.samples],
            "dropped_by_kernel": self.dropped_by_kernel(),
            "overflowed": self.overflowed,
            "buffer_bytes": self.buffer_bytes,
            "publishers": self.sequences.shown(),
        }

    def _bound(self) -> socket.socket:
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        enlarge(bound)
        try:
            bound.bind(self._address)
        except (OSError, OverflowError) as error:
            bound.close()
            host, port = self._address
            raise UsageError(
                f"cannot listen on {host}:{port}",
                because=str(error),
                cure="choose another port, or end the program that has this one",
            ) from error
        return bound

    def _wake_reader(self) -> None:
        """Send ourselves a datagram; where the buffer is full and it is dropped, the reader is awake."""
        host = self._socket.getsockname()[0]
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.sendto(b"", ("127.0.0.1" if host == "0.0.0.0" else host, self.port))  # noqa: S104 - compared with

    def _read(self) -> None:
        """Take datagrams out of the kernel, as fast as they come."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while self._is_open:
            self._keep(self._burst(poll))

    def _burst(self, poll: select.poll) -> list[Datagram]:
        """Wait for a datagram, and take all that come close behind it before the loop is woken.

        While the loop reads what came it has the interpreter, and the kernel's buffer would fill.
        """
        burst: list[Datagram] = []
        poll.poll()
        until = time.monotonic() + BURST_S
        while self._is_open and len(burst) < BATCH:
            try:
                burst.append(self._socket.recvfrom(LARGEST_DATAGRAM, socket.MSG_DONTWAIT))
            except BlockingIOError:
                if time.monotonic() > until or not poll.poll(QUIET_MS):
                    break
            except OSError:  # an error of the network is over with the next datagram
                break
        return burst

    def _keep(self, burst: list[Datagram]) -> None:
        if not burst:
            return
        with self._lock:
            for datagram in burst:
                if self._waiting_bytes > WAITING_BYTES:
                    self.overflowed += 1
                    continue
                self._waiting.append(datagram)
                self._waiting_bytes += len(datagram[0])
            must_wake, self._is_woken = not self._is_woken, True
        if must_wake:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        """Deliver a batch, and come back for more after the loop has seen to others."""
        try:
            self._take_batch()
        finally:
            with self._lock:
                self._is_woken = bool(self._waiting)
            if self._is_woken:
                self._loop.call_soon(self._wake)

    def _take_batch(self) -> None:
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(TURN, len(self._waiting)))]
            self._waiting_bytes -= sum(len(datagram) for datagram, _ in batch)
        for datagram, sender in batch:
            self._take(datagram, sender)

    def _take(self, datagram: bytes, sender: tuple[Any, ...]) -> None:
        self.received += 1
        match read_packet(datagram):
            case Packet() as packet:
                self.sequences.count(packet)
                self._deliver(packet)
            case malformed:
                self.malformed += 1
                self.samples.append(
                    Sample(at=time.time(), sender=f"{sender[0]}:{sender[1]}", malformed=malformed),
                )


def enlarge(receiving: socket.socket, size: int = BUFFER_BYTES) -> None:
    """Give a socket the largest receive buffer that the system allows, up to `size` bytes.

    A process with CAP_NET_ADMIN gets it whole, others up to `net.core.rmem_max`.
    """
    for option in (getattr(socket, "SO_RCVBUFFORCE", 33), socket.SO_RCVBUF):
        with contextlib.suppress(OSError):
            receiving.setsockopt(socket.SOL_SOCKET, option, size)
            return


def _inode(of: socket.socket) -> int:
    return os.fstat(of.fileno()).st_ino
