"""The fake context, as users' tests use it."""

import asyncio
import logging
from typing import Any

import httpx
import pytest

from labwright.core.errors import TransientError
from labwright.plan.tasks import output_of, step, task
from labwright.run.context import BlockingContext, TaskContext
from labwright.testing import FakeContext, LogLine, ManualClock

OTHER = output_of("other")


@step
async def api_server_is_up(ctx: TaskContext) -> None:
    reply = await ctx.http.get(f"{ctx.target.url}/healthz")
    if reply.is_server_error:
        raise TransientError("API server not ready", retry_after=30)


@step
def count(ctx: BlockingContext, start: int, more: int = OTHER) -> int:
    ctx.log.info("counting")
    return start + more


async def test_a_step_is_tested_by_calling_it() -> None:
    ctx = FakeContext().with_target("cluster-7", url="http://cluster-7")

    await api_server_is_up(ctx.with_http(lambda request: httpx.Response(200)))
    with pytest.raises(TransientError) as caught:
        await api_server_is_up(ctx.with_http(lambda request: httpx.Response(503)))

    assert caught.value.retry_after == 30


def test_a_blocking_step_is_tested_by_calling_it_with_the_twin() -> None:
    ctx = FakeContext()

    assert count(ctx.blocking, start=1, more=2) == 3
    assert ctx.lines == [LogLine("info", "counting")]


def test_a_copy_with_more_leaves_the_first_as_it_was() -> None:
    first = FakeContext().with_params(a=1)

    second = first.with_params(b=2)

    assert dict(first.params) == {"a": 1}
    assert dict(second.params) == {"a": 1, "b": 2}


async def test_what_a_step_did_can_be_looked_at() -> None:
    ctx = FakeContext(clock=ManualClock())

    await ctx.sleep(5)
    ctx.note("done")
    ctx.set_result(7)

    assert (ctx.slept, ctx.notes, ctx.result) == ([5], ["done"], 7)


def test_lines_go_to_a_list_or_a_logger(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[LogLine] = []

    FakeContext(log=lines).log.info("a", x=1)
    with caplog.at_level(logging.INFO):
        FakeContext(log=logging.getLogger("mine")).log.warning("b", x=1)

    assert lines == [LogLine("info", "a", {"x": 1})]
    assert caplog.messages == ["b {'x': 1}"]


async def test_a_tasks_function_can_be_called_with_it() -> None:
    @task
    async def counting(ctx: TaskContext, *, start: int) -> Any:
        return await ctx.do(count, start=start, more=1)

    assert counting.function is not None
    assert await counting.function(FakeContext().with_params(start=4), start=4) == 5


async def test_a_condition_that_never_holds_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="never held"):
        await FakeContext().wait_until(lambda: False)


async def test_events_outputs_and_fleets_are_provided() -> None:
    ctx = FakeContext().with_event("data_collection.end", subject="5").with_outputs({"weigh-it": (1, 2)})
    ctx = ctx.with_fleet("crate=1", "FLEET")

    assert ctx.event.subject == "5"
    assert ctx.outputs["weigh-it"] == [1, 2]
    assert ctx.fleet("crate=1") == "FLEET"


def test_a_blocking_twin_works_beside_a_running_loop() -> None:
    async def inside() -> Any:
        return FakeContext().with_client("k", "K").blocking.client("k")

    assert asyncio.run(inside()) == "K"
