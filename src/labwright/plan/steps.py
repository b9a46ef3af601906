"""Steps: the functions that a task is made of, each safe to run more than once.

A step takes a context and named arguments; the names say where the values come from: a parameter of the task, or the
output of an earlier step (`output_of`).
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast, get_type_hints, overload

from labwright.core.errors import UsageError
from labwright.core.ids import checked_name

P = ParamSpec("P")
T = TypeVar("T")

ABSENT: Final = inspect.Parameter.empty
"""In place of a default or an annotation that an argument does not have."""


@dataclass(frozen=True)
class OutputOf:
    """The default of an argument that takes the output of an earlier step."""

    step: str


def output_of(step: str) -> Any:
    """Take the output of the nearest earlier step of that name, as the default of a step's argument.

    >>> @step
    ... async def upload(ctx, report=output_of("write_report")): ...
    """
    return OutputOf(step)


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One named argument of a step or of a task's function."""

    name: str
    annotation: Any = ABSENT
    default: Any = ABSENT

    @property
    def is_required(self) -> bool:
        """Tell whether a value must be given."""
        return self.default is ABSENT

    @property
    def source(self) -> str | None:
        """Name the step whose output it takes, if it takes one."""
        return self.default.step if isinstance(self.default, OutputOf) else None


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a step's function takes beside its context; `takes_any` is a function with `**anything`."""

    arguments: tuple[Argument, ...]
    takes_any: bool = False

    @classmethod
    def of(cls, function: Callable[..., Any], what: str) -> Signature:
        """Read what a function takes.

        Raises:
            UsageError: it takes no context, or has arguments that cannot be given by name.
        """
        parameters = list(inspect.signature(function).parameters.values())
        if not parameters or parameters[0].kind not in {
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        }:
            raise UsageError(
                f"{what} takes no context",
                because="its first argument is always the context",
                cure="write `def name(ctx, ...)` or `async def name(ctx, ...)`",
            )
        named = [parameter for parameter in parameters[1:] if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
        for parameter in named:
            if parameter.kind in {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL}:
                raise UsageError(
                    f"{what} takes {parameter}, which cannot be given by name",
                    because="after the context, arguments are given by name",
                    cure=f"make {parameter.name!r} a named argument",
                )
        arguments = tuple(
            Argument(name=parameter.name, annotation=parameter.annotation, default=parameter.default)
            for parameter in named
        )
        return cls(arguments=arguments, takes_any=len(named) < len(parameters) - 1)


@dataclass(frozen=True, eq=False)
class StepFunction(Generic[P, T]):
    """A step's definition: a function, under a name; calling it calls the function, as tests do."""

    function: Callable[P, T]
    name: str
    signature: Signature
    repeat: bool = True
    is_blocking: bool = False
    asks: Callable[..., Any] | None = None
    """The condition of a step made by `wait_for`."""

    def __post_init__(self) -> None:
        for name in (*functools.WRAPPER_ASSIGNMENTS, "__wrapped__"):
            wrapped = self.asks or self.function
            object.__setattr__(self, name, wrapped if name == "__wrapped__" else getattr(wrapped, name, None))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function itself: no retries, no records."""
        return self.function(*args, **kwargs)

    @property
    def doc(self) -> str:
        """Tell what the step does, as its docstring says."""
        return inspect.getdoc(self.asks or self.function) or ""

    def hints(self) -> Mapping[str, Any]:
        """Give the types of the arguments, as far as their annotations can be read."""
        return annotations_of(self.asks or self.function)

    def __repr__(self) -> str:
        return f"<step {self.name}>"


@overload
def step(function: Callable[P, T], /) -> StepFunction[P, T]: ...


@overload
def step(*, repeat: bool = True, name: str | None = None) -> Callable[[Callable[P, T]], StepFunction[P, T]]: ...


def step(function: Any = None, /, *, repeat: bool = True, name: str | None = None) -> Any:
    """Make a function a step; `async def`, or `def`, which runs in a thread with a blocking context.

    A step may run more than once: after a crash, or when an error that may pass is tried again. With `repeat=False` a
    record is written before it runs, and after a crash in it the run fails with kind `lost` instead of repeating it.

    >>> @step
    ... async def greet(ctx, name: str) -> str:
    ...     return f"Hello {name}"
    >>> greet
    <step greet>

    Raises:
        UsageError: the function cannot be a step.
    """
    if function is None:
        return functools.partial(_define, name=name, repeat=repeat)
    return _define(function, name=name, repeat=repeat)


def wait_for(
    condition: Callable[..., Any], *, every: float = 5, timeout: float = 300, name: str | None = None
) -> StepFunction[..., Any]:
    """Make a step that asks a condition until it holds, `every` so many seconds, without holding a worker meanwhile.

    The condition takes a context and named arguments like a step, and its first true answer is the step's output. When
    `timeout` seconds have passed the run fails with kind `timeout`. Errors that it raises count like those of a step.

    Raises:
        UsageError: the condition is no function of a context, or a duration is out of range.
    """
    function = condition.function if isinstance(condition, StepFunction) else condition
    _check_function(function, "a condition")
    label = name or _name_of(cast("Any", condition))
    _check_seconds("every", every, f"wait_for({label})")
    _check_seconds("timeout", timeout, f"wait_for({label})")

    async def asked(ctx: Any, **named: Any) -> Any:
        ask = functools.partial(function, ctx, **named)
        return await ctx.wait_until(ask, every=every, timeout=timeout, text=label)

    def asked_in_thread(ctx: Any, **named: Any) -> Any:
        ask = functools.partial(function, ctx, **named)
        return ctx.wait_until(ask, every=every, timeout=timeout, text=label)

    is_blocking = not inspect.iscoroutinefunction(function)
    return StepFunction(
        asked_in_thread if is_blocking else asked,
        checked_name(label, "step"),
        Signature.of(function, f"the condition {label!r}"),
        is_blocking=is_blocking,
        asks=function,
    )


def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Read the types of a function's arguments; one whose annotation cannot be read (yet) is Any."""
    target = inspect.unwrap(function.func if isinstance(function, functools.partial) else function)
    names = getattr(target, "__globals__", {})
    found: dict[str, Any] = {}
    for name, annotation in getattr(target, "__annotations__", {}).items():
        holder = SimpleNamespace(__annotations__={name: annotation})
        try:
            found[name] = get_type_hints(holder, globalns=names, include_extras=True)[name]
        except Exception:  # noqa: BLE001 - an annotation may be any expression; what cannot be read is not checked
            found[name] = Any
    return found


def _define(function: Any, *, name: str | None, repeat: bool) -> StepFunction[..., Any]:
    _check_function(function, "a step")
    label = checked_name(name or _name_of(function), "step")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise UsageError(
            f"the step {label!r} yields", because="a step returns its output once", cure="return a list, or make steps"
        )
    return StepFunction(
        function,
        label,
        Signature.of(function, f"the step {label!r}"),
        repeat=repeat,
        is_blocking=not inspect.iscoroutinefunction(function),
    )


def _check_function(function: Any, what: str) -> None:
    if not callable(function) or isinstance(function, type | StepFunction):
        raise UsageError(
            f"{function!r} cannot be {what}",
            because="it must be a function of a context, `def` or `async def`",
            cure="write `@step` above a function",
        )


def _check_seconds(name: str, value: float, where: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise UsageError(
            f"{where}: {name} cannot be {value!r}", because="it is a number of seconds above 0", cure="mend it"
        )


def _name_of(function: Any) -> str:
    inner = function.func if isinstance(function, functools.partial) else function
    return getattr(inner, "__name__", type(inner).__name__)
