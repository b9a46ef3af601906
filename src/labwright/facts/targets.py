"""Targets from `targets.yaml`, `[{name, labels, facts}]`, and from a site's own functions."""

from __future__ import annotations

import asyncio
import difflib
import functools
import inspect
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast, overload

from labwright.core.errors import SiteError, TerminalError, UsageError
from labwright.core.ids import NAME_PATTERN, checked_name
from labwright.core.model import Target
from labwright.core.plain import to_plain
from labwright.facts.document import read_document

KEYS = ("name", "labels", "facts")
RESERVED = "all"
EVERY_S = 60.0
CURE = "for example:\n- name: pump-1\n  labels: {crate: 1}\n  facts: {url: http://pump-1}"

Described: TypeAlias = "Target | Mapping[str, Any]"
TargetFunction: TypeAlias = Callable[[], "Iterable[Described] | Awaitable[Iterable[Described]]"]


def load_targets(path: str | Path, *, is_required: bool = False) -> dict[str, Target]:
    """Read the targets of a file, by name; the values of labels become text.

    Raises:
        NotFoundError: the file is required and absent.
        SiteError: something in it is not valid; `findings` lists all of it.
    """
    path = Path(path)
    document: object = read_document(path, is_required=is_required)
    if document is None:
        return {}
    if not isinstance(document, list):
        raise _invalid([f"{path}: the file is no list of targets"])
    return _targets(cast("list[object]", document), str(path))


@dataclass(frozen=True)
class TargetSource:
    """A function of the site that lists targets; a plain one runs in a thread."""

    name: str
    function: TargetFunction = field(repr=False)
    doc: str = field(default="", repr=False)
    every: float = EVERY_S
    """After how many seconds it is asked again."""

    async def targets(self) -> dict[str, Target]:
        """Call the function.

        Raises:
            TerminalError: it returned no list.
            SiteError: a target in it is not valid.
        """
        found: object = self.function() if inspect.iscoroutinefunction(self.function) else None
        found = await asyncio.to_thread(self.function) if found is None else found
        if inspect.isawaitable(found):
            found = await found
        if not isinstance(found, Iterable) or isinstance(found, str | bytes | Mapping):
            raise TerminalError(
                f"the target source {self.name} returned {repr(cast('object', found))[:200]}",
                because="it lists targets",
                cure='return [Target(name="pump-1", labels={"crate": "1"})]',
            )
        described = [
            target.model_dump() if isinstance(target, Target) else target for target in cast("Iterable[object]", found)
        ]
        return _targets(described, self.name)


@overload
def target_source(function: TargetFunction, /) -> TargetSource: ...


@overload
def target_source(*, every: float = EVERY_S) -> Callable[[TargetFunction], TargetSource]: ...


def target_source(function: TargetFunction | None = None, /, *, every: float = EVERY_S) -> Any:
    """Make a source of targets of a site's function, which returns targets or mappings `{name, labels, facts}`.

    It is asked again `every` so many seconds, when targets are wanted, and after a reload. What it told last counts on
    as long as it raises or hangs.

    >>> @target_source(every=300)
    ... async def pumps():
    ...     return [{"name": "pump-1", "labels": {"crate": 1}}]
    >>> pumps.every
    300

    Raises:
        UsageError: what is decorated is no function with a name, or `every` is no number of seconds above 0.
    """
    if not (math.isfinite(every) and every > 0):
        raise UsageError(
            f"a target source cannot be asked every {every!r}",
            because="it is a number of seconds above 0",
            cure="@target_source(every=60)",
        )
    return functools.partial(_source, every=every) if function is None else _source(function, every=every)


def _source(function: TargetFunction, *, every: float) -> TargetSource:
    if not inspect.isroutine(function):
        raise UsageError(
            f"{function!r} cannot be a target source", because="it is no function", cure="decorate a def or async def"
        )
    name = f"{function.__module__}:{function.__qualname__}".replace(".<locals>", "")
    return TargetSource(checked_name(name, "target source"), function, inspect.getdoc(function) or "", every)


def _targets(entries: Sequence[object], origin: str) -> dict[str, Target]:
    targets: dict[str, Target] = {}
    findings: list[str] = []
    for number, entry in enumerate(entries, start=1):
        wrong = list(_wrong_with(entry))
        name = cast("Mapping[str, object]", entry).get("name") if isinstance(entry, Mapping) else None
        if isinstance(name, str) and name in targets:
            wrong.append("another target has this name")
        findings += [f"{origin}, target {number}{f' ({name})' if name else ''}: {each}" for each in wrong]
        if not wrong:
            target = _target(cast("Mapping[str, Any]", entry))
            targets[target.name] = target
    if findings:
        raise _invalid(findings)
    return targets


def _wrong_with(entry: object) -> Iterable[str]:
    if not isinstance(entry, Mapping):
        yield f"{entry!r} is no mapping with a name"
        return
    described = cast("Mapping[object, object]", entry)
    for key in described:
        if key not in KEYS:
            nearest = difflib.get_close_matches(str(key), KEYS, n=1)
            yield f"the key {key!r} is not known" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
    yield from _wrong_with_name(described.get("name"))
    for key in ("labels", "facts"):
        if not isinstance(described.get(key), Mapping | None):
            yield f"{key} is no mapping"
    labels = described.get("labels")
    if isinstance(labels, Mapping):
        yield from _wrong_with_labels(cast("Mapping[object, object]", labels), described.get("name"))


def _wrong_with_name(name: object) -> Iterable[str]:
    if name is None:
        yield "it has no name"
    elif not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        yield f"{name!r} cannot name a target: 1 to 128 letters, digits or _ . : -"
    elif name == RESERVED:
        yield f"{RESERVED!r} cannot name a target: in a selector it means every target"


def _wrong_with_labels(labels: Mapping[object, object], name: object) -> Iterable[str]:
    for label, value in labels.items():
        if not isinstance(value, str | int | float):
            yield f"the label {label!r} is {value!r}, which is no text, number, true or false"
        if label == "name" and value != name:
            yield "the label 'name' is the target's name and cannot be another"


def _target(entry: Mapping[str, Any]) -> Target:
    labels = cast("Mapping[object, object]", entry.get("labels") or {})
    facts = cast("Mapping[object, object]", entry.get("facts") or {})
    return Target(
        name=entry["name"], labels={str(label): _label(value) for label, value in labels.items()}, facts=to_plain(facts)
    )


def _label(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _invalid(findings: Sequence[str]) -> SiteError:
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return SiteError(
        f"{findings[0]}{more}",
        findings=tuple(findings),
        because="a file of targets is [{name, labels, facts}]",
        cure=CURE,
    )
