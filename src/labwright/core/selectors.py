"""The one language in which people say which targets they mean: `crate=1,slot!=3`.

| form | chooses |
|---|---|
| `all` | every target |
| `pump-1`, `pump-*` | by name; `*` stands for any characters, `?` for one |
| `crate=1`, `class=Pump`, `stream_id=crate1slot*` | by label; `name` is the target's name, `class` an agent's class |
| `slot!=3` | everything else; a target without the label is chosen too |
| `slot in (1,2,5)`, `slot not in (1,2)` | by several values; without the label: not chosen, chosen |
| `A,B` | both; either is written with a bar and binds tighter than the comma; parentheses group |

Text in quotes is taken as it stands: `owner="J. Doe"`, `"all"` is a target of that name.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cached_property, lru_cache
from typing import Protocol, TypeVar

from labwright.core.errors import SelectorError

WORD = re.compile(r"[^\s,|()=!\"']+")
BLANK = re.compile(r"\s*")
QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
ESCAPED = re.compile(r"\\(.)", re.DOTALL)
DEPTH = 50
SHOWN = 60


class Labelled(Protocol):
    """What can be chosen: it has a name and labels."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        ...


T = TypeVar("T", bound=Labelled)


@dataclass(frozen=True, slots=True)
class Selector:
    """A selector that has been read; equal when it means the same, its `str` reads back to itself."""

    text: str = field(compare=False)
    choice: Choice

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Tell whether this chooses a target of that name with these labels."""
        return self.choice.matches(name, labels)

    @property
    def names(self) -> frozenset[str]:
        """The names that stand in it bare and whole, whether or not such targets exist."""
        return self.choice.names()

    def __str__(self) -> str:
        return str(self.choice)


def parse_selector(text: str) -> Selector:
    """Read a selector.

    >>> parse_selector("crate=1,slot!=3").matches("pump", {"crate": "1"})
    True

    Raises:
        SelectorError: it cannot be read; the message points at the character.
    """
    return Selector(text, _Reader(text).whole())


def select(text: str, targets: Iterable[T]) -> tuple[T, ...]:
    """Choose from the targets, sorted by name; none chosen is an empty tuple.

    Raises:
        SelectorError: the selector cannot be read.
    """
    selector = parse_selector(text)
    chosen = [target for target in targets if selector.matches(target.name, target.labels)]
    return tuple(sorted(chosen, key=lambda target: target.name))


class Choice(ABC):
    """One part of a selector."""

    @abstractmethod
    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Tell whether this part chooses that target."""

    def names(self) -> frozenset[str]:
        """The names that stand in this part bare and whole."""
        return frozenset()


@dataclass(frozen=True)
class Value:
    """A name or a label's value as written: literal, or with `*` and `?`."""

    text: str
    is_glob: bool = False

    @cached_property
    def _match(self) -> Callable[[str], object]:
        return _glob(self.text) if self.is_glob else self.text.__eq__

    def fits(self, value: str) -> bool:
        """Tell whether a name or a label's value is this one."""
        return bool(self._match(value))

    def __str__(self) -> str:
        if self.is_glob or (WORD.fullmatch(self.text) and not _has_wildcard(self.text)):
            return self.text
        return '"' + self.text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass(frozen=True)
class All(Choice):
    """Every target."""

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:  # noqa: ARG002 - the protocol of a choice
        """Choose it."""
        return True

    def __str__(self) -> str:
        return "all"


@dataclass(frozen=True)
class Named(Choice):
    """The targets of a name, or of names like a pattern."""

    value: Value

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:  # noqa: ARG002 - the protocol of a choice
        """Choose by name."""
        return self.value.fits(name)

    def names(self) -> frozenset[str]:
        """This name, unless it is a pattern."""
        return frozenset() if self.value.is_glob else frozenset({self.value.text})

    def __str__(self) -> str:
        return '"all"' if self.value == Value("all") else str(self.value)


@dataclass(frozen=True)
class Label(Choice):
    """The targets whose label has one of some values, or (`excluded`) has none of them."""

    key: Value
    values: tuple[Value, ...]
    excluded: bool = False

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Choose by label; `name` is the target's name."""
        found = name if self.key.text == "name" else labels.get(self.key.text)
        fits = found is not None and any(value.fits(found) for value in self.values)
        return fits is not self.excluded

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.key}{'!=' if self.excluded else '='}{self.values[0]}"
        return f"{self.key} {'not in' if self.excluded else 'in'} ({','.join(map(str, self.values))})"


