"""Operations that an agent has beside those of its class, labels that it knows itself, and what a session keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from pydantic import Field

from labwright import Agent, Session, operation
from labwright.agents.handle import AgentHandle
from labwright.agents.operation import AnyOperation, Made, made_operation
from labwright.agents.passed_parameters import PassedParameters
from labwright.core.errors import ConflictError, NotFoundError, ParameterError, UsageError
from labwright.core.model import Model, OperationKind, SessionState
from labwright.plan.parameters import Parameters
from tests.agents.conftest import Serve
from tests.support.waiting import until

Handle = Callable[..., AgentHandle]


class NoOptions(Model):
    """No parameters."""


class Cell(Model):
    """Which cell."""

    cell: int = Field(0, description="Which cell.")


def cleaning(name: str, *, is_free: Callable[[], bool] = lambda: True) -> AnyOperation:
    """Make an operation that says its name."""

    def admit(params: Mapping[str, Any]) -> None:
        if not is_free():
            raise ConflictError(f"the cell {params['cell']} is not free")

    async def clean(agent: Rack, session: Session, /, cell: int) -> str:
        await agent.gate.wait()
        return f"{session.operation} {cell}"

    made = Made(doc="Clean a cell.", parameters=Parameters(name, Cell, what="operation"), admit=admit)
    return made_operation(clean, made, name=name, kind=OperationKind.TASK, timeout=60)


class Rack(Agent):
    """A rack whose trays come and go."""

    def __init__(self) -> None:
        self.trays: list[AnyOperation] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_free = True

    def own_labels(self) -> Mapping[str, str]:
        return {"room": "4", "owner": self.name}

    def more_operations(self) -> Iterable[AnyOperation]:
        return self.trays

    @operation
    async def check(self, session: Session) -> None:
        """Check it."""

    def bring(self, *trays: AnyOperation) -> None:
        self.trays = list(trays)
        self.operations_changed()


async def test_operations_come_and_go_and_the_revision_tells(serve: Serve, handle: Handle) -> None:
    rack = Rack()
    async with serve(rack):
        before = await handle().describe()
        rack.bring(cleaning("clean-1"), cleaning("clean-2"))
        brought = await handle().describe()
        done = await handle().operation("clean-1")(cell=3)
        rack.bring(cleaning("clean-2"))
        after = await handle().describe()

        assert [each["name"] for each in before["operations"]] == ["check"]
        assert [each["name"] for each in brought["operations"]] == ["check", "clean-1", "clean-2"]
        assert brought["operations"][1]["doc"] == "Clean a cell."
        assert brought["operations"][1]["params"]["properties"]["cell"]["type"] == "integer"
        assert len({each["revision"] for each in (before, brought, after)}) == 3
        assert done.result == "clean-1 3"
        with pytest.raises(NotFoundError, match="no operation 'clean-1'"):
            await handle().operation("clean-1").start()
        with pytest.raises(ParameterError, match="a parameter does not fit"):
            await handle().operation("clean-2").start(cell="left")


async def test_a_session_goes_on_when_its_operation_is_gone(serve: Serve, handle: Handle) -> None:
    rack = Rack()
    async with serve(rack):
        rack.bring(cleaning("clean-1"))
        rack.gate.clear()
        session = await handle().operation("clean-1").start(cell=1)
        rack.bring()
        rack.gate.set()

        ended = await session.wait()

        assert (ended.state, ended.result) == (SessionState.SUCCEEDED, "clean-1 1")


async def test_a_start_may_be_refused_for_what_is_known_now_and_found_again_all_the_same(
    serve: Serve, handle: Handle
) -> None:
    rack = Rack()
    async with serve(rack):
        rack.bring(cleaning("clean-1", is_free=lambda: rack.is_free))
        clean = handle().operation("clean-1").with_options(key="once")
        first = await clean.start(cell=1)
        rack.is_free = False

        again = await clean.start(cell=1)

        assert again.id == first.id
        with pytest.raises(ConflictError, match="the cell 2 is not free"):
            await handle().operation("clean-1").start(cell=2)


async def test_two_operations_of_one_name_are_refused_and_nothing_changes(serve: Serve, handle: Handle) -> None:
    rack = Rack()
    async with serve(rack):
        rack.bring(cleaning("clean-1"))
        with pytest.raises(UsageError, match="two operations named 'check'"):
            rack.bring(cleaning("check"))
        described = await handle().describe()

        assert [each["name"] for each in described["operations"]] == ["check", "clean-1"]


def test_what_blocks_cannot_be_made_at_run_time() -> None:
    def clean(agent: Any, session: Session) -> None: ...

    made = Made(doc="", parameters=Parameters("clean", NoOptions, what="operation"))
    with pytest.raises(UsageError, match="cannot be made at run time"):
        made_operation(clean, made, name="clean", kind=OperationKind.TASK, timeout=None)


async def test_labels_that_an_agent_knows_itself_are_announced_and_given_ones_count_more(
    serve: Serve, handle: Handle
) -> None:
    async with serve(Rack(), labels={"room": "5"}):
        assert (await handle().describe())["labels"] == {"room": "5", "owner": "a1"}


class Forgetful(Agent):
    """Keeps what it has chosen."""

    @operation(adopt=True)
    async def choose(self, session: Session) -> list[str]:
        """Choose once, then wait for the agent's successor to be asked."""
        if "chosen" in session.kept:
            return list(session.kept["chosen"])
        session.keep(chosen=[session.agent])
        session.keep(more=1)
        session.update(kept=True)
        await asyncio.sleep(60)
        return []


