"""The site: the user's rules, tasks, sources and providers, collected from its modules; and decisions made by them."""

from __future__ import annotations

import asyncio
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from labwright.agents.members import members
from labwright.core.errors import LabwrightError, NotFoundError, SiteError, TransientError
from labwright.core.model import ErrorRecord, Event, Target, utc_now
from labwright.decide.decision import Decision, PlannedRun, decide, plan_runs
from labwright.decide.rules import Rule, RuleSet
from labwright.decide.scenario import Scenario
from labwright.facts.file import FileFacts
from labwright.facts.source import FactSource, Gathered, gather
from labwright.facts.targets import TargetSource, load_targets
from labwright.journal.records import PlannedRunRecord
from labwright.plan.durable import ScheduleDefinition
from labwright.plan.providers import Provider
from labwright.plan.tasks import Task
from labwright.run.builtin import BUILTIN_TASKS
from labwright.run.settings import PoolTable, Settings
from labwright.run.site_description import PoolDescription, RuleDescription, ScheduleDescription, SiteDescription
from labwright.run.site_modules import Definition, Imported, import_package, put_first, revision_of
from labwright.run.site_targets import SiteTargets
from labwright.schedule.asked import Asked
from labwright.schedule.schedule import Schedule

MOST_NAMED = 20
"""How many names an error lists."""
NOBODY: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


class DialectRules(Protocol):
    """What packages written for another system hold, and what is wrong with them."""

    @property
    def rules(self) -> Sequence[Rule]:
        """Their rules."""
        ...

    @property
    def triggers(self) -> Mapping[str, Any]:
        """Their triggers by name."""
        ...

    @property
    def findings(self) -> Sequence[str]:
        """What is wrong with them."""
        ...


DialectLoader: TypeAlias = Callable[[Sequence[str]], DialectRules]
"""Loads packages written for another system: their rules, their triggers, and what is wrong with them."""


