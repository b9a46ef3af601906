"""What a keeper does with its script: start it, hold what it says, end it in time, and tell how it ended.

One thread, one loop, no waiting for anybody: neither a slow agent nor a full disk reaches the script.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, cast

from labwright.agents.channels import Channel, message_in
from labwright.agents.launch import Program, launch
from labwright.agents.output import LogFile, Output, Stream
from labwright.agents.process_tree import Entry, adopt_orphans, descendants, kill, terminate
from labwright.agents.relay import Relay
from labwright.agents.spool import Kind, SpoolWriter, framed

LINGER_S = 0.5
"""How long what a script leaves behind may take to end by itself."""
KILL_AGAIN_S = 0.05
RETRY_S = 0.2
FOLDER_S = 5.0
"""How often the keeper looks whether its folder is still there."""
END_BYTES = 8192
DETAIL = 2000
PIPE_BYTES = 1024 * 1024
SET_PIPE_SIZE = 1031
"""F_SETPIPE_SZ of Linux."""


class Tree:
    """The script's process and everything below it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None
        """How the script's own process ended, as `waitpid` tells it."""
        self.is_empty = False

    def reap(self) -> None:
        """Collect what has ended; as the parent of all orphans below us we know when nothing is left."""
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.pid:
                    self.status = ended[1]
        except ChildProcessError:
            self.is_empty = True

    def members(self) -> list[Entry]:
        """List what is alive."""
        return descendants(os.getpid())


