"""What a step may ask of its context: each test runs in a real execution and on the fake context alike."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from labwright.core.errors import NotProvidedError, TransientError, UsageError, WaitTimeoutError
from labwright.core.model import Event, Target
from labwright.core.request import Request
from labwright.plan.providers import Provider
from labwright.plan.tasks import Task, step
from labwright.run.context import BlockingContext, TaskContext
from labwright.run.execution import Execution, Failed, Waiting
from labwright.testing import FakeContext, ManualClock
from tests.run.memory import AT, Memory, make_run, make_services

Body = Callable[[TaskContext], Awaitable[Any]]
BlockingBody = Callable[[BlockingContext], Any]


@dataclass
class World:
    """A step's surroundings, real or fake; `lines`, `progressed` and `children` tell what it did."""

    is_real: bool
    value: Any = None
    given: dict[str, Any] = field(default_factory=dict[str, Any])
    memory: Memory = field(default_factory=Memory)
    clock: ManualClock = field(default_factory=ManualClock)

    @property
    def fake(self) -> FakeContext:
        fake = FakeContext(clock=self.clock)
        for name, value in self.given.items():
            match name:
                case "clients" | "agents":
                    for kind, item in value.items():
                        fake = fake.with_client(kind, item) if name == "clients" else fake.with_agent(kind, item)
                case _:
                    fake = getattr(fake, f"with_{name}")(value)
        return fake

    async def run(self, body: Body) -> Any:
        """Give what the body returns, raise what it raises."""
        if not self.is_real:
            fake = self.fake
            try:
                return await body(fake)
            finally:
                self._copy(fake)
        caught: list[BaseException] = []

        async def captured(ctx: TaskContext) -> Any:
            try:
                self.value = await body(ctx)
            except BaseException as error:
                caught.append(error)
                raise

        await self._execute(captured, caught)
        return self.value

    async def run_blocking(self, body: BlockingBody) -> Any:
        """The same for a blocking step."""
        if not self.is_real:
            fake = self.fake
            try:
                return await asyncio.to_thread(body, fake.blocking)
            finally:
                self._copy(fake)
        caught: list[BaseException] = []

        def captured(ctx: BlockingContext) -> Any:
            try:
                self.value = body(ctx)
            except BaseException as error:
                caught.append(error)
                raise

        await self._execute(captured, caught)
        return self.value

    async def _execute(self, body: Any, caught: list[BaseException]) -> None:
        run = make_run()
        for _ in range(100):
            end = await Execution(self._task(body), run, self.memory, self._services()).run()
            if isinstance(end, Waiting):
                caught.clear()
                self.clock.advance((end.until - self.clock.now()).total_seconds())
                waits = {**run.waits, f"{end.position}:{end.number}": end.until}
                run = run.model_copy(update={"waits": waits, "steps": (end.step,)})
                continue
            if caught:
                raise caught[0]
            assert not isinstance(end, Failed), end.error
            return

    def _task(self, body: Any) -> Task:
        return Task("t", steps=[step(body)])

    def _services(self) -> Any:
        given = self.given
        clients = given.get("clients", {})
        agents = given.get("agents")
        return make_services(
            clock=self.clock,
            target=given.get("target"),
            event=given.get("event"),
            providers={kind: Provider(kind, _lender(client)) for kind, client in clients.items()},
            agent=(lambda name, _: agents[name]) if agents else None,
            http_transport=given.get("http"),
        )

    def _copy(self, fake: FakeContext) -> None:
        self.memory.lines = [(line.level, line.text, {"step": "captured", **line.fields}) for line in fake.lines]
        self.memory.progressed = fake.progressed
        self.memory.children = [(request, number) for number, request in enumerate(fake.spawned)]


def _lender(client: Any) -> Any:
    async def lend(target: Any) -> Any:
        yield client

    return lend


@pytest.fixture(params=["real", "fake"])
def world(request: pytest.FixtureRequest) -> World:
    return World(is_real=request.param == "real")


TARGET = Target(name="cluster-7", labels={"env": "prod"}, facts={"url": "http://cluster-7", "name": "shadowed"})


async def test_facts_of_the_target_are_attributes(world: World) -> None:
    world.given["target"] = TARGET

    async def body(ctx: TaskContext) -> Any:
        return [
            ctx.target.url,
            ctx.target.name,
            ctx.target.labels,
            ctx.target.facts["url"],
            hasattr(ctx.target, "port"),
        ]

    assert await world.run(body) == ["http://cluster-7", "cluster-7", {"env": "prod"}, "http://cluster-7", False]


