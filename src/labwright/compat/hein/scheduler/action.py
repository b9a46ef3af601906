"""Actions: functions with default arguments, registered by name, and each execution of one with what is known of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar, cast

from labwright.compat.hein.errors import UnknownError, WrongKindError, WrongValueError
from labwright.core.clock import Clock, SystemClock

Waits = Generator[float, None, Any]
"""An action that yields how many seconds are to pass before it goes on."""


class SchedulerAction:
    """A callable with default arguments, which can be named from then on.

    Two functions of the same name are two actions; the name stands for the newer one.

    Raises:
        WrongKindError: it cannot be called.
        WrongValueError: it is registered already.
    """

    _registry: ClassVar[list[SchedulerAction]] = []

    def __init__(self, action: Callable[..., Any], *default_args: Any, **default_kwargs: Any) -> None:
        if not callable(action):
            raise WrongKindError(
                f"{action!r} is no action",
                because="an action is something that can be called",
                cure="give the function itself, without brackets",
            )
        if self._of(action) is not None:
            raise WrongValueError(
                f"the action {name_of(action)!r} is registered already",
                because="a callable has one set of default arguments",
                cure="use SchedulerAction.register_action instead, which gives the one that is there",
            )
        self.action = action
        self.default_args = default_args
        self.default_kwargs = default_kwargs
        self.error: bool | None = None
        """Whether the last execution of all has failed; each execution knows for itself."""
        self.error_details: BaseException | None = None
        SchedulerAction._registry.append(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it, and keep how that has ended."""
        try:
            result = self.action(*args, **kwargs)
        except BaseException as error:
            self.note(error)
            raise
        self.note(None)
        return result

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    @property
    def name(self) -> str:
        """The name of the callable."""
        return name_of(self.action)

    def note(self, error: BaseException | None) -> None:
        """Keep how the last execution has ended."""
        self.error, self.error_details = error is not None, error

    @classmethod
    def register_action(cls, action: str | Callable[..., Any] | SchedulerAction) -> SchedulerAction:
        """Give the action of that name or callable, which is registered if it is not yet.

        Raises:
            UnknownError: no action has that name.
            WrongKindError: it cannot be called.
        """
        known = cls._of(action)
        if known is not None:
            return known
        if isinstance(action, str):
            raise UnknownError(
                f"no action is registered as {action!r}",
                because="registered are " + (", ".join(cls.get_register_action_names()) or "none"),
                cure="register the function first: SchedulerAction.register_action(function)",
            )
        return cls(action)

    @classmethod
    def action_is_registered(cls, action: str | Callable[..., Any] | SchedulerAction) -> bool:
        """Tell whether an action has that name, or is that callable or instance."""
        return cls._of(action) is not None

    @classmethod
    def get_registered_actions(cls) -> list[SchedulerAction]:
        """Give all actions, in the order in which they were registered."""
        return list(cls._registry)

    @classmethod
    def get_register_action_names(cls) -> list[str]:
        """Give the names of all actions."""
        return [each.name for each in cls._registry]

    get_registered_action_names = get_register_action_names

    @classmethod
    def _of(cls, action: object) -> SchedulerAction | None:
        if isinstance(action, SchedulerAction):
            return action
        if isinstance(action, TrackedAction):
            return action.action
        if isinstance(action, str):
            return next((each for each in reversed(cls._registry) if each.name == action), None)
        return next((each for each in cls._registry if _is_same(each.action, action)), None)


