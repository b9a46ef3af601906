"""Definitions of steps."""

import inspect
from typing import Any

import pytest

from labwright.core.errors import UsageError
from labwright.plan.tasks import StepFunction, output_of, step, wait_for

WRITE = output_of("write")


@step
async def rotate(ctx: Any, days: int = 30) -> int:
    """Rotate it."""
    return days


@step(repeat=False)
def expose(ctx: Any) -> str:
    return "exposed"


async def test_a_step_is_still_its_function() -> None:
    assert await rotate(None, days=5) == 5
    assert expose(None) == "exposed"
    assert rotate.__doc__ == "Rotate it."
    assert getattr(rotate, "__name__", "") == "rotate"
    assert rotate.__module__ == __name__
    assert list(inspect.signature(rotate).parameters) == ["ctx", "days"]


def test_a_step_knows_its_name_kind_and_whether_it_may_be_repeated() -> None:
    assert (rotate.name, rotate.repeat, rotate.is_blocking) == ("rotate", True, False)
    assert (expose.name, expose.repeat, expose.is_blocking) == ("expose", False, True)


def test_attributes_of_the_function_do_not_disturb_the_step() -> None:
    async def odd(ctx: Any) -> None: ...

    odd.name = "else"  # pyright: ignore[reportFunctionMemberAccess]

    assert step(odd).name == "odd"


def test_an_argument_can_name_the_step_whose_output_it_takes() -> None:
    @step
    async def upload(ctx: Any, report: str = WRITE) -> None: ...

    assert [argument.source for argument in upload.signature.arguments] == ["write"]


def no_context() -> None: ...


def positional(ctx: Any, first: int, /) -> None: ...


def many(ctx: Any, *rest: int) -> None: ...


def yielding(ctx: Any) -> Any:
    yield 1


async def async_yielding(ctx: Any) -> Any:
    yield 1


@pytest.mark.parametrize("function", [no_context, positional, many, yielding, async_yielding, 5, int, rotate])
def test_what_cannot_be_a_step_is_refused_when_it_is_defined(function: Any) -> None:
    with pytest.raises(UsageError) as caught:
        step(function)

    assert caught.value.because
    assert caught.value.cure


def test_a_condition_is_a_step_under_its_own_name_and_arguments() -> None:
    async def served(ctx: Any, port: int) -> bool:
        """Whether it is served."""
        return port > 0

    waiting = wait_for(served)

    assert isinstance(waiting, StepFunction)
    assert waiting.name == "served"
    assert waiting.doc == "Whether it is served."
    assert [argument.name for argument in waiting.signature.arguments] == ["port"]


@pytest.mark.parametrize("wrong", [{"every": 0}, {"timeout": -1}, {"every": float("nan")}])
def test_a_condition_needs_positive_durations(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        wait_for(rotate, **wrong)


def test_an_annotation_that_cannot_be_read_is_not_checked() -> None:
    async def later(ctx: Any, thing: "NotThere", count: int) -> None: ...  # noqa: F821 # pyright: ignore[reportUndefinedVariable, reportUnknownParameterType]

    assert step(later).hints()["thing"] is Any
    assert step(later).hints()["count"] is int
