"""A loaded site as others know it: lists and numbers that can be shown and sent, without its code."""

from __future__ import annotations

from labwright.core.model import Instant, Model, Target
from labwright.plan.durable import ScheduleDefinition
from labwright.plan.tasks import TaskDescription


class RuleDescription(Model):
    """A rule as people see it in lists."""

    name: str
    doc: str = ""
    condition: str = ""


class PoolDescription(Model):
    """A pool that the settings or a task names."""

    name: str
    concurrency: int


class ScheduleDescription(Model):
    """A durable schedule that stands in the site's package."""

    name: str
    definition: ScheduleDefinition


class SiteDescription(Model):
    """A loaded site as others know it: everything but its code. `revision` changes with the package's files."""

    package: str = ""
    folder: str
    loaded_at: Instant
    revision: str
    tasks: tuple[TaskDescription, ...] = ()
    rules: tuple[RuleDescription, ...] = ()
    targets: tuple[Target, ...] = ()
    pools: tuple[PoolDescription, ...] = ()
    schedules: tuple[ScheduleDescription, ...] = ()
    fact_sources: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    implementors: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
