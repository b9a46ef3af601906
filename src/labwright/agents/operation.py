"""Operations: the named things that an agent can do, marked on its methods with `@operation` and `@process`.

A task ends by itself, a process runs until it is stopped. The decorators only describe; an agent's server runs them.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from labwright.core.errors import UsageError
from labwright.core.ids import checked_name
from labwright.core.model import OperationKind
from labwright.core.roles import Role, checked_role
from labwright.plan.parameters import Parameters
from labwright.plan.steps import Argument, Signature, annotations_of

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")

GRACE_S = 5.0
"""Seconds that an operation has for its clean-up after it was told to end."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an operation is run: see `operation`."""

    timeout: float | None = None
    locks: tuple[str, ...] = ()
    queue: bool = False
    startup: bool | Mapping[str, Any] = False
    at_once: int = 1
    adopt: bool = False
    thread: bool = False
    grace: float = GRACE_S
    role: Role = Role.OPERATOR


def _admit(_params: Mapping[str, Any]) -> None:
    """Refuse nothing."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What an operation that is made at run time is told, where others have their function's docstring and signature.

    `admit` is given the parameters of each new session, and raises what it is refused with.
    """

    doc: str
    parameters: Parameters
    admit: Callable[[Mapping[str, Any]], None] = _admit


@dataclass(frozen=True, eq=False)
class Operation(Generic[A, P, T]):
    """One operation's definition; on an agent's object it is the method itself, for other methods and for tests."""

    function: Callable[Concatenate[A, P], T]
    name: str
    kind: OperationKind
    options: Options
    made: Made | None = None

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Operation[A, P, T]: ...

    @overload
    def __get__(self, instance: A, owner: type[Any]) -> Callable[P, T]: ...

    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        """Give the definition from the class, the method from an object."""
        return self if instance is None else functools.partial(self.function, instance)

    @property
    def is_blocking(self) -> bool:
        """Tell whether it is a plain `def`, which runs in a child process or in a thread."""
        return not inspect.iscoroutinefunction(self.function)

    @property
    def in_child(self) -> bool:
        """Tell whether it runs in a child process of its own."""
        return self.is_blocking and not self.options.thread

    @property
    def is_adoptable(self) -> bool:
        """Tell whether a restarted agent takes up a session of it that its predecessor left."""
        return self.in_child or self.options.adopt

    @property
    def doc(self) -> str:
        """Tell what it does, as its docstring says."""
        return self.made.doc if self.made is not None else inspect.getdoc(self.function) or ""

    def admit(self, params: Mapping[str, Any]) -> None:
        """Raise what a new session with these parameters is to be refused with, if it is."""
        if self.made is not None:
            self.made.admit(params)

    @functools.cached_property
    def parameters(self) -> Parameters:
        """What it takes beside its session."""
        if self.made is not None:
            return self.made.parameters
        bound = functools.partial(self.function, None)  # pyright: ignore[reportCallIssue, reportArgumentType]
        signature = Signature.of(bound, f"the operation {self.name!r}")
        hints = annotations_of(bound)
        return Parameters.of_arguments(
            self.name,
            [
                Argument(name=argument.name, annotation=hints.get(argument.name, Any), default=argument.default)
                for argument in signature.arguments
            ],
            takes_any=signature.takes_any,
            what="operation",
        )

    def describe(self) -> dict[str, Any]:
        """Tell everything about it but its code, with the JSON Schema of its parameters."""
        return {
            "name": self.name,
            "kind": self.kind.value,
            "doc": self.doc,
            "params": self.parameters.schema(),
            "timeout": self.options.timeout,
            "locks": list(self.options.locks),
            "queue": self.options.queue,
            "startup": self.options.startup if isinstance(self.options.startup, bool) else dict(self.options.startup),
            "at_once": self.options.at_once,
            "role": self.options.role.value,
        }

    def __repr__(self) -> str:
        return f"<{self.kind.value} {self.name}>"


AnyOperation = Operation[Any, Any, Any]


@overload
def operation(function: Callable[Concatenate[A, P], T], /) -> Operation[A, P, T]: ...


@overload
def operation(
    *,
    timeout: float | None = 3600,
    lock: str | Sequence[str] = (),
    queue: bool = False,
    startup: bool | Mapping[str, Any] = False,
    at_once: int = 1,
    adopt: bool = False,
    thread: bool = False,
    grace: float = GRACE_S,
    role: str = Role.OPERATOR,
    name: str | None = None,
) -> Callable[[Callable[Concatenate[A, P], T]], Operation[A, P, T]]: ...


def operation(function: Any = None, /, *, timeout: float | None = 3600, name: str | None = None, **options: Any) -> Any:
    """Make a method of an agent an operation that ends by itself (a task).

    The method takes a session and named, typed arguments. `async def` runs on the agent's loop; `def` runs in a child
    process, where an abort can really end it, or with `thread=True` in a thread of the agent, which shares `self`.

    `timeout` is how many seconds a session may last; a call may say otherwise. `lock` names what it must have for
    itself: busy, it is refused at once, or with `queue` it waits its turn. `startup` starts it whenever the agent
    starts; a mapping gives its parameters. `at_once` sessions may run at the same time. With `adopt` a restarted agent
    calls it again for a session that its predecessor left, and scripts that it starts are found, not started twice.
    `grace` is how many seconds it may take for its clean-up when it is told to end. `role` is what somebody must be to
    start it: viewer, operator, expert or admin.

    >>> class Pump:
    ...     @operation(timeout=60, lock="pump")
    ...     async def dispense(self, session, volume_ml: float) -> float:
    ...         return volume_ml
    >>> Pump.dispense
    <task dispense>

    Raises:
        UsageError: the method cannot be an operation, or an option is out of range.
    """
    return _decorator(function, OperationKind.TASK, name, timeout, options)


