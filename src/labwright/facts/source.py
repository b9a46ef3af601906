"""Where facts come from: sources, each asked for the events whose type fits its pattern."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeAlias, cast

from labwright.core.errors import LabwrightError, TerminalError, TransientError, UsageError
from labwright.core.ids import checked_name
from labwright.core.model import Event

PATIENCE_S = 60.0
"""How long one source may take."""


class FactSource(Protocol):
    """Knows facts about the subjects of some events."""

    @property
    def name(self) -> str:
        """What people call it in errors and notes."""
        ...

    @property
    def pattern(self) -> str:
        """The event types for which it is asked; `*` stands for any characters."""
        ...

    async def facts(self, event: Event) -> Mapping[str, Any]:
        """Tell what is known about the event's subject; nothing known is an empty mapping.

        Raises:
            TransientError: it cannot tell now, but may later.
            TerminalError: it will never be able to tell without somebody's help.
        """
        ...


FactFunction: TypeAlias = Callable[[Event], "Mapping[str, Any] | Awaitable[Mapping[str, Any] | None] | None"]


@dataclass(frozen=True)
class SiteFactSource:
    """A function of the site that looks facts up; a plain one runs in a thread."""

    name: str
    pattern: str
    function: FactFunction = field(repr=False)
    doc: str = field(default="", repr=False)

    async def facts(self, event: Event) -> Mapping[str, Any]:
        """Call the function; None counts as nothing known."""
        if inspect.iscoroutinefunction(self.function):
            found: Any = await self.function(event)
        else:
            found = await asyncio.to_thread(self.function, event)
            if inspect.isawaitable(found):
                found = await found
        return {} if found is None else found


@dataclass(frozen=True)
class Gathered:
    """The facts of all sources together, and notes where they disagree."""

    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()


def fact_source(pattern: str) -> Callable[[FactFunction], SiteFactSource]:
    """Make a fact source of a site's function: it takes the event and returns facts by name.

    `pattern` chooses events by type: `@fact_source("data_collection.*")`.

    Raises:
        UsageError: the pattern is no text, or what is decorated is no function with a name.
    """
    if not pattern:
        raise UsageError(
            f"{pattern!r} is no pattern of event types",
            because="a fact source says for which events it is asked",
            cure='@fact_source("data_collection.*")',
        )

    def make(function: FactFunction) -> SiteFactSource:
        if not inspect.isroutine(function):
            raise UsageError(
                f"{function!r} cannot be a fact source", because="it is no function", cure="decorate a def or async def"
            )
        name = f"{function.__module__}:{function.__qualname__}".replace(".<locals>", "")
        return SiteFactSource(checked_name(name, "fact source"), pattern, function, inspect.getdoc(function) or "")

    return make


async def gather(
    event: Event, sources: Iterable[FactSource], *, every: bool = False, patience_s: float = PATIENCE_S
) -> Gathered:
    """Ask the sources that know about such events, or `every` one; later sources win over earlier ones.

    Raises:
        TransientError: a source cannot tell now; asking again may help.
        LabwrightError: a source will not be able to tell without somebody's help.
    """
    facts: dict[str, Any] = {}
    told_by: dict[str, str] = {}
    notes: list[str] = []
    for source in sources:
        if not every and not fnmatchcase(event.type, source.pattern):
            continue
        for name, value in (await _ask(source, event, patience_s)).items():
            if name in facts and _differ(facts[name], value):
                notes.append(f"{name}: {source.name} overrides {told_by[name]}")
            facts[name], told_by[name] = value, source.name
    return Gathered(facts, tuple(notes))


async def _ask(source: FactSource, event: Event, patience_s: float) -> Mapping[str, Any]:
    try:
        async with asyncio.timeout(patience_s):
            found: object = await source.facts(event)
    except LabwrightError:
        raise
    except TimeoutError as error:
        raise TransientError(
            f"the fact source {source.name} did not answer",
            because=str(error) or f"it was asked for {patience_s:g} s",
            cure="the event is kept and tried again; see what holds the source up",
        ) from error
    except OSError as error:
        raise TransientError(
            f"the fact source {source.name} cannot be reached",
            because=f"{type(error).__name__}: {error}",
            cure="the event is kept and tried again; see that what it asks is up",
        ) from error
    except Exception as error:
        raise TerminalError(
            f"the fact source {source.name} failed",
            because=f"{type(error).__name__}: {error}",
            cure="mend the function, then `labwright reload`",
        ) from error
    return _checked(source, found)


def _checked(source: FactSource, found: object) -> Mapping[str, Any]:
    if isinstance(found, Mapping):
        mapping = cast("Mapping[object, Any]", found)
        if all(isinstance(name, str) for name in mapping):
            return cast("Mapping[str, Any]", mapping)
    raise TerminalError(
        f"the fact source {source.name} returned {repr(cast('object', found))[:200]}",
        because="facts are a mapping from names to values",
        cure='return {"name": value}, or None when nothing is known',
    )


def _differ(first: object, second: object) -> bool:
    try:
        return bool(first != second)
    except Exception:  # noqa: BLE001 - values come from sites; arrays and the like cannot be compared
        return True