async def ask_target(ctx: TaskContext) -> Any:
    return ctx.target


async def ask_event(ctx: TaskContext) -> Any:
    return ctx.event


async def ask_client(ctx: TaskContext) -> Any:
    return await ctx.client("kubernetes")


async def ask_agent(ctx: TaskContext) -> Any:
    return ctx.agent("pump")


async def ask_fleet(ctx: TaskContext) -> Any:
    return ctx.fleet("crate=1")


async def ask_param(ctx: TaskContext) -> Any:
    return ctx.params.dcid


async def ask_output(ctx: TaskContext) -> Any:
    return ctx.outputs["weigh"]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (ask_target, "target"),
        (ask_event, "event"),
        (ask_client, "kubernetes"),
        (ask_agent, "pump"),
        (ask_fleet, "crate=1"),
        (ask_param, "dcid"),
        (ask_output, "weigh"),
    ],
)
async def test_what_was_not_provided_is_named(world: World, body: Body, name: str) -> None:
    with pytest.raises(NotProvidedError, match=name) as caught:
        await world.run(body)

    assert caught.value.because
    assert caught.value.cure


async def test_a_fact_that_the_target_lacks_is_named(world: World) -> None:
    world.given["target"] = TARGET

    async def body(ctx: TaskContext) -> Any:
        return ctx.target.port

    with pytest.raises(NotProvidedError, match=r"cluster-7.*'port'"):
        await world.run(body)


async def test_what_may_be_absent_can_be_asked_for_softly(world: World) -> None:
    async def body(ctx: TaskContext) -> Any:
        return [ctx.params.get("x", 5), "x" in ctx.outputs, len(ctx.params), getattr(ctx, "event", None)]

    assert await world.run(body) == [5, False, 0, None]


async def test_the_run_says_who_it_is(world: World) -> None:
    async def body(ctx: TaskContext) -> Any:
        return [bool(ctx.run.id), bool(ctx.run.task), ctx.run.cause.kind, ctx.run.key, ctx.run.priority, ctx.attempt]

    assert await world.run(body) == [True, True, "operator", None, 0, 1]


async def test_time_is_the_clocks(world: World) -> None:
    async def body(ctx: TaskContext) -> Any:
        return [ctx.now(), ctx.clock.monotonic(), ctx.cancelled]

    assert await world.run(body) == [AT, 0, False]


async def test_clients_agents_and_events_are_given(world: World) -> None:
    event = Event(id="1", source="s", type="data_collection.end", time=AT)
    world.given |= {"clients": {"kubernetes": "K"}, "agents": {"pump": "P"}, "event": event}

    async def body(ctx: TaskContext) -> Any:
        return [await ctx.client("kubernetes"), ctx.agent("pump"), ctx.event.type]

    assert await world.run(body) == ["K", "P", "data_collection.end"]


async def test_lines_of_the_log_have_text_and_fields(world: World) -> None:
    async def body(ctx: TaskContext) -> None:
        ctx.log.debug("a")
        ctx.log.info("restarted %s", "api", pod=7)
        ctx.log.warning("100 %", "x")
        ctx.log.error("bad", reason="worse")

    await world.run(body)

    assert world.memory.lines == [
        ("debug", "a", {"step": "captured"}),
        ("info", "restarted api", {"step": "captured", "pod": 7}),
        ("warning", "100 % x", {"step": "captured"}),
        ("error", "bad", {"step": "captured", "reason": "worse"}),
    ]


async def test_progress_is_told(world: World) -> None:
    async def body(ctx: TaskContext) -> None:
        ctx.progress(1, 10, "warming up")
        ctx.progress(2)

    await world.run(body)

    assert world.memory.progressed == [(1, 10, "warming up"), (2, None, "")]


async def test_children_are_requested(world: World) -> None:
    async def body(ctx: TaskContext) -> Any:
        return await ctx.spawn(Request("reduce", dcid=5))

    assert (await world.run(body)).startswith("run_")
    assert [request for request, _ in world.memory.children] == [Request("reduce", dcid=5)]


async def test_sleeping_lets_time_pass(world: World) -> None:
    async def body(ctx: TaskContext) -> Any:
        await ctx.sleep(60)
        await ctx.sleep(30)
        return (ctx.now() - AT).total_seconds()

    assert await world.run(body) == 90