@overload
def process(function: Callable[Concatenate[A, P], T], /) -> Operation[A, P, T]: ...


@overload
def process(
    *,
    timeout: float | None = None,
    lock: str | Sequence[str] = (),
    queue: bool = False,
    startup: bool | Mapping[str, Any] = False,
    at_once: int = 1,
    adopt: bool = False,
    thread: bool = False,
    grace: float = GRACE_S,
    role: str = Role.OPERATOR,
    name: str | None = None,
) -> Callable[[Callable[Concatenate[A, P], T]], Operation[A, P, T]]: ...


def process(function: Any = None, /, *, timeout: float | None = None, name: str | None = None, **options: Any) -> Any:
    """Make a method of an agent an operation that runs until it is stopped (a process).

    It watches for the word to stop: `async for _ in session.every(10)` ends then, and so does `session.sleep`. One that
    has not ended `grace` seconds after it was asked to stop is cancelled. The options are those of `operation`.

    Raises:
        UsageError: the method cannot be an operation, or an option is out of range.
    """
    return _decorator(function, OperationKind.PROCESS, name, timeout, options)


def operations_of(agent: type[Any]) -> dict[str, AnyOperation]:
    """List the operations of an agent's class by name, inherited ones first.

    Raises:
        UsageError: two of them have one name.
    """
    members: dict[str, Any] = {}
    for base in reversed(agent.__mro__):
        members.update(vars(base))
    found: dict[str, AnyOperation] = {}
    for attribute, member in members.items():
        if not isinstance(member, Operation):
            continue
        if member.name in found:
            raise UsageError(
                f"{agent.__name__} has two operations named {member.name!r}",
                because=f"one of them is the method {attribute!r}",
                cure="give one of them another name",
            )
        found[member.name] = member
    return found


def made_operation(
    function: Callable[..., Any],
    made: Made,
    *,
    name: str,
    kind: OperationKind,
    timeout: float | None,
    **options: Any,
) -> AnyOperation:
    """Make an operation at run time, for `Agent.more_operations`; `function` is a coroutine function, as a method is.

    Raises:
        UsageError: the function cannot be an operation, or an option is out of range.
    """
    defined = _define(function, kind=kind, name=name, timeout=timeout, options=options)
    if defined.is_blocking:
        raise UsageError(
            f"the operation {name!r} cannot be made at run time",
            because="its function blocks, and a child process knows the operations of the class only",
            cure="write `async def`",
        )
    return replace(defined, made=made)


def _decorator(
    function: Any, kind: OperationKind, name: str | None, timeout: float | None, options: Mapping[str, Any]
) -> Any:
    if function is None:
        return functools.partial(_define, kind=kind, name=name, timeout=timeout, options=options)
    return _define(function, kind=kind, name=name, timeout=timeout, options=options)


def _define(
    function: Any, *, kind: OperationKind, name: str | None, timeout: float | None, options: Mapping[str, Any]
) -> AnyOperation:
    if not inspect.isfunction(function):
        raise UsageError(
            f"{function!r} cannot be an operation",
            because="it must be a method of an agent, `def` or `async def`",
            cure="write `@operation` above a method",
        )
    label = checked_name(name or function.__name__, "operation")
    _check_shape(function, label)
    chosen = dict(options)
    lock = chosen.pop("lock", ())
    locks = (lock,) if isinstance(lock, str) else tuple(dict.fromkeys(lock))
    chosen["role"] = checked_role(chosen.get("role", Role.OPERATOR), f"the operation {label!r}")
    made = Options(timeout=timeout, locks=tuple(checked_name(each, "lock") for each in locks), **chosen)
    _check_options(made, label, is_async=inspect.iscoroutinefunction(function))
    return Operation(function, label, kind, made)


def _check_shape(function: Callable[..., Any], name: str) -> None:
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise UsageError(
            f"the operation {name!r} yields",
            because="an operation returns its result once",
            cure="show what happens on the way with session.update(...)",
        )
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    parameters = list(inspect.signature(function).parameters.values())
    if len([parameter for parameter in parameters[:2] if parameter.kind in positional]) < 2:  # noqa: PLR2004 - self and session
        raise UsageError(
            f"the operation {name!r} takes no session",
            because="its arguments are always self, session and then its parameters",
            cure=f"write `def {function.__name__}(self, session, ...)`",
        )
    Signature.of(functools.partial(function, None), f"the operation {name!r}")


def _check_options(options: Options, name: str, *, is_async: bool) -> None:
    for option in ("timeout", "grace"):
        value = getattr(options, option)
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise UsageError(
                f"the {option} of the operation {name!r} cannot be {value!r}",
                because="it is a number of seconds above 0",
                cure="leave it out to take the default",
            )
    if options.at_once < 1:
        raise UsageError(
            f"at_once of the operation {name!r} cannot be {options.at_once!r}",
            because="at least one session must be able to run",
            cure="leave it out for one at a time",
        )
    if options.thread and is_async:
        raise UsageError(
            f"the operation {name!r} is async and cannot run in a thread",
            because="`thread=True` is for a plain `def`",
            cure="write `def`, or leave `thread` out",
        )