@dataclass(frozen=True, kw_only=True)
class DecidedEvent:
    """A decision in its JSON form, and the runs that must follow from it."""

    decision: dict[str, Any]
    runs: tuple[PlannedRunRecord, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Deciding:
    """An event as it has been decided: what the rules saw, what they said, and the runs that must follow."""

    scenario: Scenario
    decision: Decision
    runs: tuple[PlannedRunRecord, ...]


@dataclass(frozen=True, kw_only=True)
class LookedUp:
    """The scenario of an event, and notes on how its facts were found."""

    scenario: Scenario
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Site:
    """A loaded site."""

    settings: Settings
    rules: RuleSet
    tasks: Mapping[str, Task]
    fact_sources: tuple[FactSource, ...] = ()
    target_sources: tuple[TargetSource, ...] = ()
    providers: Mapping[str, Provider] = field(default_factory=dict[str, Provider])
    triggers: tuple[Any, ...] = ()
    schedules: tuple[ScheduleDescription, ...] = ()
    revision: str = ""
    loaded_at: datetime = field(default_factory=utc_now)
    _targets: SiteTargets = field(repr=False)

    async def targets(self) -> dict[str, Target]:
        """Give the targets of the file, read again when it has changed, and of the site's target sources.

        Raises:
            SiteError: the file is not valid, or what a source gives and has given nothing before.
            TransientError, TerminalError: a source cannot tell, and has told nothing before.
        """
        return await self._targets.all(self.settings.targets_file)

    def target_warnings(self) -> tuple[str, ...]:
        """Tell what is wrong with the targets that were given last: names that stand twice, and sources that fail."""
        return tuple(self._targets.warnings())

    def describe(self, targets: Iterable[Target] = ()) -> SiteDescription:
        """Tell everything about the site but its code; the targets are those given."""
        return SiteDescription(
            package=self.settings.site.package,
            folder=str(self.settings.folder),
            loaded_at=self.loaded_at,
            revision=self.revision,
            tasks=tuple(task.describe() for task in self.tasks.values()),
            rules=tuple(
                RuleDescription(name=rule.name, doc=rule.doc, condition=str(rule.condition)) for rule in self.rules
            ),
            targets=tuple(sorted(targets, key=lambda target: target.name)),
            pools=tuple(self._pools()),
            schedules=self.schedules,
            fact_sources=tuple(source.name for source in self.fact_sources),
            providers=tuple(self.providers),
            implementors=self.settings.site.implementors,
        )

    def _pools(self) -> Iterator[PoolDescription]:
        named = dict.fromkeys(task.pool for task in self.tasks.values())
        pools = {**{name: PoolTable() for name in named}, **self.settings.pools}
        return (PoolDescription(name=name, concurrency=pool.concurrency) for name, pool in sorted(pools.items()))


def load_site(settings: Settings, *, dialects: Sequence[DialectLoader] = ()) -> Site:
    """Import the site's package and collect what its modules define; also read the files that the settings name.

    Raises:
        SiteError: something is wrong; its findings list all of it.
    """
    put_first(settings.folder)
    loader = _Loader(settings)
    loader.read_files()
    loader.load_dialects(dialects)
    package = import_package(settings.site.package, settings.folder) if settings.site.package else Imported()
    loader.findings += package.findings
    loader.collect(package.definitions())
    return loader.site(package)


async def look_up(site: Site, event: Event) -> LookedUp:
    """Gather the facts about an event's subject.

    Raises:
        TransientError: a source cannot tell now; asking again may help.
        LabwrightError: a source will not be able to tell without somebody's help.
    """
    gathered = await _gather(site, event)
    return LookedUp(scenario=Scenario.of(event, gathered.facts), notes=gathered.notes)


async def decide_event(site: Site, event: Event, at: datetime) -> DecidedEvent:
    """Look up the facts, ask the rules, and plan the runs that follow.

    Raises:
        LabwrightError: the facts, or the targets that a request asks for, cannot be known.
    """
    deciding = await decide_in_full(site, event, at)
    return DecidedEvent(decision=deciding.decision.model_dump(mode="json", by_alias=True), runs=deciding.runs)


async def decide_in_full(
    site: Site, event: Event, at: datetime, agents: Mapping[str, Mapping[str, Any]] = NOBODY
) -> Deciding:
    """Do as `decide_event`, and give the scenario and the decision as they are.

    Requests may also choose `agents`, those that are here, as they announce themselves.
    """
    looked_up = await look_up(site, event)
    decision = decide(
        looked_up.scenario,
        site.rules,
        at=at,
        on_rule_error=site.settings.site.on_rule_error,
        notes=looked_up.notes,
        known_tasks=site.tasks,
    )
    wants_target = any(request.on is not None for request in decision.requests)
    planned = plan_runs(decision, members(await site.targets(), agents) if wants_target else {})
    position = {request.id: index for index, request in enumerate(decision.requests)}
    runs = tuple(_run_record(site, decision, run, position[run.request]) for run in planned)
    return Deciding(scenario=looked_up.scenario, decision=decision, runs=runs)


def _run_record(site: Site, decision: Decision, run: PlannedRun, request: int) -> PlannedRunRecord:
    """Say which run follows; one whose task is unknown or whose parameters do not fit can only fail and say so."""
    error = run.error or _wrong_with(site, decision.requests[request].task, decision.requests[request].params)
    return PlannedRunRecord(id=run.id, request=request, target=run.target, error=error)


def _wrong_with(site: Site, name: str, params: Mapping[str, Any]) -> ErrorRecord | None:
    try:
        find_task(site, name).validated(params)
    except LabwrightError as error:
        return ErrorRecord.of(error)
    return None


async def _gather(site: Site, event: Event) -> Gathered:
    patience = site.settings.site.decide_timeout
    try:
        async with asyncio.timeout(patience):
            return await gather(event, site.fact_sources, patience_s=patience)
    except TimeoutError as error:
        raise TransientError(
            "the facts could not be gathered in time",
            because=f"all sources together took more than {patience:g} s",
            cure="the event is kept and tried again; see what holds the sources up",
        ) from error


def find_task(site: Site, name: str) -> Task:
    """Give the task of that name.

    Raises:
        NotFoundError: there is none; it names the nearest.
    """
    if (task := site.tasks.get(name)) is not None:
        return task
    nearest = difflib.get_close_matches(name, site.tasks, n=1, cutoff=0.5)
    raise NotFoundError(
        f"the site has no task {name!r}",
        because=f"it has {len(site.tasks)}: {', '.join(sorted(site.tasks)[:MOST_NAMED])}",
        cure=f"did you mean {nearest[0]!r}?" if nearest else "define it in the site's package, then `labwright reload`",
    )


T = TypeVar("T")


class _Loader:
    """Collects a site, and everything that is wrong with it on the way."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.findings: list[str] = list(settings.absent())
        self.rules: dict[str, tuple[str, Rule]] = {}
        self.tasks: dict[str, tuple[str, Task]] = {task.name: ("labwright itself", task) for task in BUILTIN_TASKS}
        self.target_sources: dict[str, tuple[str, TargetSource]] = {}
        self.providers: dict[str, tuple[str, Provider]] = {}
        self.fact_sources: dict[str, tuple[str, FactSource]] = {}
        self.schedules: dict[str, tuple[str, Schedule]] = {}
        self.triggers: tuple[Any, ...] = ()

    def read_files(self) -> None:
        """Check the file of targets, and open the sources of facts that the settings name."""
        if (path := self.settings.targets_file) is not None:
            self._try(functools.partial(load_targets, path))
        if (path := self.settings.facts_file) is not None:
            file = FileFacts(path)
            self._try(file.all)
            self.fact_sources[file.name] = (str(path), file)
        if url := self.settings.facts.ispyb:
            self._try(lambda: self._open_ispyb(url))

    def load_dialects(self, dialects: Sequence[DialectLoader]) -> None:
        """Load the packages that are written for other systems."""
        packages = self.settings.site.implementors
        if packages and not dialects:
            self.findings.append(
                f"site.implementors names {', '.join(packages)}, and nothing here can load such packages"
            )
        for load in dialects:
            loaded = load(packages)
            self.findings += loaded.findings
            self.triggers += tuple(loaded.triggers.items())
            for rule in loaded.rules:
                self._add("rule", self.rules, rule.name, Definition(f"implementors {rule.name}", rule), rule)

    def collect(self, definitions: Iterable[Definition]) -> None:
        """Sort what stands in the site's modules by kind."""
        for definition in definitions:
            match definition.value:
                case Rule() as rule:
                    self._add("rule", self.rules, rule.name, definition, rule)
                case Task() as task:
                    self._add("task", self.tasks, task.name, definition, task)
                case Schedule(asked=Asked()) as schedule:
                    self._add("schedule", self.schedules, schedule.name, definition, schedule)
                case TargetSource() as source:
                    self._add("target source", self.target_sources, source.name, definition, source)
                case Provider() as provider:
                    self._add("provider", self.providers, provider.kind, definition, provider)
                case value if _is_fact_source(value):
                    source = cast("FactSource", value)
                    self._add("fact source", self.fact_sources, source.name, definition, source)
                case _:
                    pass

    def site(self, package: Imported) -> Site:
        """Give the site.

        Raises:
            SiteError: there are findings.
        """
        schedules = tuple(self._described_schedules())
        if self.findings:
            raise SiteError(
                f"the site in {self.settings.folder} cannot be loaded: {len(self.findings)} finding(s)",
                findings=tuple(self.findings),
                because=self.findings[0],
                cure="mend what is found; `labwright check` lists all of it",
            )
        sources = tuple(_values(self.target_sources).values())
        return Site(
            settings=self.settings,
            rules=RuleSet(_values(self.rules).values()),
            tasks=_values(self.tasks),
            fact_sources=tuple(_values(self.fact_sources).values()),
            target_sources=sources,
            providers=_values(self.providers),
            triggers=self.triggers,
            schedules=schedules,
            revision=revision_of(package.files()),
            _targets=SiteTargets(sources, self.settings.state_dir, self.settings.site.decide_timeout),
        )

    def _described_schedules(self) -> Iterator[ScheduleDescription]:
        """Write the schedules down; one whose task, parameters or selector will not do is a finding."""
        for name, (place, schedule) in self.schedules.items():
            try:
                definition = ScheduleDefinition.given(**schedule.written())
                if definition.task not in self.tasks:
                    raise NotFoundError(f"the site has no task {definition.task!r}", because="")
                self.tasks[definition.task][1].validated(definition.params)
            except LabwrightError as error:
                self.findings.append(f"{place}: {': '.join(filter(None, (error.message, error.because)))}")
            else:
                yield ScheduleDescription(name=name, definition=definition)

    def _add(self, kind: str, known: dict[str, tuple[str, T]], name: str, definition: Definition, value: T) -> None:
        if name in known:
            self.findings.append(f"two {kind}s are named {name!r}: {known[name][0]} and {definition.place}")
        else:
            known[name] = (definition.place, value)

    def _open_ispyb(self, url: str) -> None:
        from labwright.facts.ispyb import IspybFacts

        source = IspybFacts(url)
        self.fact_sources[source.name] = ("facts.ispyb", source)

    def _try(self, read: Callable[[], object]) -> None:
        try:
            read()
        except SiteError as error:
            self.findings += error.findings or (error.message,)
        except LabwrightError as error:
            self.findings.append(": ".join(filter(None, (error.message, error.because))))
        except ImportError as error:
            self.findings.append(f"facts.ispyb needs `pip install labwright[ispyb]`: {error}")


def _values(known: Mapping[str, tuple[str, T]]) -> dict[str, T]:
    return {name: value for name, (_, value) in known.items()}


def _is_fact_source(value: object) -> bool:
    """Tell a fact source by its class, since module-level objects may answer to any attribute."""
    return (
        inspect.iscoroutinefunction(getattr(type(value), "facts", None))
        and isinstance(getattr(value, "name", None), str)
        and isinstance(getattr(value, "pattern", None), str)
    )
