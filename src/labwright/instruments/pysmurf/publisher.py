"""The SMURFPUB publisher: what a script uses to tell what it does, with pysmurf's names and wire format.

Only the standard library is needed. Publishing never hurts the script: what cannot be sent is said on standard error
and dropped.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import sys
import time
import weakref
from collections.abc import Callable, Generator, Mapping
from typing import Any, ClassVar, TypeVar, cast

from labwright.instruments.pysmurf.packets import DEFAULT_PORT, MOST_BYTES, UNDECLARED

Function = TypeVar("Function", bound=Callable[..., Any])
Send = Callable[[bytes], None]


class Publisher:
    """Publishes messages of one script; each has the next number, from zero.

    Options come from `options`, then from the environment: `SMURFPUB_ID`, `SMURFPUB_BACKEND` (null, udp; default null),
    `SMURFPUB_UDP_HOST` (localhost), `SMURFPUB_UDP_PORT` (8200). `through` wraps what sends a datagram, for simulations.
    """

    env_root: ClassVar[str] = "SMURFPUB_"

    def __init__(
        self,
        script_id: str | None = None,
        options: Mapping[str, Any] | None = None,
        env_root: str | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        through: Callable[[Send], Send] | None = None,
    ) -> None:
        options, environ, root = options or {}, environ or os.environ, env_root or self.env_root

        def option(key: str, default: Any) -> Any:
            return options[key] if key in options else environ.get(root + key, default)

        self.script_id = script_id or UNDECLARED
        self.pub_id = str(option("ID", UNDECLARED))
        self.host = socket.gethostname()
        self._action: str | None = None
        self._action_ts: str | None = None
        backend = _backend(str(option("BACKEND", "null")), option("UDP_HOST", "localhost"), option("UDP_PORT", ""))
        self._wire = _Wire(self.pub_id, self.script_id, self.host, through(backend) if through else backend)
        self._wire.send({}, "start")
        self._finalizer = weakref.finalize(self, self._wire.send, {}, "stop")  # as pysmurf, at the publisher's end

    @property
    def seq_no(self) -> int:
        """The number that the next message has."""
        return self._wire.seq_no

    def publish(self, data: Any, msgtype: str = "general") -> None:
        """Publish a message; `session_data` (a dict) and `session_log` (a text) reach the session of the script."""
        self._wire.send(data, msgtype)

    def log(self, message: str) -> None:
        """Publish a line of log."""
        self.publish({"message": message}, "log")

    def log_start(self) -> None:
        """Say that the script begins; done by itself."""
        self.publish({}, "start")

    def log_stop(self) -> None:
        """Say that the script ends; done by itself."""
        self.publish({}, "stop")

    def register_file(
        self,
        path: str | os.PathLike[str],
        type: str,
        format: str = "",  # noqa: A002 - pysmurf's name
        timestamp: float | None = None,
        plot: bool = False,  # noqa: FBT001, FBT002 - pysmurf's signature
    ) -> None:
        """Announce a file that has been written, so that it is catalogued; `timestamp` (epoch s) is when, or now."""
        self.publish(
            {
                "path": os.fspath(path) if isinstance(path, os.PathLike) else path,
                "type": type,
                "format": format,
                "timestamp": time.time() if timestamp is None else timestamp,
                "action": self._action,
                "action_ts": self._action_ts,
                "plot": plot,
                "pysmurf_version": getattr(sys.modules.get("pysmurf"), "__version__", ""),
            },
            "data_file",
        )


def set_action(action: str | None = None) -> Callable[[Function], Function]:
    """Decorate a function `f(S, ...)` so that the files of one call stand under one action.

    The outermost decorated call names it (the call's `pub_action`, else `action`, else the function's name) and takes
    its time; calls inside inherit it.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def decorated(control: Any, *args: Any, pub_action: str | None = None, **kwargs: Any) -> Any:
            with _within(control, pub_action or action or function.__name__):
                return function(control, *args, **kwargs)

        return cast("Function", decorated)

    return decorate


@contextlib.contextmanager
def _within(control: Any, action: str) -> Generator[None]:
    """Name the action, unless it stands inside another one."""
    named = cast("dict[str, Any]", vars(control.pub))
    if named["_action"] is not None:
        yield
        return
    named.update(_action=action, _action_ts=control.get_timestamp())
    try:
        yield
    finally:
        named.update(_action=None, _action_ts=None)


def _plain(value: Any) -> Any:
    """Say what JSON has no word for: numpy's arrays and scalars as lists and numbers, the rest as text."""
    for method in ("tolist", "item"):
        if callable(convert := getattr(value, method, None)):
            return convert()
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "backslashreplace")
    return list(cast("set[Any]", value)) if isinstance(value, set | frozenset) else str(value)


def _backend(name: str, host: Any, port: Any) -> Send:
    if name == "udp":
        return _Udp(str(host), _port(port))
    if name != "null":
        _complain(f"no backend {name!r}, so nothing is published (known are null and udp)")
    return lambda _message: None


def _port(value: Any) -> int:
    try:
        return int(value or DEFAULT_PORT)
    except ValueError:
        _complain(f"{value!r} is no UDP port, so {DEFAULT_PORT} is used")
        return DEFAULT_PORT


class _Udp:
    """Sends datagrams to one address."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._has_complained = False

    def __call__(self, message: bytes) -> None:
        try:
            self._socket.sendto(message, self._address)
        except (OSError, OverflowError) as error:  # the network never hurts the script
            if not self._has_complained:
                _complain(f"a message could not be sent to {self._address[0]}:{self._address[1]}: {error}")
            self._has_complained = True

    def __del__(self) -> None:
        self._socket.close()


class _Wire:
    """Numbers, writes and sends messages; it outlives its publisher by one message."""

    def __init__(self, pub_id: str, script_id: str, host: str, backend: Send) -> None:
        self.seq_no = 0
        self._head = {"host": host, "id": pub_id, "script": script_id}
        self._backend = backend

    def send(self, payload: Any, kind: str) -> None:
        try:
            message = self._written(payload, kind)
        except (TypeError, ValueError, RecursionError) as error:
            self._refuse(f"dropped a message that JSON cannot say ({error})")
            return
        if len(message) > MOST_BYTES:
            self._refuse(f"dropped large UDP packet ({len(message)} bytes)")
        else:
            self._backend(message)

    def _written(self, payload: Any, kind: str) -> bytes:
        fields = {**self._head, "time": time.time(), "seq_no": self.seq_no, "type": kind, "payload": payload}
        self.seq_no += 1
        return json.dumps(fields, default=_plain).encode()

    def _refuse(self, what: str) -> None:
        message = f"Backend error: {what}."
        _complain(message)
        self._backend(self._written({"message": message}, "backend_error"))


def _complain(text: str) -> None:
    sys.stderr.write(f"SMURFPUB: {text}\n")