@pytest.mark.parametrize("takes_context", [True, False])
async def test_waiting_gives_the_first_true_answer(world: World, takes_context: bool) -> None:
    async def late(ctx: TaskContext) -> str:
        return "late" if ctx.now() >= AT.replace(minute=1) else ""

    async def body(ctx: TaskContext) -> Any:
        answer = await ctx.wait_until(late if takes_context else lambda: late(ctx), every=25)
        return [answer, (ctx.now() - AT).total_seconds()]

    assert await world.run(body) == ["late", 75]


async def test_waiting_for_what_never_comes_ends_with_a_timeout(world: World) -> None:
    async def body(ctx: TaskContext) -> None:
        await ctx.wait_until(lambda: False, every=5, timeout=12)

    with pytest.raises(WaitTimeoutError, match="12 s"):
        await world.run(body)
    assert (world.clock.now() - AT).total_seconds() == 12


async def test_http_answers_come_back(world: World) -> None:
    world.given["http"] = lambda request: httpx.Response(503, json={"path": request.url.path})

    async def body(ctx: TaskContext) -> Any:
        reply = await ctx.http.get("http://x/healthz")
        async with ctx.http.stream("GET", "http://x/stream") as streamed:
            return [reply.is_server_error, reply.json(), (await streamed.aread()) != b""]

    assert await world.run(body) == [True, {"path": "/healthz"}, True]


class Broken(httpx.AsyncByteStream, httpx.SyncByteStream):
    """An answer that breaks off."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"so far"
        raise httpx.ReadError("broken off")

    def __iter__(self) -> Iterator[bytes]:
        yield b"so far"
        raise httpx.ReadError("broken off")


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("refused"), httpx.ReadTimeout("late"), httpx.ConnectTimeout("late")]
)
async def test_no_answer_is_a_transient_error(world: World, error: Exception) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    world.given["http"] = handler

    async def body(ctx: TaskContext) -> None:
        await ctx.http.get("http://x/healthz")

    def blocking_body(ctx: BlockingContext) -> None:
        ctx.http.get("http://x/healthz")

    with pytest.raises(TransientError, match="http://x/healthz"):
        await world.run(body)
    with pytest.raises(TransientError, match="http://x/healthz"):
        await world.run_blocking(blocking_body)


async def test_an_answer_that_breaks_off_is_a_transient_error(world: World) -> None:
    world.given["http"] = lambda request: httpx.Response(200, stream=Broken())

    async def body(ctx: TaskContext) -> None:
        async with ctx.http.stream("GET", "http://x/") as reply:
            await reply.aread()

    def blocking_body(ctx: BlockingContext) -> None:
        with ctx.http.stream("GET", "http://x/") as reply:
            reply.read()

    with pytest.raises(TransientError):
        await world.run(body)
    with pytest.raises(TransientError):
        await world.run_blocking(blocking_body)


async def test_a_wrong_address_is_no_transient_error(world: World) -> None:
    async def body(ctx: TaskContext) -> None:
        await ctx.http.get("nonsense://x/")

    with pytest.raises(httpx.UnsupportedProtocol):
        await world.run(body)


async def test_a_step_has_no_steps_of_its_own() -> None:
    async def inner(ctx: TaskContext) -> None: ...

    async def body(ctx: TaskContext) -> None:
        await ctx.do(step(inner))

    with pytest.raises(UsageError, match="step"):
        await World(is_real=True).run(body)


class TestBlocking:
    async def test_everything_is_there_without_await(self, world: World) -> None:
        world.given |= {"target": TARGET, "clients": {"kubernetes": "K"}}
        world.given["http"] = lambda request: httpx.Response(200, text="ok")

        def body(ctx: BlockingContext) -> Any:
            ctx.log.info("hello")
            ctx.progress(1, 2)
            ctx.sleep(60)
            late = ctx.wait_until(lambda: ctx.now() >= AT.replace(minute=2), every=60)
            return [
                ctx.target.url,
                ctx.client("kubernetes"),
                ctx.http.get("http://x/").text,
                ctx.spawn(Request("child")).startswith("run_"),
                late,
                ctx.cancelled,
            ]

        assert await world.run_blocking(body) == ["http://cluster-7", "K", "ok", True, True, False]
        assert world.memory.lines[-1][1] == "hello"
        assert world.memory.progressed[-1] == (1, 2, "")

    async def test_what_was_not_provided_is_named(self, world: World) -> None:
        with pytest.raises(NotProvidedError, match="kubernetes"):
            await world.run_blocking(lambda ctx: ctx.client("kubernetes"))

    async def test_context_variables_come_along(self) -> None:
        variable = contextvars.ContextVar[str]("variable")
        variable.set("seen")

        assert await World(is_real=True).run_blocking(lambda ctx: variable.get()) == "seen"