class TrackedAction:
    """One execution of an action: its arguments, when it ran, and what came of it.

    Arguments are merged over the default ones, by position and by name.
    """

    def __init__(self, action: str | Callable[..., Any] | SchedulerAction, *args: Any, **kwargs: Any) -> None:
        self.action = SchedulerAction.register_action(action)
        self.args = _over(self.action.default_args, args)
        self.kwargs: dict[str, Any] = {**self.action.default_kwargs, **kwargs}
        self.clock: Clock = SystemClock()
        self.error = False
        self.error_details: BaseException | None = None
        self._time_started: float | None = None
        self._duration: float | None = None
        self._began_s = 0.0
        self._return: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the action here and now, with these arguments over its own, and give what it returns."""
        self.args = _over(self.args, args)
        result = self.perform(kwargs)
        if isinstance(result, Awaitable):
            return asyncio.run(_awaited(cast("Awaitable[Any]", result)))
        return _waited(cast("Waits", result)) if isinstance(result, Generator) else result

    def perform(self, kwargs: Mapping[str, Any]) -> Any:
        """Run the action, with these keywords over its own; one that waits gives what is to be awaited."""
        self.kwargs = {**self.kwargs, **kwargs}
        self.error, self.error_details = False, None
        self._time_started, self._duration = self.clock.now().timestamp(), None
        self._began_s = self.clock.monotonic()
        try:
            result = self.action(*self.args, **self.kwargs)
        except BaseException as error:
            self._end(None, error)
            raise
        if isinstance(result, Awaitable):
            return self._awaiting(cast("Awaitable[Any]", result))
        if isinstance(result, Generator):
            return self._waiting(cast("Waits", result))
        self._end(result, None)
        return result

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.name}"

    @property
    def name(self) -> str:
        """The name of the action."""
        return self.action.name

    @property
    def time_started(self) -> float | None:
        """When it began, in seconds since the epoch."""
        return self._time_started

    @property
    def time_completed(self) -> float | None:
        """When it ended, in seconds since the epoch; after an error too."""
        if self._time_started is None or self._duration is None:
            return None
        return self._time_started + self._duration

    @property
    def started_timestamp(self) -> datetime | None:
        """When it began, in local time."""
        return None if self._time_started is None else datetime.fromtimestamp(self._time_started)  # noqa: DTZ006 - hein_control's is naive

    @property
    def action_duration(self) -> float | None:
        """How long it took, in seconds, whatever the clocks did meanwhile."""
        return self._duration

    @property
    def method_return(self) -> Any:
        """What the action has returned; None before."""
        return self._return

    action_return = method_return

    @property
    def status(self) -> str:
        """PENDING, EXECUTING, COMPLETE, or ERROR."""
        if self.error:
            return "ERROR"
        if self._time_started is None:
            return "PENDING"
        return "EXECUTING" if self._duration is None else "COMPLETE"

    def as_dict(self) -> dict[str, Any]:
        """Give what is known of it."""
        told: dict[str, Any] = {
            "name": self.name,
            "arguments": self.args,
            "keyword_arguments": self.kwargs,
            "status": self.status,
        }
        if self._time_started is not None:
            told |= {"time_started": self._time_started, "timestamp": str(self.started_timestamp)}
        if self._duration is not None:
            told |= {"time_completed": self.time_completed, "duration": self._duration}
        if self.error:
            told |= {"error_during_execution": True, "error_details": self.error_details}
        return told

    async def _awaiting(self, result: Awaitable[Any]) -> Any:
        with self._ending() as ended:
            ended.append(await result)
        return ended[0]

    def _waiting(self, result: Waits) -> Waits:
        with self._ending() as ended:
            ended.append((yield from result))
        return ended[0]

    @contextmanager
    def _ending(self) -> Generator[list[Any], None, None]:
        """Keep how an action ends that goes on after its call, and what it gives."""
        ended: list[Any] = []
        try:
            yield ended
        except BaseException as error:
            self.action.note(error)
            self._end(None, error)
            raise
        self._end(ended[0], None)

    def _end(self, result: Any, error: BaseException | None) -> None:
        self._return, self.error, self.error_details = result, error is not None, error
        self._duration = self.clock.monotonic() - self._began_s


def name_of(action: Callable[..., Any]) -> str:
    """Give the name of a function, of what a partial calls, or of the class of another callable.

    >>> import functools
    >>> name_of(functools.partial(print, end=""))
    'print'
    """
    inner: Any = getattr(action, "func", action)
    return str(getattr(inner, "__name__", type(inner).__name__))


def tracked(action: str | Callable[..., Any] | SchedulerAction | TrackedAction) -> TrackedAction:
    """Make an execution of an action, unless it is one."""
    return action if isinstance(action, TrackedAction) else TrackedAction(action)


def _is_same(registered: Callable[..., Any], action: object) -> bool:
    """Tell whether two callables are one: a bound method is made anew each time that it is looked up."""
    if registered is action:
        return True
    bound = getattr(registered, "__self__", None)
    return bound is not None and bound is getattr(action, "__self__", None) and registered == action


def _over(args: tuple[Any, ...], newer: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*newer, *args[len(newer) :])


def _waited(result: Waits) -> Any:
    while True:
        try:
            time.sleep(next(result))
        except StopIteration as end:
            return end.value


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result
