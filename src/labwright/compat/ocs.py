"""OCS's clients on Labwright's agents: scripts run once their import line names this module.

Offered are `MatchedClient`, `OCSClient`, `OCSReply`, `ControlClientError`, `OK`, `ERROR` and `TIMEOUT`. A reply speaks
of the request, as OCS's does; how an operation ended stands in the session. The lab is that of LABWRIGHT_SITE or
LABWRIGHT_URL, else that of the current folder.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from labwright.agents.blocking_handles import BlockingAgentHandle, BlockingSessionHandle
from labwright.client import Lab, connect
from labwright.core.errors import (
    LabwrightError,
    LockedError,
    NotFoundError,
    UnreachableError,
    WaitTimeoutError,
)
from labwright.core.model import SessionSnapshot, SessionState
from labwright.instruments.ocs_session import encoded

OK = 0
ERROR = -1
TIMEOUT = 1

NEWEST = 5
"""How many messages of a session a reply shows when it is printed."""
WORDS = {OK: "OK", ERROR: "ERROR", TIMEOUT: "TIMEOUT"}


class ControlClientError(RuntimeError):
    """The agent, or the lab, cannot be reached."""


class OCSReply(NamedTuple):
    """What a request yields: `status` OK, ERROR or TIMEOUT, a message, and the session as a dictionary."""

    status: int
    msg: str
    session: dict[str, Any]

    def __str__(self) -> str:
        lines = [f"OCSReply: {WORDS[self.status]} : {self.msg}"]
        if not self.session:
            return lines[0]
        done = self.session["success"]
        how = "" if done is None else " without ERROR" if done else " with ERROR"
        lines.append(f"  {self.session['op_name']}[session={self.session['session_id']}]; ")
        lines[-1] += f"status={self.session['status']}{how}"
        messages = self.session["messages"]
        lines.append(f"  messages ({min(NEWEST, len(messages))} of {len(messages)}):")
        lines += [f"    {at:.3f} {text}" for at, text in messages[-NEWEST:]]
        return "\n".join(lines)

    __repr__ = __str__


class OCSClient:
    """The client of one agent: its operations are attributes, `client.run.start(script=...)`.

    `args` and `privs` are taken and not used: what they told OCS stands in the site.

    Raises:
        ControlClientError: the agent is not here.
    """

    def __init__(self, instance_id: str, args: Sequence[str] = (), privs: object = None) -> None:  # noqa: ARG002 - OCS's
        self.instance_id = instance_id
        agent = _LABS.here().agent(instance_id)
        try:
            described = agent.describe()
        except (UnreachableError, NotFoundError) as error:
            message = f"the agent {instance_id!r} cannot be reached: {_said(error)}; {error.cure}"
            raise ControlClientError(message) from None
        for operation in described["operations"]:
            matched = _KINDS[operation["kind"]](agent, operation["name"])
            matched.__doc__ = operation.get("doc")
            setattr(self, attribute_name(operation["name"]), matched)

    def __getattr__(self, name: str) -> Any:
        message = f"the agent {self.instance_id!r} has no operation {name!r}"
        raise AttributeError(message)


class MatchedClient(OCSClient):
    """The older name of `OCSClient`."""


def attribute_name(operation: str) -> str:
    """Give the attribute under which an operation stands.

    >>> attribute_name("take-noise now")
    'take_noise_now'
    """
    return operation.replace("-", "_").replace(" ", "_")


class MatchedOp:
    """One operation of an agent."""

    def __init__(self, agent: BlockingAgentHandle, name: str) -> None:
        self._agent = agent
        self._name = name
        self._operation = agent.operation(name)
        self._last: BlockingSessionHandle | None = None

    def start(self, **params: Any) -> OCSReply:
        """Start it: OK, or ERROR where it runs already or the parameters do not fit."""
        return self._asked(lambda: self._start(params))

    def _start(self, params: Mapping[str, Any]) -> OCSReply:
        try:
            self._last = self._operation.start(**params)
        except LockedError as error:
            current = self._operation.status()
            if current is not None and not current.state.is_final:
                return OCSReply(ERROR, f'Operation "{self._name}" already in progress.', encoded(current))
            return OCSReply(ERROR, _said(error), {})
        snapshot = self._last.snapshot
        return OCSReply(OK, f'Started {snapshot.kind} "{self._name}".', encoded(snapshot))

    def wait(self, timeout: float | None = None) -> OCSReply:
        """Wait until its session has ended; None has no limit, and a limit of 0 or less only looks."""
        return self._asked(lambda: self._wait(timeout))

    def _wait(self, timeout: float | None) -> OCSReply:
        current = self._operation.status()
        if current is None:
            return OCSReply(OK, "Idle.", {})
        session = self._last = self._agent.session(current.id)
        try:
            ended = current if current.state.is_final else _waited(session, timeout)
        except WaitTimeoutError:
            still = f'Operation "{self._name}" still running; wait timed out.'
            return OCSReply(TIMEOUT, still, encoded(session.status()))
        how = "SUCCEEDED" if ended.state is SessionState.SUCCEEDED else "FAILED"
        return OCSReply(OK, f'Operation "{self._name}" just exited ({how}).', encoded(ended))

    def status(self) -> OCSReply:
        """Tell how its newest session is."""
        return self._asked(self._status)

    def _status(self) -> OCSReply:
        current = self._operation.status()
        if current is None:
            return OCSReply(OK, "No session active.", {})
        self._last = self._agent.session(current.id)
        return OCSReply(OK, "Session active.", encoded(current))

    def stop(self) -> OCSReply:
        """Ask a process to end."""
        return OCSReply(ERROR, f'No process called "{self._name}": it is a task.', {})

    def abort(self) -> OCSReply:
        """End a task early."""
        return OCSReply(ERROR, f'No task called "{self._name}": it is a process.', {})

    def _end(self, end: Callable[[], SessionSnapshot], verb: str) -> OCSReply:
        current = self._operation.status()
        if current is None:
            return OCSReply(ERROR, "No session active.", {})
        if current.state is SessionState.STOPPING:
            return OCSReply(ERROR, f'Operation "{self._name}" is already stopping.', encoded(current))
        if current.state.is_final:
            return OCSReply(ERROR, f'Operation "{self._name}" is not running.', encoded(current))
        return OCSReply(OK, f'Requested {verb} on "{self._name}".', encoded(end()))

    def _asked(self, ask: Callable[[], OCSReply]) -> OCSReply:
        """Have whatever goes wrong with a request become an ERROR, with what is known of the session."""
        try:
            return ask()
        except UnreachableError as error:
            return OCSReply(ERROR, _said(error), self._known(error))
        except LabwrightError as error:
            return OCSReply(ERROR, _said(error), {})

    def _known(self, error: UnreachableError) -> dict[str, Any]:
        """Tell what is known of a session whose agent does not answer."""
        session = getattr(error, "session", None)
        if isinstance(session, SessionSnapshot):
            return encoded(session)
        with contextlib.suppress(LabwrightError, TimeoutError):
            if self._last is not None:
                return encoded(SessionSnapshot.model_validate(_LABS.here().session_shown(self._last.id)))
            found = _LABS.here().sessions(agent=self._agent.name, operation=self._name, limit=1)["items"]
            return encoded(SessionSnapshot.model_validate(found[0])) if found else {}
        return {}


class MatchedTask(MatchedOp):
    """An operation that ends by itself; a call starts it and waits."""

    def abort(self) -> OCSReply:
        """End it early: OK once that is asked for, ERROR where nothing runs."""
        return self._asked(lambda: self._end(self._operation.abort, "abort"))

    def __call__(self, **params: Any) -> OCSReply:
        """Start it and wait until it has ended."""
        started = self.start(**params)
        return self.wait() if started.status == OK else started


class MatchedProcess(MatchedOp):
    """An operation that runs until it is stopped; a call gives its status."""

    def stop(self) -> OCSReply:
        """Ask it to end: OK once that is asked for, ERROR where nothing runs."""
        return self._asked(lambda: self._end(self._operation.stop, "stop"))

    def __call__(self) -> OCSReply:
        """Give its status."""
        return self.status()


_KINDS: dict[str, type[MatchedOp]] = {"task": MatchedTask, "process": MatchedProcess}


def _waited(session: BlockingSessionHandle, timeout: float | None) -> SessionSnapshot:
    if timeout is not None and timeout <= 0:
        message = "there was no time to wait"
        raise WaitTimeoutError(message)
    return session.wait(timeout)


def _said(error: LabwrightError) -> str:
    return f"{error.message}: {error.because}" if error.because else error.message


class _Labs:
    """The labs that clients of this process have opened: OCS's clients are never closed, so they share."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, ...], Lab] = {}
        self._stack = contextlib.ExitStack()
        atexit.register(self.close)

    def here(self) -> Lab:
        """Give the lab that environment and current folder lead to.

        Raises:
            ControlClientError: there is none.
        """
        names = ("LABWRIGHT_SITE", "LABWRIGHT_URL", "LABWRIGHT_CREDS")
        key = (str(Path.cwd()), *(os.environ.get(name, "") for name in names))
        if key not in self._opened:
            try:
                self._opened[key] = self._stack.enter_context(connect())
            except LabwrightError as error:
                raise ControlClientError(f"no lab can be reached: {_said(error)}") from None
        return self._opened[key]

    def close(self) -> None:
        """Close them all."""
        self._opened.clear()
        self._stack.close()


_LABS = _Labs()
