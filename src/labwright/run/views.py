"""The parts of a step's context that are only looked at or written to: run, named values, target, log, marks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from labwright.core.errors import NotProvidedError
from labwright.core.model import Cause, Run, Target


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """Which run a step belongs to, and why it exists."""

    id: str
    task: str
    cause: Cause
    key: str | None = None
    priority: int = 0
    requested_at: datetime
    reopened: int = 0
    """How often `runs retry` has opened it again after its end."""

    @classmethod
    def of(cls, run: Run) -> RunInfo:
        """Take from a run what a step may know."""
        return cls(
            id=run.id,
            task=run.task,
            cause=run.cause,
            key=run.key,
            priority=run.priority,
            requested_at=run.requested_at,
            reopened=run.reopened,
        )


class Named(Mapping[str, Any]):
    """Values by name, as items or attributes; asking for one that is not there says so.

    >>> Named("parameter", {"dcid": 5}).dcid
    5
    """

    def __init__(self, what: str, values: Mapping[str, Any]) -> None:
        self._what = what
        self._values = values

    def __getitem__(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        raise self._missing(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def get(self, key: str, default: Any = None) -> Any:
        """Give a value, or the default where it is not there."""
        return self._values.get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<{self._what}s {dict(self._values)!r}>"

    def _missing(self, name: str) -> NotProvidedError:
        return NotProvidedError(
            f"the {self._what} {name!r} was not provided",
            because=f"provided are: {', '.join(self._values) or 'none'}",
            cure=f"provide it, or ask with .get({name!r})",
        )


class TargetView(Named):
    """The target of a run: `name`, `labels`, `facts`, and each fact as an attribute."""

    def __init__(self, target: Target) -> None:
        super().__init__(f"fact of target {target.name!r}:", target.facts)
        self.name = target.name
        self.labels = target.labels
        self.facts = target.facts

    def __repr__(self) -> str:
        return f"<target {self.name}>"


class StepLog:
    """The run's log: text and fields, `ctx.log.info("restarted", pod="api-7")`."""

    def __init__(self, write: Callable[[str, str, Mapping[str, Any]], None]) -> None:
        self._write = write

    def debug(self, text: str, *values: object, **fields: Any) -> None:
        """Log what only helps to find a fault."""
        self._log("debug", text, values, fields)

    def info(self, text: str, *values: object, **fields: Any) -> None:
        """Log what happened."""
        self._log("info", text, values, fields)

    def warning(self, text: str, *values: object, **fields: Any) -> None:
        """Log what somebody should look at."""
        self._log("warning", text, values, fields)

    def error(self, text: str, *values: object, **fields: Any) -> None:
        """Log what went wrong."""
        self._log("error", text, values, fields)

    def _log(self, level: str, text: str, values: tuple[object, ...], fields: Mapping[str, Any]) -> None:
        self._write(level, _formatted(text, values), fields)


@dataclass
class Marks:
    """What a step says about itself while it runs."""

    notes: list[str] = field(default_factory=list[str])
    result: Any = None


def _formatted(text: str, values: tuple[object, ...]) -> str:
    if not values:
        return str(text)
    try:
        return text % values
    except (TypeError, ValueError):
        return " ".join(str(part) for part in (text, *values))
