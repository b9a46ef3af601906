"""Tasks: named, re-runnable definitions made of steps, with typed parameters, deadlines and a retry policy.

A task is a list of steps (`Task`) or a function that does steps in any control flow (`@task`).
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, overload

from pydantic import BaseModel, Field

from labwright.core.errors import NotProvidedError, UsageError
from labwright.core.ids import checked_name
from labwright.core.model import Model
from labwright.core.roles import Role, checked_role
from labwright.plan.parameters import Parameters
from labwright.plan.retry import Retry
from labwright.plan.steps import Argument, OutputOf, Signature, StepFunction, annotations_of, output_of, step, wait_for

__all__ = [
    "OutputOf",
    "Retry",
    "StepFunction",
    "Task",
    "TaskDescription",
    "TaskFunction",
    "output_of",
    "step",
    "task",
    "wait_for",
]

TaskFunction = Callable[..., Any]
"""An async function of a context that does steps with `await ctx.do(step, ...)`."""

DEFAULT_RETRY = Retry()


class TaskDescription(Model):
    """A task as dispatcher, command line and console know it: everything but its code."""

    name: str
    doc: str = ""
    steps: tuple[str, ...] = ()
    pool: str = "default"
    locks: tuple[str, ...] = ()
    timeout: float = 3600
    total_timeout: float | None = None
    start_within: float | None = None
    role: Role = Role.OPERATOR
    approve: bool = False
    retry: Retry = Field(default_factory=Retry)
    params: dict[str, Any] = Field(default_factory=dict[str, Any])


@dataclass(frozen=True, eq=False)
class Task:
    """A list of steps under a name.

    All durations are in seconds: each attempt may take `timeout`, all of them together (waiting and pauses included)
    `total_timeout`, and the first must begin `start_within` after the request. One run at a time goes on a target, and
    one per name in `locks`. `role` is what somebody must be to ask for it. With `approve`, every run waits until a
    person has approved it. `params` is a pydantic model; without it, the steps' named arguments are the parameters.

    >>> @step
    ... async def greet(ctx, name: str) -> str:
    ...     return f"Hello {name}"
    >>> Task("greeting", steps=[greet]).validated({"name": "Ada"})
    {'name': 'Ada'}

    Raises:
        UsageError: the definition is not consistent.
    """

    name: str
    _: KW_ONLY
    steps: Sequence[StepFunction[..., Any]] = ()
    params: type[BaseModel] | None = None
    timeout: float = 3600
    total_timeout: float | None = None
    start_within: float | None = None
    retry: Retry = DEFAULT_RETRY
    pool: str = "default"
    locks: Sequence[str] = ()
    role: str = Role.OPERATOR
    approve: bool = False
    doc: str = ""
    function: TaskFunction | None = None

    def __post_init__(self) -> None:
        checked_name(self.name, "task")
        checked_name(self.pool, "pool")
        object.__setattr__(self, "steps", tuple(_checked_steps(self)))
        object.__setattr__(self, "locks", _checked_locks(self))
        object.__setattr__(self, "role", checked_role(self.role, f"the task {self.name!r}"))
        for name in ("timeout", "total_timeout", "start_within"):
            _check_duration(self.name, name, getattr(self, name))
        if self.params is not None:
            _check_arguments_known(self)

    @functools.cached_property
    def parameters(self) -> Parameters:
        """What the task takes."""
        if self.params is not None:
            return Parameters(self.name, self.params)
        signatures = list(_signatures(self))
        return Parameters.of_arguments(
            self.name,
            (
                Argument(name=argument.name, annotation=hints.get(argument.name, Any), default=argument.default)
                for signature, hints in signatures
                for argument in signature.arguments
                if argument.source is None
            ),
            takes_any=any(signature.takes_any for signature, _ in signatures),
        )

    def validated(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Check parameters and give them as JSON has them, with the defaults filled in.

        Raises:
            ParameterError: something does not fit; it lists every finding.
        """
        return self.parameters.validated(params)

    def describe(self) -> TaskDescription:
        """Tell everything about the task but its code."""
        return TaskDescription(
            name=self.name,
            doc=self.doc,
            steps=tuple(step.name for step in self.steps),
            pool=self.pool,
            locks=tuple(self.locks),
            timeout=self.timeout,
            total_timeout=self.total_timeout,
            start_within=self.start_within,
            role=Role(self.role),
            approve=self.approve,
            retry=self.retry,
            params=self.parameters.schema(),
        )

    def __repr__(self) -> str:
        return f"<task {self.name}>"


@overload
def task(function: TaskFunction, /) -> Task: ...


@overload
def task(
    *,
    name: str | None = None,
    params: type[BaseModel] | None = None,
    timeout: float = 3600,
    total_timeout: float | None = None,
    start_within: float | None = None,
    retry: Retry | None = None,
    pool: str = "default",
    locks: Sequence[str] = (),
    role: str = Role.OPERATOR,
    approve: bool = False,
    doc: str | None = None,
) -> Callable[[TaskFunction], Task]: ...


