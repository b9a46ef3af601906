"""A script's keeper: the small process that is its parent and holds its output, so that the agent may die.

Run as a file, without site packages, so that it stands ready soon; it waits on its standard input, a unix socket, for
one job with the lock of the script's folder, and ends without one when the agent goes. It is two processes. The guard
is the parent of the keeper and kills everything below, should the keeper itself be killed; both hold the lock, so that
whoever finds the lock free knows that nothing runs any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import traceback


def start_keeper() -> socket.socket:
    """Start a keeper that waits for a job; gives the socket on which it is told, and on which it tells what happens.

    It needs nobody to collect it, and the agent's death does not concern it once it has a job.
    """
    import threading

    ours, its = socket.socketpair()
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-X", "utf8", os.path.abspath(__file__)],  # noqa: PTH100 - pathlib is not light
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, its.fileno(), 0)],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD),
        )
    except BaseException:
        ours.close()
        raise
    finally:
        its.close()
    threading.Thread(target=_collect, args=(pid,), name="keeper", daemon=True).start()
    return ours


def _collect(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def main() -> None:
    """Wait for a job as a guarded keeper, and do it."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # what the agent had open and let its children inherit
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..")))  # noqa: PTH100, PTH118, PTH120
    from labwright.agents import keeping, process_tree

    agent = socket.socket(fileno=os.dup(0))
    _forget_agent()
    guard, keeper = socket.socketpair()
    process_tree.adopt_orphans()
    pid = os.fork()
    if pid:
        agent.close()
        keeper.close()
        _guard(guard, pid)
        return
    guard.close()
    given = _receive_job(agent)
    if given is None:
        return
    line, lock = given
    job = json.loads(line)
    socket.send_fds(keeper, [b"."], [lock])
    os.chdir(job["folder"])
    try:
        keeping.Keeper(job, agent).run()
    except Exception:
        with open("failure", "w") as told:  # noqa: PTH123 - pathlib is not light
            traceback.print_exc(file=told)
        raise


def _receive_job(agent: socket.socket) -> tuple[bytes, int] | None:
    """Wait for a line of JSON that comes with one descriptor; None where the agent goes without."""
    line, descriptors, _, _ = socket.recv_fds(agent, 65536, 1)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - the function takes it by position only
    parts = [line]
    while parts[-1] and not parts[-1].endswith(b"\n"):
        parts.append(agent.recv(1024 * 1024))
    return (b"".join(parts), descriptors[0]) if parts[-1] and descriptors else None


def _guard(told: socket.socket, keeper: int) -> None:
    """Hold the lock while the keeper lives; when it ends before its time, leave nothing alive."""
    from labwright.agents.process_tree import descendants, kill

    def pass_on(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(keeper, signal.SIGTERM)

    signal.signal(signal.SIGTERM, pass_on)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    socket.recv_fds(told, 1, 1)  # the lock stays open until this process ends
    while os.waitpid(-1, 0)[0] != keeper:
        pass
    with contextlib.suppress(ChildProcessError):
        while True:
            kill(descendants(os.getpid()))
            os.waitpid(-1, 0)


def _forget_agent() -> None:
    """Keep nothing that the agent had open, nor its folder."""
    null = os.open(os.devnull, os.O_RDWR)
    for place in (0, 1, 2):
        os.dup2(null, place)
    os.chdir("/")


if __name__ == "__main__":
    main()
