"""Faults of the simulated SMuRF, on demand: `LABWRIGHT_SMURF_FAULTS="hang@take_iv, chatty=200, nan"`.

Each is `name`, `name=value`, `name@place` or `name=value@place`; a place is the name of a function (`take_noise`,
`take_iv`, `setup_amps`, `find_freq`, `setup_notches`, `stream_g3_on`, ...) or `control` (making the control object, the
default) or `register` (the first register that is read).

| fault | value | what happens there |
|---|---|---|
| `hang` | `stubborn` | nothing, for ever; `stubborn` ignores SIGTERM and SIGINT too |
| `slow` | seconds (30) | a wait, in the machine's time |
| `crash` | exit code (3), `segv`, `kill` | the process is gone, without a word |
| `raise` | a text | an exception |
| `chatty` | lines (10000) | so many lines on standard output and error |
| `binary` | bytes (100000) | bytes that are no text on standard output, no line end among them |
| `large` | bytes (100000) | a published message that does not fit in a datagram |
| `nan` | | results are NaN and infinite |
| `amps` | | the amplifiers do not reach their currents |
| `empty` | band (0) | that band has no resonators |
| `udp_loss` | fraction (0.3) | published messages are lost, by a seeded draw |
| `udp_twice` | fraction (0.3) | published messages are sent twice |
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

KNOWN = (
    "hang", "slow", "crash", "raise", "chatty", "binary", "large", "nan", "amps", "empty", "udp_loss", "udp_twice",
)  # fmt: skip
ANYWHERE = frozenset({"nan", "amps", "empty", "udp_loss", "udp_twice"})
DEFAULT_PLACE = "control"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault, and where it strikes."""

    name: str
    value: str = ""
    place: str = DEFAULT_PLACE


def read_faults(text: str) -> tuple[Fault, ...]:
    """Read the faults that a text asks for.

    >>> read_faults("crash=segv@take_iv")
    (Fault(name='crash', value='segv', place='take_iv'),)

    Raises:
        ValueError: one is unknown.
    """
    return tuple(_fault(part.strip()) for part in text.split(",") if part.strip())


def _fault(text: str) -> Fault:
    head, _, place = text.partition("@")
    name, _, value = head.partition("=")
    if name not in KNOWN:
        message = f"{name!r} is no fault of the simulated SMuRF; known are: {', '.join(KNOWN)}"
        raise ValueError(message)
    return Fault(name=name, value=value, place=place or DEFAULT_PLACE)


class Faults:
    """The faults of one process; `strike` at a place lets those of that place happen."""

    def __init__(
        self, faults: Iterable[Fault], *, sleep: Callable[[float], None], publish: Callable[..., None]
    ) -> None:
        self._faults = tuple(faults)
        self._sleep = sleep
        self._publish = publish

    def value(self, name: str) -> str | None:
        """Give the value of a fault that lasts; None where it was not asked for."""
        return next((fault.value for fault in self._faults if fault.name == name), None)

    def fraction(self, name: str) -> float:
        """Give the value of a fault as a fraction, zero where it was not asked for."""
        value = self.value(name)
        return 0.0 if value is None else float(value or 0.3)

    def strike(self, place: str) -> None:
        """Let happen what was asked for at this place."""
        for fault in self._faults:
            if fault.place == place and fault.name not in ANYWHERE:
                self._happen(fault)

    def _happen(self, fault: Fault) -> None:
        match fault.name:
            case "hang":
                hang(is_stubborn=fault.value == "stubborn")
            case "slow":
                self._sleep(float(fault.value or 30))
            case "crash":
                crash(fault.value)
            case "raise":
                raise RuntimeError(fault.value or "a fault that was asked for")
            case "chatty":
                chatter(int(fault.value or 10_000))
            case "binary":
                sys.stdout.flush()
                sys.stdout.buffer.write(bytes(range(11, 256)) * (int(fault.value or 100_000) // 245 + 1))
                sys.stdout.buffer.flush()
            case _:
                self._publish({"large": "x" * int(fault.value or 100_000)}, "session_data")


def hang(*, is_stubborn: bool) -> None:
    """Do nothing, for ever."""
    if is_stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("the simulated SMuRF hangs, as it was asked to", flush=True)  # noqa: T201 - what a script says
    while True:
        time.sleep(3600)


def crash(how: str) -> None:
    """End the process at once: no clean-up, no farewell."""
    if how == "segv":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(int(how or 3))


def chatter(lines: int) -> None:
    """Say a lot, on both streams, with braces in it."""
    for number in range(lines):
        print(f"{{chatty}} line {number} {{of}} {lines}")  # noqa: T201 - what a script says
        sys.stderr.write(f"{{warning}} {number}\n")
