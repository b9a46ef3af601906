"""A request: the wish that one task be run, as rules, triggers, schedules and people express it.

A plain class without dependencies, so that rules import fast; its JSON form is `labwright.core.model.RequestRecord`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Self, TypeVar, final

from labwright.core.errors import UsageError
from labwright.core.ids import canonical, checked_name
from labwright.core.plain import to_plain

T = TypeVar("T")

MOST_PRIORITY = 10**9


@final
class Request:
    """Ask for a run of a task.

    Parameters are keywords (or `params=` for names that are taken): `Request("reduce", dcid=993677, priority=5)`.
    `on` is a target's name or a selector; a higher `priority` goes first; `not_before` is the earliest and `not_after`
    the latest start (aware datetimes); the same task, target and `key` is one run, however often asked. With `approve`
    the run waits until a person has approved it.

    Raises:
        UsageError: a name, time or parameter is not valid.
    """

    __slots__ = ("approve", "key", "not_after", "not_before", "on", "params", "priority", "task")

    task: str
    on: str | None
    priority: int
    not_before: datetime | None
    not_after: datetime | None
    key: str | None
    approve: bool
    params: Mapping[str, Any]

    def __init__(
        self,
        task: str,
        /,
        *,
        on: str | None = None,
        priority: int = 0,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        key: str | None = None,
        approve: bool = False,
        params: Mapping[str, Any] | None = None,
        **more_params: Any,
    ) -> None:
        put = object.__setattr__
        put(self, "task", checked_name(_expect(task, str, "task"), "task"))
        put(self, "on", None if on is None else _expect(on, str, "on"))
        put(self, "priority", _bounded(_expect(priority, int, "priority")))
        put(self, "not_before", None if not_before is None else _instant(not_before, "not_before"))
        put(self, "not_after", None if not_after is None else _instant(not_after, "not_after"))
        put(self, "key", None if key is None else _encodable(_expect(key, str, "key")))
        put(self, "approve", _yes_or_no(approve))
        put(self, "params", MappingProxyType(to_plain({**params, **more_params} if params else more_params)))
        if not_before is not None and not_after is not None and not_after < not_before:
            message = f"request for {task!r}: not_after ({not_after}) is before not_before ({not_before})"
            raise UsageError(message, because="the latest start cannot be before the earliest", cure="swap the two")

    def identity(self) -> tuple[str, str | None, str, str | None]:
        """Tell what makes two requests of one cause the same: task, target, parameters and key."""
        return (self.task, self.on, canonical(dict(self.params)), self.key)

    def with_params(self, **params: Any) -> Self:
        """Copy this request with some parameters set otherwise."""
        return self._copy(approve=self.approve, params={**self.params, **params})

    def for_approval(self) -> Self:
        """Copy this request so that its run waits until a person has approved it."""
        return self._copy(approve=True, params=self.params)

    def _copy(self, *, approve: bool, params: Mapping[str, Any]) -> Self:
        return type(self)(
            self.task,
            on=self.on,
            priority=self.priority,
            not_before=self.not_before,
            not_after=self.not_after,
            key=self.key,
            approve=approve,
            params=params,
        )

    def __setattr__(self, name: str, value: object) -> None:
        message = f"a request is frozen: {name} cannot be set"
        raise AttributeError(message)

    def __reduce__(self) -> tuple[Any, ...]:
        options = {name: getattr(self, name) for name in self.__slots__ if name not in {"task", "params"}}
        return (_rebuild, (self.task, {**options, "params": dict(self.params)}))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Request):
            return NotImplemented
        return self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        parts = [repr(self.task)]
        parts += [
            f"{name}={value!r}" for name in self.__slots__[:-1] if (value := getattr(self, name)) and name != "params"
        ]
        parts += [f"{name}={value!r}" for name, value in self.params.items()]
        return f"Request({', '.join(parts)})"

    def _all(self) -> tuple[Any, ...]:
        return (*self.identity(), self.priority, self.not_before, self.not_after, self.approve)


def _rebuild(task: str, options: dict[str, Any]) -> Request:
    return Request(task, **options)


def _expect(value: T, kind: type, name: str) -> T:
    if type(value) is not kind and (not isinstance(value, kind) or isinstance(value, bool)):
        message = f"a request's {name} must be {kind.__name__}, not {value!r}"
        raise UsageError(message, because=f"it is of type {type(value).__name__}", cure=f"pass a {kind.__name__}")
    return value


def _yes_or_no(approve: object) -> bool:
    if not isinstance(approve, bool):
        raise UsageError(
            f"a request's approve must be True or False, not {approve!r}",
            because="it tells whether a person has to approve the run before it starts",
            cure="pass approve=True, or leave it out",
        )
    return approve


def _bounded(priority: int) -> int:
    if abs(priority) > MOST_PRIORITY:
        raise UsageError(
            "a request's priority is beyond all reason",
            because=f"it may lie between -{MOST_PRIORITY:,} and {MOST_PRIORITY:,}",
            cure="pass a smaller number; a minute of waiting counts as much as one step of priority",
        )
    return priority


def _encodable(key: str) -> str:
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"a request's key is no text: {key!r}", because=str(error), cure="leave out the lone surrogates"
        ) from error
    return key


def _instant(value: datetime | None, name: str) -> datetime | None:
    if value is not None and _expect(value, datetime, name).tzinfo is None:
        message = f"a request's {name} needs a time zone: {value!r}"
        raise UsageError(
            message, because="an instant without a zone is ambiguous", cure="use datetime.now(UTC) or similar"
        )
    return value
