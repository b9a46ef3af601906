"""The scenario: an event and the facts about its subject, frozen; all that a rule sees."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date
from enum import Enum
from typing import Any, NoReturn, Self, cast, final

from labwright.core.errors import FactMissingError
from labwright.core.model import Event
from labwright.core.plain import to_plain
from labwright.decide import data_collection

DEPTH = 64
PLAIN_TYPES = frozenset({str, int, float, bool, type(None), bytes})


@final
class FrozenDict(dict[str, Any]):
    """A dict that cannot be changed; it hashes, pickles and goes into JSON as it is."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a scenario is frozen: its facts cannot be changed")

    __setitem__ = __delitem__ = __ior__ = _refuse  # pyright: ignore[reportAssignmentType]
    clear = pop = popitem = setdefault = update = _refuse  # pyright: ignore[reportAssignmentType]

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


@final
class Scenario:
    """An event and the facts about its subject; `scenario.NAME` is a fact.

    A fact whose name is taken (`event`, `facts`, `of`) is reached as `scenario.facts["event"]`.

    Raises:
        FactMissingError: a fact was asked for that nobody knows.
    """

    __slots__ = ("event", "facts")

    event: Event
    facts: Mapping[str, Any]

    def __init__(self, event: Event, facts: Mapping[str, Any] | None = None) -> None:
        frozen_data = freeze(event.data)
        frozen_event = event if frozen_data is event.data else event.model_copy(update={"data": frozen_data})
        object.__setattr__(self, "event", frozen_event)
        object.__setattr__(self, "facts", freeze(facts or FrozenDict()))

    @classmethod
    def of(cls, event: Event, looked_up: Mapping[str, Any]) -> Self:
        """Join what was looked up with what the event brings: keys of an object `data` are facts and win.

        Of a data collection, the fields of a published Mimas message are said in our words too.
        """
        data: object = event.data
        brought = cast("Mapping[str, Any]", data) if isinstance(data, Mapping) else FrozenDict()
        if event.type.startswith(data_collection.PREFIX):
            brought = data_collection.message_facts(brought)
        return cls(event, {**data_collection.event_facts(event), **looked_up, **brought})

    def __getattr__(self, name: str) -> Any:
        try:
            return self.facts[name]
        except KeyError:
            if name.startswith("__"):
                raise AttributeError(name) from None
            raise FactMissingError(name, tuple(sorted(self.facts))) from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a scenario is frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a scenario is frozen: {name} cannot be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        return Scenario, (self.event, self.facts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scenario):
            return NotImplemented
        return self.event == other.event and self.facts == other.facts

    def __hash__(self) -> int:
        return hash((self.event.source, self.event.id, self.facts))

    def __repr__(self) -> str:
        return f"Scenario({self.event.type!r}, {dict(self.facts)!r})"


def freeze(value: Any) -> Any:
    """Make a value that cannot be changed: mappings, lists and sets become frozen; strangers become plain first."""
    return _freeze(value, DEPTH)


def _freeze(value: Any, depth: int) -> Any:  # noqa: PLR0911 - one return for each shape of value
    kind: type = type(cast("object", value))
    if kind in PLAIN_TYPES or kind is FrozenDict:
        return value
    if depth == 0:
        return repr(to_plain(value))
    if isinstance(value, Mapping):
        items = cast("Mapping[object, Any]", value).items()
        return FrozenDict({name if type(name) is str else str(name): _freeze(item, depth - 1) for name, item in items})
    if isinstance(value, list | tuple):
        return tuple([_freeze(item, depth - 1) for item in cast("list[Any]", value)])
    if isinstance(value, AbstractSet):
        return frozenset(_freeze(item, depth - 1) for item in cast("AbstractSet[Any]", value))
    if isinstance(value, str | int | float | date) and not isinstance(value, Enum):
        return value
    return _freeze(to_plain(value), depth - 1)
