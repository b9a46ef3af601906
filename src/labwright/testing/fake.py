"""The fake context: what a step gets in a test, with exactly what the test provides.

It is a `TaskContext` over effects that only remember: sleeping moves the clock, children and log lines are kept to be
looked at. What was not provided raises the same `NotProvidedError` as in a real run.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from labwright.core.clock import Clock
from labwright.core.errors import WaitTimeoutError
from labwright.core.model import Cause, Event, Target
from labwright.core.plain import from_plain, to_plain
from labwright.core.request import Request
from labwright.plan.providers import Provider
from labwright.plan.tasks import StepFunction, bind
from labwright.run.attempt import Attempt
from labwright.run.clients import Clients, not_provided
from labwright.run.context import BlockingContext, TaskContext
from labwright.run.services import Services
from labwright.run.threads import Raised, run_in_thread
from labwright.run.views import Marks, Named, RunInfo
from labwright.testing.clock import START, ManualClock

T = TypeVar("T")

ASKS = 10_000
"""How often a condition is asked before the test is told that it never holds."""

HALF = 0.5


@dataclass(frozen=True)
class LogLine:
    """One line that a step has logged."""

    level: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(eq=False)
class Seen:
    """What steps did with a fake context, for assertions."""

    lines: list[LogLine] = field(default_factory=list[LogLine])
    slept: list[float] = field(default_factory=list[float])
    spawned: list[Request] = field(default_factory=list[Request])
    progress: list[tuple[float, float | None, str]] = field(default_factory=list[tuple[float, float | None, str]])
    marks: Marks = field(default_factory=Marks)


@dataclass(frozen=True, kw_only=True)
class _Given:
    clock: Clock
    log: logging.Logger | None = None
    target: Target | None = None
    event: Event | None = None
    clients: Mapping[str, Any] = field(default_factory=dict[str, Any])
    agents: Mapping[str, Any] = field(default_factory=dict[str, Any])
    fleets: Mapping[str, Any] = field(default_factory=dict[str, Any])
    http: Any = None
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])
    seen: Seen = field(default_factory=Seen)


class FakeContext(TaskContext):
    """A context for tests of steps; each `with_...` gives a copy that has one thing more.

    `log` is a list to which lines are added, or a logger of the standard library. `blocking` is the twin for `def`
    steps. Afterwards look at `lines`, `slept`, `spawned`, `progressed`, `notes` and `result`.

    >>> ctx = FakeContext().with_target("cluster-7", url="http://cluster-7").with_params(days=30)
    >>> ctx.target.url, ctx.params.days
    ('http://cluster-7', 30)
    """

    def __init__(self, *, clock: Clock | None = None, log: list[LogLine] | logging.Logger | None = None) -> None:
        seen = Seen() if log is None or isinstance(log, logging.Logger) else Seen(lines=log)
        self._take(
            _Given(clock=clock or ManualClock(), log=log if isinstance(log, logging.Logger) else None, seen=seen)
        )

    def with_target(
        self, target: Target | str, *, labels: Mapping[str, str] | None = None, **facts: Any
    ) -> FakeContext:
        """Provide the target: one made elsewhere, or a name and facts."""
        if isinstance(target, str):
            target = Target(name=target, labels=dict(labels or {}), facts=facts)
        return self._with(target=target)

    def with_client(self, kind: str, client: Any) -> FakeContext:
        """Provide what `ctx.client(kind)` gives."""
        return self._with(clients={**self._given.clients, kind: client})

    def with_http(self, handler: Any) -> FakeContext:
        """Provide the other side of `ctx.http`: a function from request to response, or an httpx transport."""
        return self._with(http=handler)

    def with_agent(self, name: str, agent: Any) -> FakeContext:
        """Provide what `ctx.agent(name)` gives."""
        return self._with(agents={**self._given.agents, name: agent})

    def with_fleet(self, selector: str, fleet: Any) -> FakeContext:
        """Provide what `ctx.fleet(selector)` gives."""
        return self._with(fleets={**self._given.fleets, selector: fleet})

    def with_event(self, event: Event | str, *, subject: str | None = None, data: Any = None) -> FakeContext:
        """Provide the event that caused the run: one made elsewhere, or a type with subject and data."""
        if isinstance(event, str):
            event = Event(id="event-1", source="test", type=event, subject=subject, time=START, data=data)
        return self._with(event=event)

    def with_params(self, params: Mapping[str, Any] | None = None, /, **more: Any) -> FakeContext:
        """Provide parameters of the task, in addition to those provided before."""
        return self._with(params={**self._given.params, **(params or {}), **more})

    def with_outputs(self, outputs: Mapping[str, Any] | None = None, /, **more: Any) -> FakeContext:
        """Provide outputs of earlier steps, by the steps' names."""
        new = {name: from_plain(to_plain(value)) for name, value in {**(outputs or {}), **more}.items()}
        return self._with(outputs={**self._given.outputs, **new})

    @property
    def blocking(self) -> BlockingContext:
        """The twin of this context for `def` steps."""
        return BlockingContext(self._attempt, self._effects, _FakeBridge(), self._given.seen.marks)

    @property
    def lines(self) -> list[LogLine]:
        """What was logged."""
        return self._given.seen.lines

    @property
    def slept(self) -> list[float]:
        """The seconds of each sleep, and of each pause between two asks of a condition."""
        return self._given.seen.slept

    @property
    def spawned(self) -> list[Request]:
        """The requests for child runs."""
        return self._given.seen.spawned

    @property
    def progressed(self) -> list[tuple[float, float | None, str]]:
        """What was told with `ctx.progress`."""
        return self._given.seen.progress

    @property
    def notes(self) -> list[str]:
        """What was told with `ctx.note`."""
        return self._given.seen.marks.notes

    @property
    def result(self) -> Any:
        """What was told with `ctx.set_result`."""
        return self._given.seen.marks.result

    def services(self) -> Services:
        """Give what was provided in the form that an execution takes."""
        given = self._given
        return Services(
            clock=given.clock,
            target=given.target,
            event=given.event,
            providers={kind: Provider(kind, _provider_of(client)) for kind, client in given.clients.items()},
            agent=lambda name, _: _from(given.agents, "agent", name),
            fleet=lambda selector, _options, _effects: _from(given.fleets, "fleet", selector),
            http_transport=given.http,
            random=lambda: HALF,
        )

    def _with(self, **changes: Any) -> FakeContext:
        copy = object.__new__(type(self))
        copy._take(dataclasses.replace(self._given, **changes))
        return copy

    def _take(self, given: _Given) -> None:
        self._given = given
        attempt = Attempt(
            run=RunInfo(id="run_fake", task="fake", cause=Cause(kind="operator", id="test"), requested_at=START),
            number=1,
            params=Named("parameter", given.params),
            outputs=Named("output", given.outputs),
            services=self.services(),
            clients=_GivenClients(given.clients),
        )
        super().__init__(attempt, _FakeEffects(given, self), given.seen.marks)