def task(function: TaskFunction | None = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Make a task of an async function, which does its steps with `await ctx.do(step, ...)` in any control flow.

    The name is the function's, with dashes; the parameters are its named arguments. The function runs again from its
    top after a crash, a retry or a sleep, and what it has done is given back from the record instead of done again: so
    it must decide by what its steps return, and leave everything that acts or reads the world to them.

    >>> @step
    ... async def weigh(ctx, sample: int) -> float:
    ...     return 1.5 * sample
    >>> @task(timeout=60)
    ... async def weigh_all(ctx, samples: int = 3):
    ...     return [await ctx.do(weigh, sample=number) for number in range(samples)]
    >>> weigh_all
    <task weigh-all>

    Raises:
        UsageError: the function cannot be a task.
    """
    if function is None:
        return functools.partial(_from_function, name=name, options=options)
    return _from_function(function, name=name, options=options)


def bind(
    definition: StepFunction[..., Any], params: Mapping[str, Any], outputs: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Choose a step's arguments: what was `given` to it, outputs of earlier steps, the task's parameters by name.

    Raises:
        NotProvidedError: an argument without a default is in none of them.
        UsageError: something given is no argument of the step.
    """
    bound: dict[str, Any] = {}
    for argument in definition.signature.arguments:
        if argument.name in given:
            bound[argument.name] = given[argument.name]
        elif argument.source is not None:
            bound[argument.name] = _output(definition, argument.source, outputs)
        elif argument.name in params:
            bound[argument.name] = params[argument.name]
        elif argument.is_required:
            raise NotProvidedError(
                f"the step {definition.name!r} takes {argument.name!r}, which is not there",
                because=f"known are the parameters: {', '.join(params) or 'none'}",
                cure=f"give it a default, or pass {argument.name}=...",
            )
    if definition.signature.takes_any:
        return {**params, **given, **bound}
    if unknown := sorted(set(given) - set(bound)):
        raise UsageError(
            f"the step {definition.name!r} does not take {', '.join(unknown)}",
            because=f"its arguments are: {', '.join(argument.name for argument in definition.signature.arguments)}",
            cure="leave it out",
        )
    return bound


def _output(definition: StepFunction[..., Any], source: str, outputs: Mapping[str, Any]) -> Any:
    if source in outputs:
        return outputs[source]
    raise NotProvidedError(
        f"the step {definition.name!r} takes the output of {source!r}, which has not run",
        because=f"outputs are there of: {', '.join(outputs) or 'no step'}",
        cure="do that step first, or pass the argument",
    )


def _from_function(function: TaskFunction, *, name: str | None, options: Mapping[str, Any]) -> Task:
    if not inspect.iscoroutinefunction(function):
        raise UsageError(
            f"{function!r} cannot be a task",
            because="a task's function is `async def`, so that it can await its steps",
            cure='write `async def`, or use Task("name", steps=[...])',
        )
    chosen = {key: value for key, value in options.items() if value is not None}
    doc = chosen.pop("doc", inspect.getdoc(function) or "")
    Signature.of(function, f"the task {function.__name__!r}")
    return Task(name or function.__name__.replace("_", "-"), function=function, doc=doc, **chosen)


def _signatures(task: Task) -> Iterator[tuple[Signature, Mapping[str, Any]]]:
    if task.function is not None:
        yield Signature.of(task.function, f"the task {task.name!r}"), annotations_of(task.function)
    for definition in task.steps:
        yield definition.signature, definition.hints()


def _checked_steps(task: Task) -> Iterable[StepFunction[..., Any]]:
    if not task.steps and task.function is None:
        raise UsageError(f"the task {task.name!r} has no steps", because="it would do nothing", cure="give it a step")
    earlier: set[str] = set()
    for position, definition in enumerate(task.steps):
        if not isinstance(definition, StepFunction):  # pyright: ignore[reportUnnecessaryIsInstance] - user's input
            raise UsageError(
                f"in the task {task.name!r}, number {position + 1} is no step: {definition!r}",
                because="a task is made of functions marked with @step, and of wait_for(...)",
                cure="write @step above the function",
            )
        for argument in definition.signature.arguments:
            if argument.source is not None and argument.source not in earlier:
                raise UsageError(
                    f"in the task {task.name!r}, {definition.name!r} takes the output of {argument.source!r}",
                    because=f"no step of that name comes before it; before it come: {', '.join(earlier) or 'none'}",
                    cure="mend the name in output_of(...), or the order of the steps",
                )
        earlier.add(definition.name)
        yield definition


def _checked_locks(task: Task) -> tuple[str, ...]:
    if isinstance(task.locks, str):
        raise UsageError(
            f"the locks of the task {task.name!r} are one text", because="it is a list", cure=f"locks=[{task.locks!r}]"
        )
    return tuple(checked_name(lock, "lock") for lock in dict.fromkeys(task.locks))


def _check_duration(task: str, name: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise UsageError(
            f"the {name} of the task {task!r} cannot be {value!r}",
            because="it is a number of seconds above 0",
            cure="leave it out to take the default",
        )


def _check_arguments_known(task: Task) -> None:
    parameters = task.parameters
    for signature, _ in _signatures(task):
        for argument in signature.arguments:
            if argument.is_required and argument.name not in parameters.argument_names and not parameters.takes_any:
                raise UsageError(
                    f"in the task {task.name!r}, a step takes {argument.name!r}, which is no parameter",
                    because=f"its params model has: {', '.join(sorted(parameters.argument_names)) or 'nothing'}",
                    cure="add it to the model, or give the argument a default",
                )
