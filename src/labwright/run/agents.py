"""Agents as steps see them: every command of a step is bound to its run, so that a repeated step finds its session.

A session's id is made of the run, the step, how often that was tried and the number of the call, but not of the
attempt: a step that is repeated after a crash finds what its predecessor began, running or ended; a step that is tried
again after a recorded failure begins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

from labwright.agents.handle import AgentHandle, OperationHandle, SessionHandle
from labwright.agents.session_handle import succeeded
from labwright.core.errors import LabwrightError, LockedError, TransientError, UnreachableError
from labwright.core.ids import hashed_id
from labwright.core.model import OperationKind, SessionSnapshot
from labwright.journal.journal import Journal
from labwright.run.services import Caller

VALID_S = 30.0
"""So many seconds after its receipt a command may still be carried out; a queue may hold it that long."""

ABORT_S = 10.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunAgents:
    """The agents, as one attempt of a run reaches them."""

    journal: Journal
    run: str
    token: int
    by: str

    def handle(self, name: str, caller: Caller) -> StepAgent:
        """Give the handle of an agent for one step."""
        return StepAgent(AgentHandle(self.journal, name, sender=self.by, by=self.by), self, caller)


class StepAgent:
    """An agent; its operations are attributes: `await ctx.agent("s2").take_noise(duration=30)`."""

    def __init__(self, handle: AgentHandle, agents: RunAgents, caller: Caller) -> None:
        self._handle = handle
        self._agents = agents
        self._caller = caller

    @property
    def name(self) -> str:
        """Its name."""
        return self._handle.name

    def operation(self, name: str) -> StepOperation:
        """Give one of its operations, for names that an attribute cannot have."""
        return StepOperation(self._handle.operation(name), self, name)

    def __getattr__(self, name: str) -> StepOperation:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.operation(name)

    def bound(self, operation: OperationHandle, name: str) -> OperationHandle:
        """Give an operation with what binds the next call of it to the run."""
        step, call = self._caller.next_call()
        return operation.with_options(
            session=hashed_id("ses", self._agents.run, call, self.name, name),
            run=self._agents.run,
            step=step,
            token=self._agents.token,
            valid_for_s=VALID_S,
        )

    @property
    def is_cancelled(self) -> bool:
        """Tell whether the step was told to end: its deadline has passed, or the run is aborted."""
        return self._caller.cancelled


class StepOperation:
    """An operation of an agent. A call starts a task and waits for it, or starts a process and gives its session."""

    def __init__(self, handle: OperationHandle, agent: StepAgent, name: str) -> None:
        self._handle = handle
        self._agent = agent
        self._name = name

    def with_options(self, *, timeout_s: float | None = None) -> StepOperation:
        """Give it with another deadline than its own, in seconds."""
        return StepOperation(self._handle.with_options(timeout_s=timeout_s), self._agent, self._name)

    async def start(self, **params: Any) -> StepSession:
        """Start it, and give the session at once; a step that runs again finds the session of its first time.

        Raises:
            TransientError: the agent cannot be reached, or somebody else holds what it needs.
            LabwrightError: the agent refuses.
        """
        bound = self._agent.bound(self._handle, self._name)
        return StepSession(await _translated(bound.start(**params)), self._agent)

    async def __call__(self, **params: Any) -> Any:
        """Run a task to its end, which must be a success, or start a process and give its session.

        When the step is told to end, because its deadline has passed or the run is aborted, so is the session.

        Raises:
            TransientError: the agent cannot be reached, something else holds what it needs, or the operation says so.
            SessionFailedError: the operation has not succeeded.
        """
        session = await self.start(**params)
        if session.snapshot.kind is OperationKind.PROCESS:
            return session
        return await session.succeeded()


class StepSession:
    """A session that a step began."""

    def __init__(self, handle: SessionHandle, agent: StepAgent) -> None:
        self._handle = handle
        self._agent = agent

    @property
    def id(self) -> str:
        """Its id."""
        return self._handle.id

    @property
    def snapshot(self) -> SessionSnapshot:
        """What was last heard of it."""
        return self._handle.snapshot

    async def wait(self, timeout: float | None = None) -> SessionSnapshot:
        """Wait until it has ended, however.

        Raises:
            WaitTimeoutError: it goes on after that many seconds.
            TransientError: its agent has gone.
        """
        try:
            return await _translated(self._handle.wait(timeout))
        except asyncio.CancelledError:
            if self._agent.is_cancelled:
                await asyncio.shield(self._give_up())
            raise

    async def succeeded(self) -> SessionSnapshot:
        """Wait until it has succeeded.

        Raises:
            TransientError: its agent has gone, or the operation says that it may work later.
            SessionFailedError: it ended otherwise.
        """
        return _succeeded(await self.wait())

    async def status(self) -> SessionSnapshot:
        """Give it as it is now."""
        return await _translated(self._handle.status())

    async def stop(self) -> SessionSnapshot:
        """Ask a process to end, which is its success."""
        return await _translated(self._handle.stop())

    async def abort(self) -> SessionSnapshot:
        """End it early."""
        return await _translated(self._handle.abort())

    def updates(self) -> AsyncIterator[SessionSnapshot]:
        """Give it whenever it has changed, until it has ended."""
        return self._handle.updates()

    async def _give_up(self) -> None:
        with contextlib.suppress(LabwrightError, TimeoutError):
            async with asyncio.timeout(ABORT_S):
                await self._handle.abort()


def _succeeded(session: SessionSnapshot) -> SessionSnapshot:
    if session.error is not None and session.error.kind == TransientError.kind:
        raise TransientError(session.error.message, because=session.error.because, cure=session.error.cure)
    return succeeded(session)


async def _translated(work: Awaitable[T]) -> T:
    """Do something; an agent that is away, or busy with somebody else, is worth another try of the step."""
    try:
        return await work
    except (UnreachableError, LockedError, TimeoutError) as error:
        message = str(error) or "the agent does not answer"
        raise TransientError(message, because=getattr(error, "because", ""), cure=getattr(error, "cure", "")) from error
