"""What a step sees of the world: its run, target, parameters, clients and log, and what it may ask the engine to do.

`TaskContext` is for `async def` steps and `BlockingContext`, its twin, for `def` steps, which run in a thread. Both do
nothing by themselves: what they can do is given to them (`Attempt`, `Effects`), so that real executions and the fake
context of `labwright.testing` share this code.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from labwright.core.clock import Clock
from labwright.core.errors import UsageError
from labwright.core.model import Event
from labwright.core.request import Request
from labwright.plan.steps import StepFunction
from labwright.run.attempt import Attempt
from labwright.run.bridge import Bridge
from labwright.run.clients import not_provided
from labwright.run.services import Services
from labwright.run.views import Marks, Named, RunInfo, StepLog, TargetView

if TYPE_CHECKING:
    from labwright.run.http_client import BlockingStepHttp, StepHttp

T = TypeVar("T")


class Effects(Protocol):
    """What a context does outside itself; one object for each step."""

    cancelled: bool

    def log(self, level: str, text: str, fields: Mapping[str, Any]) -> None:
        """Write to the run's log; never blocks."""
        ...

    def progress(self, done: float, total: float | None, text: str) -> None:
        """Tell how far the step is; never blocks."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return if this sleep is over, else leave the step until it is."""
        ...

    def polling(self, every: float, timeout: float | None, text: str) -> Callable[[], None]:
        """Give what is called after each false answer: it leaves the step until the next, or raises the timeout."""
        ...

    async def spawn(self, request: Request) -> str:
        """Make a child run."""
        ...

    def next_call(self) -> tuple[str, str]:
        """Give the step's name, and what tells this call of an agent from all others of the run."""
        ...

    async def do(self, step: StepFunction[..., Any], params: Mapping[str, Any]) -> Any:
        """Do a step of a task's function."""
        ...


class _Common:
    """What both contexts offer without waiting."""

    def __init__(self, attempt: Attempt, effects: Effects, marks: Marks | None = None) -> None:
        self._attempt = attempt
        self._effects = effects
        self._marks = marks or Marks()

    @property
    def run(self) -> RunInfo:
        """The run: id, task, cause, key, priority, requested_at."""
        return self._attempt.run

    @property
    def attempt(self) -> int:
        """Which attempt of the run this is, from 1."""
        return self._attempt.number

    @property
    def target(self) -> TargetView:
        """What the run acts on; its facts are attributes: `ctx.target.url`.

        Raises:
            NotProvidedError: the run has no target, or the target has no such fact.
        """
        target = self._attempt.services.target
        if target is None:
            raise not_provided("a target", {}, "request the run with `on=`", '.with_target("name", url=...)')
        return TargetView(target)

    @property
    def params(self) -> Named:
        """The task's parameters, typed, as items or attributes."""
        return self._attempt.params

    @property
    def outputs(self) -> Named:
        """The outputs of the steps that have ended, by name."""
        return self._attempt.outputs

    @property
    def event(self) -> Event:
        """The event that caused the run.

        Raises:
            NotProvidedError: the run was not caused by an event.
        """
        event = self._attempt.services.event
        if event is None:
            raise not_provided("an event", {}, "let a rule request the run", ".with_event(...)")
        return event

    @property
    def clock(self) -> Clock:
        """The clock; a test's own in tests."""
        return self._attempt.services.clock

    @property
    def cancelled(self) -> bool:
        """Whether the step was told to end: its deadline has passed, or somebody aborts the run."""
        return self._effects.cancelled

    def now(self) -> datetime:
        """Tell the time, as an aware datetime in UTC."""
        return self._attempt.services.clock.now()

    def agent(self, name: str) -> Any:
        """Give the handle of an agent.

        Raises:
            NotProvidedError: there are no agents here.
        """
        if self._attempt.services.agent is None:
            raise not_provided(f"the agent {name!r}", {}, "start the agent", f".with_agent({name!r}, ...)")
        return self._attempt.services.agent(name, self._effects)

    def fleet(self, selector: str, **options: Any) -> Any:
        """Give the handle of all targets that a selector chooses: `await ctx.fleet("crate=1").take_noise(duration=30)`.

        A call is a child run, for whose end the step waits durably, as in `sleep`: what stands before it in the step
        runs again. It gives a `FleetResult` with a row for each target; the options are those of `FanOut`: `timeout_s`,
        `quorum`, `waves` and others.

        Raises:
            NotProvidedError: there are no fleets here.
            UsageError: an option is not valid.
        """
        if self._attempt.services.fleet is None:
            raise not_provided(f"the fleet {selector!r}", {}, "start its agents", f".with_fleet({selector!r}, ...)")
        return self._attempt.services.fleet(selector, options, self._effects)

    def note(self, text: str) -> None:
        """Leave a line that is shown with the run."""
        self._marks.notes.append(text)

    def set_result(self, value: Any) -> None:
        """Set the result of the run, in place of the last step's output."""
        self._marks.result = value


def effects_of(context: _Common) -> Any:
    """Give what a context does outside itself; for the built-in tasks, which do more than users' steps may."""
    return context._effects  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the one door


def services_of(context: _Common) -> Services:
    """Give what a context's attempt was given; for the built-in tasks."""
    return context._attempt.services  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the one door