async def test_what_a_session_keeps_is_there_when_its_agent_has_a_successor(serve: Serve, handle: Handle) -> None:
    async with serve(Forgetful) as server:
        session = await handle().operation("choose").with_options(timeout_s=120).start()

        async def keeps() -> bool:
            return bool((await session.status()).data.get("kept"))

        await until(keeps)
        server.leave_scripts = True
    async with serve(Forgetful):
        ended = await session.wait(30)

    assert (ended.state, ended.result) == (SessionState.SUCCEEDED, ["a1"])


def test_parameters_that_are_passed_on_are_known_by_their_schemas() -> None:
    first = {"properties": {"bands": {"type": "array"}, "duration": {"$ref": "#/$defs/S"}}, "required": ["duration"]}
    second = {
        "properties": {"duration": {"type": "number"}, "tag": {"type": "string"}},
        "required": ["duration", "tag"],
    }
    parameters = PassedParameters("take", Cell, [{**first, "$defs": {"S": {"type": "number"}}}, second])

    schema = parameters.schema()

    assert list(schema["properties"]) == ["duration", "tag", "bands", "cell"]
    assert schema["properties"]["duration"] == {"$ref": "#/$defs/S"}
    assert (schema["required"], schema["$defs"]) == (["duration"], {"S": {"type": "number"}})
    assert parameters.validated({"duration": float("nan")}) == {"duration": {"$float": "nan"}, "cell": 0}
    assert parameters.passed({"duration": 3, "cell": 1}) == {"duration": 3}
    assert parameters.typed({"duration": 3, "cell": "1"}) == {"duration": 3, "cell": 1}
    with pytest.raises(ParameterError) as wrong:
        parameters.validated({"band": [0], "cell": "left"})
    assert [finding.partition(":")[0] for finding in wrong.value.findings] == ["band", "cell", "duration"]


def test_whatever_a_schema_leaves_open_is_passed_on() -> None:
    parameters = PassedParameters("take", Cell, [{"properties": {}, "additionalProperties": True}])

    assert parameters.validated({"anything": 1}) == {"anything": 1, "cell": 0}
    assert parameters.schema()["additionalProperties"] is True