@dataclass(frozen=True)
class Both(Choice):
    """The targets that every part chooses."""

    parts: tuple[Choice, ...]

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Choose what all parts choose."""
        return all(part.matches(name, labels) for part in self.parts)

    def names(self) -> frozenset[str]:
        """The names in any part."""
        return frozenset[str]().union(*(part.names() for part in self.parts))

    def __str__(self) -> str:
        return ",".join(f"({part})" if isinstance(part, Both) else str(part) for part in self.parts)


@dataclass(frozen=True)
class Either(Choice):
    """The targets that any part chooses."""

    parts: tuple[Choice, ...]

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Choose what any part chooses."""
        return any(part.matches(name, labels) for part in self.parts)

    def names(self) -> frozenset[str]:
        """The names in any part."""
        return frozenset[str]().union(*(part.names() for part in self.parts))

    def __str__(self) -> str:
        return "|".join(f"({part})" if isinstance(part, Both | Either) else str(part) for part in self.parts)


class _Reader:
    """Reads a selector's text from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0

    def whole(self) -> Choice:
        if not self.text.strip():
            raise self._error("the selector is empty")
        choice = self._all_of()
        if self.position < len(self.text):
            raise self._error("expected a comma, | or the end here")
        return choice

    def _all_of(self) -> Choice:
        parts = [self._any_of()]
        while self._takes(","):
            parts.append(self._any_of())
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def _any_of(self) -> Choice:
        parts = [self._one()]
        while self._takes("|"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _one(self) -> Choice:
        if self._takes("("):
            return self._group()
        bare = self._next() not in {'"', "'"}
        value = self._value("a name, a label, all or ( is expected here")
        sign = self._sign()
        if sign is None:
            return All() if bare and value.text == "all" else Named(value)
        excluded, has_list = sign
        key = Value(value.text)
        expected = "a value is expected here"
        return Label(key, self._values() if has_list else (self._value(expected),), excluded=excluded)

    def _group(self) -> Choice:
        self.depth += 1
        if self.depth > DEPTH:
            raise self._error("the parentheses are nested too deeply")
        choice = self._all_of()
        if not self._takes(")"):
            raise self._error("expected a comma, | or ) here")
        self.depth -= 1
        return choice

    def _sign(self) -> tuple[bool, bool] | None:
        """Read what stands between a label and its value: whether it excludes, and whether a list follows."""
        for sign, excluded in (("==", False), ("=", False), ("!=", True)):
            if self._takes(sign):
                return excluded, False
        if self._takes_word("in"):
            return False, True
        if self._takes_word("notin"):
            return True, True
        if not self._takes_word("not"):
            return None
        if not self._takes_word("in"):
            raise self._error("expected in after not")
        return True, True

    def _values(self) -> tuple[Value, ...]:
        expected = "a value is expected here"
        if not self._takes("("):
            raise self._error("expected ( and a list of values here")
        values = [self._value(expected)]
        while self._takes(","):
            values.append(self._value(expected))
        if not self._takes(")"):
            raise self._error("expected a comma or ) here")
        return tuple(values)

    def _value(self, expected: str) -> Value:
        self._skip_blanks()
        if quoted := QUOTED.match(self.text, self.position):
            self._move_to(quoted.end())
            return Value(ESCAPED.sub(r"\1", quoted[0][1:-1]))
        if self._next() in {'"', "'"}:
            raise self._error("this quote is not closed")
        if word := WORD.match(self.text, self.position):
            self._move_to(word.end())
            return Value(word[0], is_glob=_has_wildcard(word[0]))
        raise self._error(expected)

    def _takes(self, sign: str) -> bool:
        self._skip_blanks()
        if not self.text.startswith(sign, self.position):
            return False
        self._move_to(self.position + len(sign))
        return True

    def _takes_word(self, wanted: str) -> bool:
        word = WORD.match(self.text, self.position)
        if word is None or word[0] != wanted:
            return False
        self._move_to(word.end())
        return True

    def _next(self) -> str:
        self._skip_blanks()
        return self.text[self.position : self.position + 1]

    def _move_to(self, position: int) -> None:
        self.position = position
        self._skip_blanks()

    def _skip_blanks(self) -> None:
        blank = BLANK.match(self.text, self.position)
        self.position = blank.end() if blank else self.position

    def _error(self, message: str) -> SelectorError:
        first = max(0, self.position - SHOWN)
        shown = "".join(char if char.isprintable() else " " for char in self.text[first : self.position + SHOWN])
        return SelectorError(
            f"the selector cannot be read: {message}\n  {shown}\n  {' ' * (self.position - first)}^",
            position=self.position,
            because="a selector is made of names, label=value, label!=value, label in (a,b), commas and |",
            cure="for example: crate=1,slot!=3 or pump-* or all",
        )


def _has_wildcard(text: str) -> bool:
    return "*" in text or "?" in text


@lru_cache(maxsize=1024)
def _glob(pattern: str) -> Callable[[str], object]:
    return re.compile(translate(pattern.replace("[", "[[]"))).match
