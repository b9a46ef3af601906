"""What a schedule does at a time point: a function with its arguments, a condition, a time budget and locks."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from labwright.core.errors import UsageError


class Lock(Protocol):
    """What keeps an instrument to one at a time, such as a `threading.Lock` that several schedules share."""

    def acquire(self) -> bool:
        """Take it, and wait until it can be taken."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...


class Action:
    """A function that a schedule calls, with the arguments that it is given each time.

    `when` is asked before each call: if it says no, the action is left out there. `budget` is how many seconds it may
    take before an alarm is raised; it goes on all the same. `locks` are held while it runs. The function may be
    `async`, or a generator that yields how many seconds are to pass before it goes on, by the schedule's clock. Its
    `label` is its name unless given.

    >>> Action(print, "hello", label="greet").label
    'greet'

    Raises:
        UsageError: this cannot be called, or the budget is no number of seconds.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,
        label: str = "",
        when: Callable[[], object] | None = None,
        budget: float | None = None,
        locks: Sequence[Lock] = (),
        **kwargs: Any,
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.when = when
        self.budget = budget
        self.locks = tuple(locks)
        if not callable(function) or (when is not None and not callable(when)):
            raise UsageError(
                f"{function!r} is no action",
                because="an action, and its condition, is something that can be called",
                cure="give the function itself, without brackets",
            )
        if budget is not None and not (math.isfinite(budget) and budget > 0):
            raise UsageError(f"a budget cannot be {budget!r}", because="it is a number of seconds, more than 0")
        self.label = label or _name_of(function)

    def arguments(self, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Give the arguments of a call by name, with the keywords that are passed through.

        Raises:
            UsageError: the function does not take these.
        """
        given = {**self.kwargs, **keywords}
        try:
            signature = inspect.signature(self.function)
        except ValueError:  # some built-in functions have none
            return {"args": list(self.args), **given} if self.args else given
        try:
            bound = signature.bind(*self.args, **given)
        except TypeError as error:
            raise UsageError(
                f"the action {self.label!r} cannot be called so: {error}",
                because=f"it is {self.label}{signature}",
                cure="give its arguments with Action(function, ...), or pass them through under its label",
            ) from None
        return dict(bound.arguments)

    def call(self, keywords: Mapping[str, Any]) -> Any:
        """Call the function; an `async` one gives a coroutine."""
        return self.function(*self.args, **{**self.kwargs, **keywords})

    def held(self) -> ExitStack:
        """Take the locks, always in the same order so that no two schedules wait for each other."""
        return hold(self.locks)


def hold(locks: Iterable[Lock]) -> ExitStack:
    """Take all locks in an order that is the same for everybody, and give what gives them back."""
    with ExitStack() as taken:
        for lock in sorted({id(each): each for each in locks}.values(), key=id):
            lock.acquire()
            taken.callback(lock.release)
        return taken.pop_all()


def as_action(given: Action | Callable[..., Any]) -> Action:
    """Make an action of a function, unless it is one."""
    return given if isinstance(given, Action) else Action(given)


def unique_labels(actions: Iterable[Action]) -> tuple[str, ...]:
    """Give each action a label of its own: the second `inject` is `inject-2`."""
    labels: list[str] = []
    for action in actions:
        label, number = action.label, 1
        while label in labels:
            number += 1
            label = f"{action.label}-{number}"
        labels.append(label)
    return tuple(labels)


def check_keywords(keywords: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Refuse keywords for an action that there is not.

    Raises:
        UsageError: a label is unknown, or what it is given are no keywords.
    """
    for label, given in keywords.items():
        if label not in labels:
            raise UsageError(
                f"keywords are given for {label!r}, which is no action of this schedule",
                because="its actions are " + ", ".join(labels),
                cure="pass keywords under the label of an action: inject={'volume_ml': 2}",
            )
        if not isinstance(given, Mapping):
            raise UsageError(
                f"the keywords for {label!r} are {given!r}",
                because="they are a dictionary from argument to value",
                cure=f"write {label}={{'argument': value}}",
            )


def _name_of(function: Callable[..., Any]) -> str:
    inner = getattr(function, "func", function)  # functools.partial
    name = getattr(inner, "__name__", type(inner).__name__)
    return re.sub(r"[^A-Za-z0-9_.:-]+", "", name)[:128] if name != "<lambda>" else "action"