class TaskContext(_Common):
    """What an `async def` step, or a task's function, sees and may do."""

    @property
    def log(self) -> StepLog:
        """The run's log."""
        return StepLog(self._effects.log)

    @property
    def http(self) -> StepHttp:
        """An httpx client; an answer that does not come, for whatever reason, is a `TransientError`."""
        return self._attempt.http()

    async def client(self, kind: str) -> Any:
        """Give the site's client of that kind for this target; one per attempt.

        Raises:
            NotProvidedError: the site has no provider of that kind.
        """
        return await self._attempt.clients.get(kind)

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Tell how far the step is."""
        self._effects.progress(done, total, text)

    async def sleep(self, seconds: float) -> None:
        """Wait durably: the run is `waiting` and its worker free, and crashes do not matter.

        The step is left, and after the time runs again from its top; sleeps that are over return at once. So what
        stands before a sleep runs again: put it in a step of its own. Parallel sleeps follow one another.

        Raises:
            TerminalError: the step is one that must not be repeated.
        """
        self._effects.sleep(seconds)
        await asyncio.sleep(0)

    async def wait_until(
        self,
        condition: Callable[..., T | Awaitable[T]],
        *,
        every: float = 5,
        timeout: float | None = None,
        text: str | None = None,
    ) -> T:
        """Wait durably, like `sleep`, until the condition gives something true; give that.

        The condition takes nothing or the context.

        Raises:
            WaitTimeoutError: `timeout` seconds have passed since it was first asked.
        """
        again = self._effects.polling(every, timeout, text or getattr(condition, "__name__", "condition"))
        while not (answer := await _asked(condition, self)):
            again()
            await asyncio.sleep(0)
        return answer

    async def spawn(self, request: Request) -> str:
        """Make a child run and give its id; the same one if this step runs again."""
        return await self._effects.spawn(request)

    async def do(self, step: StepFunction[..., Any], /, **params: Any) -> Any:
        """Do a step of a task's function, once: after a crash its recorded output comes back.

        Raises:
            TransientError: the step failed with what may pass; unless caught, the run is tried again.
            TerminalError: the step failed otherwise.
            UsageError: this context is that of a step, not of a task's function.
        """
        return await self._effects.do(step, params)


class BlockingContext(_Common):
    """What a `def` step sees and may do: the same as `TaskContext`, blocking instead of awaited.

    Once the attempt is cancelled, what waits or reports progress raises `asyncio.CancelledError`.
    """

    def __init__(self, attempt: Attempt, effects: Effects, bridge: Bridge, marks: Marks | None = None) -> None:
        super().__init__(attempt, effects, marks)
        self._bridge = bridge

    @property
    def log(self) -> StepLog:
        """The run's log."""
        return StepLog(lambda level, text, fields: self._bridge.tell(self._effects.log, level, text, fields))

    @property
    def http(self) -> BlockingStepHttp:
        """An httpx client; an answer that does not come, for whatever reason, is a `TransientError`."""
        self._bridge.check()
        return self._attempt.blocking_http()

    def client(self, kind: str) -> Any:
        """Give the site's client of that kind for this target; one per attempt.

        Raises:
            NotProvidedError: the site has no provider of that kind.
        """
        return self._bridge.call(self._attempt.clients.get(kind))

    def agent(self, name: str) -> Any:
        """Give the handle of an agent, whose operations block: `ctx.agent("s2").take_noise(duration=30)`.

        Raises:
            NotProvidedError: there are no agents here.
        """
        return self._attempt.services.blocking(super().agent(name), self._bridge.call)

    def fleet(self, selector: str, **options: Any) -> Any:
        """Give the handle of all targets that a selector chooses, whose operations block; see `TaskContext.fleet`.

        Raises:
            NotProvidedError: there are no fleets here.
            UsageError: an option is not valid.
        """
        return self._attempt.services.blocking(super().fleet(selector, **options), self._bridge.call)

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Tell how far the step is."""
        self._bridge.check()
        self._bridge.tell(self._effects.progress, done, total, text)

    def sleep(self, seconds: float) -> None:
        """Wait durably; see `TaskContext.sleep`."""
        self._bridge.check()
        self._effects.sleep(seconds)

    def wait_until(
        self,
        condition: Callable[..., T],
        *,
        every: float = 5,
        timeout: float | None = None,
        text: str | None = None,
    ) -> T:
        """Wait durably until the condition gives something true; see `TaskContext.wait_until`."""
        again = self._effects.polling(every, timeout, text or getattr(condition, "__name__", "condition"))
        while True:
            self._bridge.check()
            answer = condition(self) if _takes_context(condition) else condition()
            if answer:
                return answer
            again()

    def spawn(self, request: Request) -> str:
        """Make a child run and give its id; the same one if this step runs again."""
        return self._bridge.call(self._effects.spawn(request))


async def _asked(condition: Callable[..., Any], context: TaskContext) -> Any:
    answer = condition(context) if _takes_context(condition) else condition()
    return await answer if inspect.isawaitable(answer) else answer


def _takes_context(condition: Callable[..., Any]) -> bool:
    try:
        inspect.signature(condition).bind()
    except TypeError:
        return True
    except ValueError as error:
        raise UsageError(
            f"{condition!r} cannot be a condition",
            because="what it takes cannot be read",
            cure="wrap it: `lambda: ...`",
        ) from error
    return False