class Ending:
    """When the tree is asked to end and when it is killed: at its deadline, on request, or since the script is gone."""

    def __init__(self, tree: Tree, output: Output, deadline_s: float | None, grace_s: float) -> None:
        self._tree = tree
        self._output = output
        self._grace_s = grace_s
        self._deadline = None if deadline_s is None else time.monotonic() + deadline_s
        self._linger_until: float | None = None
        self._kill_at: float | None = None
        self.reason: str | None = None
        """What ended the script early; None where nothing did."""
        self.detail = ""
        self.leftovers: set[int] = set()

    @property
    def next_at(self) -> float | None:
        """Tell when to look again, on the monotonic clock."""
        times = [each for each in (self._deadline, self._linger_until, self._kill_at) if each is not None]
        return min(times, default=None)

    def ask(self, reason: str, detail: str, grace_s: float | None = None) -> None:
        """Ask the tree to end; asked again, only an earlier end counts."""
        grace_s = self._grace_s if grace_s is None else max(0.0, grace_s)
        kill_at = time.monotonic() + grace_s
        self._deadline = None
        if self.reason is None and self._tree.status is None:
            self.reason, self.detail = reason, detail
        if self._kill_at is None:
            self._output.remark(f"asked to end, with {grace_s:g} s for it: {detail or reason}")
            terminate(self._tree.members())
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)

    def look(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline:
            self.ask("deadline", "its deadline has passed")
        if self._tree.status is not None:
            self._deadline = None
            self._look_at_leftovers(now)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = now + KILL_AGAIN_S
            members = self._tree.members()
            if self._tree.status is not None:
                self.leftovers.update(entry.pid for entry in members)
            kill(members)

    def _look_at_leftovers(self, now: float) -> None:
        if self._kill_at is not None:
            return
        if self._linger_until is None:
            self._linger_until = now + LINGER_S
        elif now >= self._linger_until:
            self._linger_until = None
            members = self._tree.members()
            self.leftovers.update(entry.pid for entry in members)
            names = ", ".join(f"{entry.name} ({entry.pid})" for entry in members)
            self._output.remark(f"the script has ended and left processes behind, which are ended: {names}")
            terminate(members)
            self._kill_at = now + self._grace_s


class Keeper:
    """Runs one script to its end, in the current folder."""

    def __init__(self, job: dict[str, Any], agent: socket.socket) -> None:
        self._job = job
        self._spool = SpoolWriter("spool")
        self._began = time.monotonic()
        self._started_at = time.time()
        self._selector = selectors.DefaultSelector()
        self._room_for_end = _reserve("end.new")
        self._log_file = _log_file(job.get("log_file"))
        self._clients = Channel(self._selector, "control", self._obey)
        self._clients.add(agent)
        self._side = Channel(self._selector, "side", self._keep_message)
        self._relay = self._make_relay()
        self._output = Output(self._spool, int(job["output_bytes"]), self._log_file)
        self._streams: list[Stream] = []
        self._has_grown = False
        self._look_at = self._began + FOLDER_S
        self._tree: Tree | None = None
        self._ending: Ending | None = None

    def run(self) -> None:
        """Start the script, stay until nothing of it is left, and write down how it ended."""
        try:
            tree = self._start()
        except OSError as error:
            self._end({"exit_code": None, "signal": None, "reason": "not_started", "detail": str(error)[:DETAIL]})
            return
        ending = self._ending = Ending(tree, self._output, self._job.get("deadline_s"), float(self._job["grace_s"]))
        self._clients.say({"pid": tree.pid, "keeper": os.getpid(), "guard": os.getppid()}, for_all=True)
        while not tree.is_empty:
            self._turn(ending)
            tree.reap()
            if not tree.is_empty:
                ending.look()
        self._drain()
        self._end(_how(tree.status, ending))

    def _start(self) -> Tree:
        adopt_orphans()
        self._listen_to_signals()
        out, err = os.pipe(), os.pipe()
        stdin = os.open("stdin" if self._job["has_stdin"] else os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        env = dict(cast("dict[str, str]", self._job["env"]))
        if self._relay is not None:
            env |= {"SMURFPUB_UDP_HOST": "127.0.0.1", "SMURFPUB_UDP_PORT": str(self._relay.port)}
        try:
            pid = launch(
                Program(
                    command=self._job["command"],
                    env=env,
                    cwd=self._job["cwd"],
                    streams=(stdin, out[1], err[1]),
                    memory_bytes=self._job.get("memory_bytes"),
                )
            )
        finally:
            for descriptor in (stdin, out[1], err[1]):
                os.close(descriptor)
        for kind, (descriptor, _) in ((Kind.OUT, out), (Kind.ERR, err)):
            _widen(descriptor)
            stream = Stream(kind, descriptor, self._output)
            self._streams.append(stream)
            self._selector.register(descriptor, selectors.EVENT_READ, lambda stream=stream: self._read(stream))
        self._tree = Tree(pid)
        return self._tree

    def _turn(self, ending: Ending) -> None:
        for key, _ in self._selector.select(self._pause(ending)):
            cast("Callable[[], object]", key.data)()
        if self._spool.is_waiting:
            self._spool.retry()
        self._look_at_folder(ending)
        if self._has_grown:
            self._has_grown = False
            self._clients.say({})

    def _pause(self, ending: Ending) -> float:
        next_at = self._look_at if ending.next_at is None else min(ending.next_at, self._look_at)
        pause = max(0.0, next_at - time.monotonic())
        return min(pause, RETRY_S) if self._spool.is_waiting else pause

    def _look_at_folder(self, ending: Ending) -> None:
        """End a script whose folder is gone, since no agent can find it any more."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + FOLDER_S
        if not _is_here(self._job["folder"]):
            ending.ask("ended", "its folder is gone")

    def _read(self, stream: Stream) -> None:
        self._has_grown = True
        stream.read()
        if stream.is_at_end:
            self._selector.unregister(stream.fileno())

    def _keep_message(self, line: bytes) -> None:
        self._has_grown = True
        self._spool.keep(framed(Kind.MESSAGE, line, time.time()))

    def _keep_datagram(self, datagram: bytes) -> None:
        self._has_grown = True
        self._spool.keep(framed(Kind.DATAGRAM, datagram, time.time()))

    def _make_relay(self) -> Relay | None:
        wanted = self._job.get("relay")
        if wanted is None:
            return None
        onward = wanted["onward"]
        relay = Relay(None if onward is None else (onward[0], (onward[1], onward[2])), self._keep_datagram)
        self._selector.register(relay, selectors.EVENT_READ, relay.read)
        return relay

    def _obey(self, line: bytes) -> None:
        message = message_in(line)
        match message.get("do"):
            case "end" if self._ending is not None:
                reason = str(message.get("reason") or "")[:DETAIL]
                self._side.say({"end": reason}, for_all=True)
                self._ending.ask("ended", reason, message.get("grace_s"))
            case "tell":
                self._side.say(message.get("message"), for_all=True)
            case _:
                pass

    def _listen_to_signals(self) -> None:
        told, tell = socket.socketpair()
        for end in (told, tell):
            end.setblocking(False)  # noqa: FBT003 - the method takes it by position only
        signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
        self._wakers = (told, tell)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _nothing)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._selector.register(told, selectors.EVENT_READ, self._hear_signals)

    def _hear_signals(self) -> None:
        numbers = self._wakers[0].recv(4096)
        if self._ending is not None and {signal.SIGTERM, signal.SIGINT} & set(numbers):
            self._side.say({"end": "its keeper was told to end"}, for_all=True)
            self._ending.ask("ended", "its keeper was told to end")

    def _drain(self) -> None:
        """Take everything that is still on its way from processes that are gone."""
        for stream in self._streams:
            stream.drain()
        self._side.drain()
        if self._relay is not None:
            self._relay.drain()

    @property
    def _log_failures(self) -> int:
        if self._log_file is None:
            return 0 if self._job.get("log_file") is None else 1
        return self._log_file.failures

    def _end(self, how: dict[str, Any]) -> None:
        """Write down how it ended, then hang up, which tells the agent to read it."""
        self._spool.finish()
        if self._log_file is not None:
            self._log_file.finish()
        end = {
            **how,
            "started_at": self._started_at,
            "duration_s": time.monotonic() - self._began,
            "lines_dropped": self._output.lines_dropped,
            "bytes_dropped": self._output.bytes_dropped,
            "messages_dropped": self._spool.lost + self._side.too_large,
            "leftovers_killed": 0 if self._ending is None else len(self._ending.leftovers),
            "log_failures": self._log_failures,
            "datagrams": 0 if self._relay is None else self._relay.received,
            "datagrams_lost": 0 if self._relay is None else self._relay.overflowed,
            "datagrams_not_forwarded": 0 if self._relay is None else self._relay.not_forwarded,
        }
        with contextlib.suppress(OSError):
            os.pwrite(self._room_for_end, json.dumps(end).encode().ljust(END_BYTES), 0)
            os.rename("end.new", "end.json")  # noqa: PTH104 - pathlib is not light
        self._side.close()
        self._clients.close()
        self._spool.sync()
        with contextlib.suppress(OSError):
            os.fsync(self._room_for_end)


def _how(status: int | None, ending: Ending) -> dict[str, Any]:
    code = None if status is None else os.waitstatus_to_exitcode(status)
    is_signal = code is not None and code < 0
    return {
        "exit_code": None if is_signal else code,
        "signal": -code if code is not None and is_signal else None,
        "reason": ending.reason or ("signalled" if is_signal else "exited"),
        "detail": ending.detail,
    }


def _log_file(path: str | None) -> LogFile | None:
    if path is None:
        return None
    try:
        return LogFile(path)
    except OSError:
        return None


def _reserve(name: str) -> int:
    """Make a file that has its room on the disk already, so that a full disk cannot take the end away."""
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, b" " * END_BYTES, 0)
    return descriptor


def _is_here(folder: str) -> bool:
    """Tell whether a path still leads to the current folder; where nobody can tell, it does."""
    try:
        return os.path.samestat(os.stat(folder), os.stat("."))  # noqa: PTH116 - pathlib is not light
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _widen(descriptor: int) -> None:
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, SET_PIPE_SIZE, PIPE_BYTES)


def _nothing(*_: object) -> None:
    """Do nothing: the signal's number comes through the wake-up socket."""
