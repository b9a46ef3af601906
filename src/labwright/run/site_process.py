"""The process that loads a site and forks the processes in which the site's code runs: `python -m` this module.

It imports the code once and then only forks and buries. So a crash in a rule costs one fork, a new one is there within
milliseconds, and it has the very code that was loaded, also when the files have been edited since. Requests and answers
go over `--control`, a socket: frames of JSON, with file descriptors beside some; end of file there ends the process.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import traceback
import warnings
from typing import Any

from labwright.core.errors import SiteError
from labwright.run.processes import die_with_parent
from labwright.run.settings import Settings
from labwright.run.site import DialectLoader, Site, load_site
from labwright.run.site_branch import serve_calls
from labwright.run.site_wire import FrameReader, frame

CHUNK = 1 << 16
FDS = 4
"""The descriptors of a branch: calls, board, life, crash report."""


def main() -> None:
    """Load a site as the control socket says, then fork branches of it until that socket is closed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--site", help="the site's folder, for people who list processes")
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--life", type=int, required=True)
    options = parser.parse_args()
    die_with_parent(options.life)
    os.dup2(2, 1)  # what the site's code prints must not reach the standard output of a command
    with socket.socket(fileno=options.control) as control:
        control.set_inheritable(False)
        _Process(control, options.life).run()


class _Process:
    """The process's own state: its socket, and the branches that live."""

    def __init__(self, control: socket.socket, life: int) -> None:
        self.control = control
        self.life = life
        self.reader = FrameReader()
        self.branches: set[int] = set()

    def run(self) -> None:
        try:
            site = self._load()
        except SiteError as error:
            self._say({"findings": error.findings, "message": error.message})
            return
        wake = _wake_on_child()
        gc.collect()
        gc.freeze()  # what is loaded stays shared with the branches
        self._say({"loaded": site.describe()})
        while True:
            select.select([self.control, wake], [], [])
            self._bury(wake)
            messages, fds = self._receive()
            for message in messages:
                self._obey(message, fds, site)

    def _load(self) -> Site:
        messages: list[Any] = []
        while not messages:
            messages, _ = self._receive(wait=True)
        settings = Settings.model_validate_json(messages[0]["settings"])
        return load_site(settings, dialects=[_dialect(path) for path in messages[0]["dialects"]])

    def _receive(self, *, wait: bool = False) -> tuple[list[Any], list[int]]:
        if not wait and not select.select([self.control], [], [], 0)[0]:
            return [], []
        data, fds, _, _ = socket.recv_fds(self.control, CHUNK, FDS)
        if not data:
            self._end()
        return list(self.reader.feed(data)), fds

    def _obey(self, message: dict[str, Any], fds: list[int], site: Site) -> None:
        match message:
            case {"branch": int(number)}:
                self._branch(number, fds, site)
            case {"signal": int(branch), "number": int(number)} if branch in self.branches:
                with contextlib.suppress(ProcessLookupError):
                    (os.killpg if number == signal.SIGKILL else os.kill)(branch, number)
            case _:
                pass

    def _branch(self, number: int, fds: list[int], site: Site) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking beside a thread that only waits is sound
            branch = os.fork()
        if branch == 0:
            self._become_branch(fds, site)
        with contextlib.suppress(OSError):
            os.setpgid(branch, branch)
        self.branches.add(branch)
        for fd in fds:
            os.close(fd)
        self._say({"branched": branch, "number": number})

    def _become_branch(self, fds: list[int], site: Site) -> None:
        code = 1
        try:
            os.setpgid(0, 0)
            self.control.close()
            os.close(self.life)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            calls, board, life, report = fds
            die_with_parent(life)
            code = serve_calls(site, socket.socket(fileno=calls), board, report)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:  # noqa: BLE001 - this process must never go on as the one that forked it
            traceback.print_exc()
        finally:
            os._exit(code)

    def _bury(self, wake: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while wake.recv(CHUNK):
                pass
        for branch in tuple(self.branches):
            if ended := os.waitid(os.P_PID, branch, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(branch, signal.SIGKILL)  # what it has started ends with it; its number is still its own
                os.waitpid(branch, 0)
                self.branches.discard(branch)
                self._say({"ended": branch, "how": _how(ended.si_code, ended.si_status)})

    def _say(self, message: object) -> None:
        try:
            self.control.sendall(frame(message))
        except OSError:
            self._end()

    def _end(self) -> None:
        for branch in self.branches:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(branch, signal.SIGKILL)
        os.killpg(0, signal.SIGKILL)


def _wake_on_child() -> socket.socket:
    """Give a socket that can be read as soon as a branch has ended."""
    wake, bell = socket.socketpair()
    wake.setblocking(False)  # noqa: FBT003 - the name of the method says it
    bell.setblocking(False)  # noqa: FBT003 - as above
    signal.signal(signal.SIGCHLD, _do_nothing)
    signal.set_wakeup_fd(bell.detach(), warn_on_full_buffer=False)
    return wake


def _do_nothing(_number: int, _frame: object) -> None:
    """Stand in for a handler, so that the signal rings the bell."""


def _how(code: int, status: int) -> str:
    if code == os.CLD_EXITED:
        return f"it ended with exit code {status}"
    try:
        return f"it was ended by {signal.Signals(status).name}"
    except ValueError:
        return f"it was ended by signal {status}"


def _dialect(path: str) -> DialectLoader:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    main()
