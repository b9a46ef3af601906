"""Definitions of tasks, and the parameters that they take."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from labwright.core.errors import ParameterError, UsageError
from labwright.plan.tasks import Retry, Task, output_of, step, task, wait_for

REDUCE = output_of("reduce")


@step
async def reduce(ctx: Any, dcid: int, pipeline: str = "dials") -> int:
    return dcid


@step
async def report(ctx: Any, found: int = REDUCE, recipient: str = "nobody") -> None: ...


@step
async def anything(ctx: Any, **rest: Any) -> None: ...


class Cell(BaseModel):
    a: float
    name: str = "P1"


class Params(BaseModel):
    dcid: Annotated[int, Field(gt=0)]
    cell: Cell | None = None
    beamline: str = Field("i03", alias="beam-line")


def test_named_arguments_of_all_steps_are_the_parameters() -> None:
    reducing = Task("reduce", steps=[reduce, report])

    assert reducing.validated({"dcid": 5, "recipient": "me"}) == {"dcid": 5, "pipeline": "dials", "recipient": "me"}


def test_values_are_converted_to_their_types_as_a_command_line_gives_them() -> None:
    assert Task("reduce", steps=[reduce]).validated({"dcid": "993677"})["dcid"] == 993677


def test_every_wrong_parameter_is_named_at_once() -> None:
    with pytest.raises(ParameterError) as caught:
        Task("reduce", steps=[reduce, report]).validated({"dcdi": 1, "pipeline": 7})

    findings = "\n".join(caught.value.findings)
    assert len(caught.value.findings) == 3
    assert "did you mean 'dcid'" in findings
    assert "dcid: it is required" in findings
    assert "pipeline: Input should be a valid string (given: 7)" in findings
    assert caught.value.because
    assert "tasks show reduce" in caught.value.cure


def test_an_output_cannot_be_given_as_a_parameter() -> None:
    with pytest.raises(ParameterError, match="does not fit"):
        Task("reduce", steps=[reduce, report]).validated({"dcid": 1, "found": 3})


def test_a_step_that_takes_anything_lets_everything_through() -> None:
    assert Task("any", steps=[anything]).validated({"x": [1], "schema": None}) == {"x": [1], "schema": None}


def test_a_model_says_what_a_task_takes() -> None:
    reducing = Task("reduce", steps=[reduce], params=Params)

    assert reducing.validated({"dcid": 1, "cell": {"a": 2}, "beam-line": "i04"}) == {
        "dcid": 1,
        "cell": {"a": 2.0, "name": "P1"},
        "beam-line": "i04",
    }
    with pytest.raises(ParameterError, match="2 parameters") as caught:
        reducing.validated({"dcid": 0, "colour": "red"})
    assert "greater than 0" in caught.value.because
    assert reducing.parameters.typed({"dcid": 1, "cell": {"a": 2}})["cell"] == Cell(a=2)


def test_validated_parameters_are_json_and_valid_again() -> None:
    @step
    async def odd(ctx: Any, at: datetime, id: UUID, raw: bytes = b"\xff", limit: float = float("inf")) -> None: ...

    plain = Task("odd", steps=[odd]).validated(
        {
            "at": datetime(2026, 1, 2, tzinfo=UTC),
            "id": "12345678-1234-5678-1234-567812345678",
        }
    )

    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    typed = Task("odd", steps=[odd]).parameters.typed(plain)
    assert typed == {
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "id": UUID("12345678-1234-5678-1234-567812345678"),
        "raw": b"\xff",
        "limit": float("inf"),
    }


@given(
    st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.booleans() | st.text(), st.lists, max_leaves=4))
)
def test_any_parameters_are_taken_or_refused_with_findings(params: dict[str, Any]) -> None:
    try:
        plain = Task("reduce", steps=[reduce, report]).validated(params)
    except ParameterError as error:
        assert error.findings  # noqa: PT017 - either way is right
    else:
        assert plain["dcid"] is not None


def test_an_argument_without_a_default_in_any_step_is_required() -> None:
    @step
    async def gentle(ctx: Any, dcid: int = 3) -> None: ...

    with pytest.raises(ParameterError, match="does not fit"):
        Task("both", steps=[gentle, reduce]).validated({})


def test_a_default_that_json_cannot_say_stays_with_the_step() -> None:
    marker = object()

    @step
    async def odd(ctx: Any, thing: Any = marker) -> None: ...

    assert Task("odd", steps=[odd]).validated({}) == {}
    assert Task("odd", steps=[odd]).parameters.typed({})["thing"] is marker


@pytest.mark.parametrize("name", ["schema", "json", "model_config", "copy", "_private", "validate"])
def test_any_name_may_be_a_parameter(name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"async def odd(ctx, *, {name}: int): ...", namespace)

    assert Task("odd", steps=[step(namespace["odd"])]).validated({name: "4"}) == {name: 4}


def test_a_description_goes_through_json() -> None:
    reducing = Task("reduce", steps=[reduce, report], locks=["beam"], retry=Retry(attempts=2), doc="Reduce.")

    description = reducing.describe()

    assert description.steps == ("reduce", "report")
    assert description.params["required"] == ["dcid"]
    assert type(description).model_validate_json(description.model_dump_json()) == description


def test_a_function_makes_a_task_named_like_it() -> None:
    @task(timeout=60, locks=["beam"])
    async def take_samples(ctx: Any, *, count: int = 3) -> int:
        """Take samples."""
        return count

    assert take_samples.name == "take-samples"
    assert take_samples.doc == "Take samples."
    assert take_samples.timeout == 60
    assert take_samples.validated({"count": "5"}) == {"count": 5}
    with pytest.raises(ParameterError, match="does not fit"):
        take_samples.validated({"count": "many"})


def test_a_bare_decorator_makes_a_task_too() -> None:
    @task
    async def probe(ctx: Any) -> None: ...

    assert (probe.name, probe.steps) == ("probe", ())


@pytest.mark.parametrize(
    "define",
    [
        lambda: Task("empty", steps=[]),
        lambda: Task("bad name", steps=[reduce]),
        lambda: Task("later", steps=[report, reduce]),
        lambda: Task("plain", steps=[lambda ctx: None]),  # pyright: ignore[reportArgumentType]
        lambda: Task("short", steps=[reduce], timeout=0),
        lambda: Task("lock", steps=[reduce], locks="beam"),
        lambda: Task("model", steps=[reduce], params=Cell),
        lambda: task(lambda ctx: None),
    ],
)
def test_an_inconsistent_definition_is_refused_at_once(define: Any) -> None:
    with pytest.raises(UsageError) as caught:
        define()

    assert caught.value.because
    assert caught.value.cure


def test_a_wait_takes_parameters_like_any_step() -> None:
    def served(ctx: Any, port: int) -> bool:
        return port > 0

    assert Task("wait", steps=[wait_for(served)]).validated({"port": "80"}) == {"port": 80}


def test_importing_tasks_is_light() -> None:
    code = "import sys, labwright.plan.tasks; sys.exit('httpx' in sys.modules or 'nats' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
