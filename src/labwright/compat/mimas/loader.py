"""Loads packages in Mimas's layout: their `Tasks` become rules, their triggers are collected by target."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeVar, cast

from labwright.compat.mimas.classes import MimasError, MimasEvent
from labwright.compat.mimas.conversions import to_request
from labwright.compat.mimas.finder import install
from labwright.compat.mimas.scenario import scenario_from
from labwright.compat.mimas.tasks import Tasks
from labwright.compat.mimas.trigger import Trigger
from labwright.core.request import Request
from labwright.decide.conditions import Condition, event_type, fact, when
from labwright.decide.data_collection import PHASES, PREFIX
from labwright.decide.rules import Rule
from labwright.decide.scenario import Scenario

T = TypeVar("T")


@dataclass(frozen=True)
class Implementors:
    """What packages in Mimas's layout hold, and what is wrong with them."""

    rules: tuple[Rule, ...] = ()
    triggers: Mapping[str, type[Trigger]] = field(default_factory=dict[str, type[Trigger]])
    findings: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    """The modules that were imported, for a loader that wants to forget them before it loads again."""


def load_implementors(packages: Iterable[str]) -> Implementors:
    """Search `PACKAGE.implementors.tasks.*` and `.triggers.*` of each package.

    A file that does not import, or holds no class of its own name, is a finding and does not sink the others. Files
    whose name begins with `_` are not looked at.
    """
    install()
    search = _Search()
    for package in packages:
        search.search(package)
    return Implementors(
        tuple(search.rules), dict(search.triggers), tuple(search.findings), tuple(dict.fromkeys(search.modules))
    )


class _Search:
    """What has been found so far."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.triggers: dict[str, type[Trigger]] = {}
        self.findings: list[str] = []
        self.modules: list[str] = []

    def search(self, package: str) -> None:
        implementors = self._import(f"{package}.implementors")
        if implementors is None:
            return
        present = {info.name for info in pkgutil.iter_modules(implementors.__path__)}
        if not present & {"tasks", "triggers"}:
            self.findings.append(f"{package}.implementors: it has neither tasks nor triggers")
        if "tasks" in present:
            for found in self._classes(f"{package}.implementors.tasks", Tasks):
                self._add_rule(found)
        if "triggers" in present:
            for found in self._classes(f"{package}.implementors.triggers", Trigger):
                self._add_trigger(found)

    def _add_rule(self, tasks: type[Tasks]) -> None:
        wrong = _wrong_with(tasks)
        if wrong:
            self.findings.append(f"{tasks.__module__}: {wrong}")
        else:
            self.rules.append(_rule(tasks))

    def _add_trigger(self, trigger: type[Trigger]) -> None:
        target = trigger.__name__
        if target in self.triggers:
            self.findings.append(
                f"{trigger.__module__}: {self.triggers[target].__module__} has the target {target!r} too"
            )
        else:
            self.triggers[target] = trigger

    def _classes(self, package: str, kind: type[T]) -> Iterator[type[T]]:
        for module, is_package in self._modules(package):
            name = module.__name__.rpartition(".")[2]
            found: object = getattr(module, name, None)
            if _is_a(found, kind) and not inspect.isabstract(found):
                yield cast("type[T]", found)
            elif not is_package:
                because = "has no method run" if inspect.isabstract(found) else "is not there"
                self.findings.append(f"{module.__name__}: the class {name}({kind.__name__}) {because}")

    def _modules(self, package: str) -> Iterator[tuple[ModuleType, bool]]:
        imported = self._import(package)
        for info in sorted(pkgutil.iter_modules(getattr(imported, "__path__", [])), key=lambda info: info.name):
            if info.name.startswith("_"):
                continue
            name = f"{package}.{info.name}"
            if (module := self._import(name)) is not None:
                yield module, info.ispkg
                if info.ispkg:
                    yield from self._modules(name)

    def _import(self, name: str) -> ModuleType | None:
        try:
            module = importlib.import_module(name)
        except SyntaxError as error:
            self.findings.append(f"{name}: {error.msg} ({error.filename}, line {error.lineno})")
        except Exception as error:  # noqa: BLE001 - a site's module may raise anything while it is imported
            self.findings.append(f"{name}: it does not import: {type(error).__name__}: {error}")
        else:
            self.modules.append(name)
            return module
        return None


def _is_a(found: object, kind: type) -> bool:
    return isinstance(found, type) and issubclass(cast("type[object]", found), kind)


def _wrong_with(tasks: type[Tasks]) -> str:
    beamline, event = cast("tuple[object, object]", (tasks.beamline, tasks.event))
    if beamline is not None and (not isinstance(beamline, str) or not beamline):
        return f"beamline is {beamline!r}, which is no text"
    if event is not None and not isinstance(event, MimasEvent):
        return f"event is {event!r}, which is no MimasEvent"
    return ""


def _rule(tasks: type[Tasks]) -> Rule:
    name = f"{tasks.__module__}:{tasks.__qualname__}"
    return Rule(name, _condition(tasks), _decider(tasks), inspect.getdoc(tasks) or "")


def _condition(tasks: type[Tasks]) -> Condition:
    phase = fact("phase").is_in(*PHASES) if tasks.event is None else fact("phase", tasks.event.name.lower())
    condition = event_type(f"{PREFIX}*") & phase
    if tasks.beamline is not None:
        condition &= fact("beamline", tasks.beamline)
    if tasks.enabled is not True:
        condition &= when(lambda _: tasks.enabled, f"{tasks.__name__} is enabled")
    return condition


def _decider(tasks: type[Tasks]) -> Callable[[Scenario], list[Request]]:
    def decide(scenario: Scenario) -> list[Request]:
        invocations: Any = tasks().run(scenario_from(scenario))
        if not isinstance(invocations, Iterable) or isinstance(invocations, str):
            raise MimasError(
                f"{tasks.__module__}: run returned {invocations!r}",
                because="it lists invocations",
                cure="return a list, an empty one where there is nothing to do",
            )
        return [to_request(invocation) for invocation in cast("Iterable[Any]", invocations)]

    return decide