class _FakeEffects:
    """Effects that only remember."""

    def __init__(self, given: _Given, context: FakeContext) -> None:
        self.cancelled = False
        self._given = given
        self._seen = given.seen
        self._context = context

    def log(self, level: str, text: str, fields: Mapping[str, Any]) -> None:
        self._seen.lines.append(LogLine(level, text, fields))
        if self._given.log is not None:
            self._given.log.log(logging.getLevelNamesMapping()[level.upper()], "%s %s", text, dict(fields))

    def progress(self, done: float, total: float | None, text: str) -> None:
        self._seen.progress.append((done, total, text))

    def sleep(self, seconds: float) -> None:
        self._seen.slept.append(seconds)
        if isinstance(self._given.clock, ManualClock):
            self._given.clock.advance(max(0.0, seconds))

    def polling(self, every: float, timeout: float | None, text: str) -> Callable[[], None]:
        waited, asks = 0.0, 0

        def again() -> None:
            nonlocal waited, asks
            asks += 1
            if timeout is not None and waited >= timeout:
                raise WaitTimeoutError(f"{text!r} did not hold within {timeout:g} s")
            if asks >= ASKS:
                raise AssertionError(
                    f"{text!r} was asked {asks} times and never held; give it a timeout, or let it hold"
                )
            pause = every if timeout is None else min(every, timeout - waited)
            waited += pause
            self.sleep(pause)

        return again

    async def spawn(self, request: Request) -> str:
        self._seen.spawned.append(request)
        return f"run_fake_{len(self._seen.spawned)}"

    def next_call(self) -> tuple[str, str]:
        return "fake", ""

    async def do(self, step: StepFunction[..., Any], params: Mapping[str, Any]) -> Any:
        required = {argument.name for argument in step.signature.arguments if argument.is_required}
        offered = {name: value for name, value in self._given.params.items() if name in required}
        arguments = bind(step, offered, self._given.outputs, params)
        output = from_plain(to_plain(await self._call(step, arguments)))
        self._given.outputs[step.name] = output
        return output

    async def _call(self, step: StepFunction[..., Any], arguments: Mapping[str, Any]) -> Any:
        if not step.is_blocking:
            return await step.function(self._context, **arguments)
        blocking = self._context.blocking
        outcome = await run_in_thread(lambda: step.function(blocking, **arguments), lambda: None)
        if isinstance(outcome, Raised):
            raise outcome.error
        return outcome.value


class _GivenClients(Clients):
    """Clients that a test has made."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__({}, None)
        self._given = given

    async def get(self, kind: str) -> Any:
        """Give the client that was provided."""
        return _from(self._given, "client", kind)


class _FakeBridge:
    """The way from a blocking fake to its own effects: there may be no loop at all."""

    def check(self) -> None:
        """Never cancelled."""

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        result: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                result.append(asyncio.run(work))
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised again in the caller's thread
                errors.append(error)

        thread = threading.Thread(target=run)  # of its own, because the caller's may have a running loop
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return result[0]

    def tell(self, function: Callable[..., None], *values: Any) -> None:
        function(*values)


def _from(given: Mapping[str, Any], what: str, name: str) -> Any:
    if name in given:
        return given[name]
    cure = {"client": f'@provides("{name}")', "agent": "start the agent", "fleet": "start its agents"}[what]
    article = "an" if what == "agent" else "a"
    label = f"a client of kind {name!r}" if what == "client" else f"{article} {what} {name!r}"
    raise not_provided(label, given, cure, f".with_{what}({name!r}, ...)")


def _provider_of(client: Any) -> Callable[[Any], AsyncGenerator[Any]]:
    async def provide(_: Any) -> AsyncGenerator[Any]:
        yield client

    return provide
