"""The blocking twins of handles on agents, operations and sessions: those of a lab, and those of a step.

See `labwright.agents.handle` and `labwright.run.agents`; `do` runs what these give to await.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from labwright.core.model import SessionSnapshot

T = TypeVar("T")
Do = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs something asynchronous to its end and gives what comes of it."""


class BlockingAgentHandle:
    """An agent; its operations are attributes: `lab.agent("s2").take_noise`."""

    def __init__(self, handle: Any, do: Do) -> None:
        self._handle = handle
        self._do = do

    def __repr__(self) -> str:
        return repr(self._handle)

    @property
    def name(self) -> str:
        """Its name."""
        return self._handle.name

    def operation(self, name: str) -> BlockingOperationHandle:
        """Give one of its operations, for names that an attribute cannot have."""
        return BlockingOperationHandle(self._handle.operation(name), self._do)

    def __getattr__(self, name: str) -> BlockingOperationHandle:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.operation(name)

    def session(self, session_id: str) -> BlockingSessionHandle:
        """Give one of its sessions."""
        return BlockingSessionHandle(self._handle.session(session_id), self._do)

    def describe(self) -> dict[str, Any]:
        """Describe it: operations, parameters, feeds, sessions."""
        return self._do(self._handle.describe())


class BlockingOperationHandle:
    """An operation of an agent. A call starts a task and waits for it, or starts a process and gives its session."""

    def __init__(self, handle: Any, do: Do) -> None:
        self._handle = handle
        self._do = do

    def __repr__(self) -> str:
        return repr(self._handle)

    def with_options(self, **options: Any) -> BlockingOperationHandle:
        """Give it with options: `timeout_s`, `key`, `session`, `run`, `step`, `token`, `valid_for_s`."""
        return BlockingOperationHandle(self._handle.with_options(**options), self._do)

    def start(self, **params: Any) -> BlockingSessionHandle:
        """Start it, and give the session at once."""
        return BlockingSessionHandle(self._do(self._handle.start(**params)), self._do)

    def __call__(self, **params: Any) -> Any:
        """Run a task to its end and give its session as it then stands; or start a process and give its handle.

        Raises:
            SessionFailedError: the task has not succeeded.
        """
        done = self._do(self._handle(**params))
        return BlockingSessionHandle(done, self._do) if not isinstance(done, SessionSnapshot) else done

    def status(self) -> SessionSnapshot | None:
        """Give its newest session; None where it never ran."""
        return self._do(self._handle.status())

    def wait(self, timeout: float | None = None) -> SessionSnapshot | None:
        """Wait until its newest session has ended.

        Raises:
            WaitTimeoutError: it goes on after that many seconds.
        """
        return self._do(self._handle.wait(timeout))

    def stop(self) -> SessionSnapshot:
        """Ask the running session of a process to end, which is its success."""
        return self._do(self._handle.stop())

    def abort(self) -> SessionSnapshot:
        """End the running session early."""
        return self._do(self._handle.abort())


class BlockingSessionHandle:
    """One execution of an operation."""

    def __init__(self, handle: Any, do: Do) -> None:
        self._handle = handle
        self._do = do

    def __repr__(self) -> str:
        return repr(self._handle)

    @property
    def id(self) -> str:
        """Its id."""
        return self._handle.id

    @property
    def snapshot(self) -> SessionSnapshot:
        """What was last heard of it."""
        return self._handle.snapshot

    def wait(self, timeout: float | None = None) -> SessionSnapshot:
        """Wait until it has ended.

        Raises:
            WaitTimeoutError: it goes on after that many seconds.
            AgentGoneError: its agent has gone meanwhile.
        """
        return self._do(self._handle.wait(timeout))

    def status(self) -> SessionSnapshot:
        """Give it as it is now."""
        return self._do(self._handle.status())

    def stop(self) -> SessionSnapshot:
        """Ask a process to end, which is its success."""
        return self._do(self._handle.stop())

    def abort(self) -> SessionSnapshot:
        """End it early."""
        return self._do(self._handle.abort())

    def log(self) -> Iterator[dict[str, Any]]:
        """Give the lines of its log, those to come until it has ended included."""
        return self._each(self._handle.log())

    def updates(self) -> Iterator[SessionSnapshot]:
        """Give it whenever it has changed, until it has ended."""
        return self._each(self._handle.updates())

    def _each(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> tuple[T] | None:
            async for item in items:
                return (item,)
            return None

        while (found := self._do(following())) is not None:
            yield found[0]
