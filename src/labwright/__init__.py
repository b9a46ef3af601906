"""Labwright: decides what to do when something happens, does it, and survives everything.

These are the names that a site, its tests and scripts use. Each loads what it needs when it is first used, so that
`import labwright` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labwright.agents.agent import Agent
    from labwright.agents.blocking_session import BlockingSession
    from labwright.agents.from_script import script_session
    from labwright.agents.operation import operation, process
    from labwright.agents.session import Session
    from labwright.client import Lab, connect, connect_async
    from labwright.core.errors import Finding, NotApplicable, TerminalError, TransientError
    from labwright.core.model import Event
    from labwright.core.request import Request
    from labwright.decide.rules import RuleSet, rule
    from labwright.decide.scenario import Scenario
    from labwright.facts.source import fact_source
    from labwright.facts.targets import target_source
    from labwright.plan.calendar import calendar
    from labwright.plan.cron import cron
    from labwright.plan.policies import Crash, Late, OnError, Overlap, Pause, Stop
    from labwright.plan.providers import provides
    from labwright.plan.retry import Retry
    from labwright.plan.steps import output_of, step, wait_for
    from labwright.plan.tasks import Task, task
    from labwright.plan.timepoints import after, at, every, pairs
    from labwright.run.context import BlockingContext, TaskContext
    from labwright.schedule.actions import Action
    from labwright.schedule.schedule import Schedule

__version__ = "0.1.0"

__all__ = [
    "Action",
    "Agent",
    "BlockingContext",
    "BlockingSession",
    "Crash",
    "Event",
    "Finding",
    "Lab",
    "Late",
    "NotApplicable",
    "OnError",
    "Overlap",
    "Pause",
    "Request",
    "Retry",
    "RuleSet",
    "Scenario",
    "Schedule",
    "Session",
    "Stop",
    "Task",
    "TaskContext",
    "TerminalError",
    "TransientError",
    "__version__",
    "after",
    "at",
    "calendar",
    "connect",
    "connect_async",
    "cron",
    "every",
    "fact_source",
    "operation",
    "output_of",
    "pairs",
    "process",
    "provides",
    "rule",
    "script_session",
    "step",
    "target_source",
    "task",
    "wait_for",
]

_HOMES = {
    "labwright.agents.agent": ("Agent",),
    "labwright.agents.blocking_session": ("BlockingSession",),
    "labwright.agents.from_script": ("script_session",),
    "labwright.agents.operation": ("operation", "process"),
    "labwright.agents.session": ("Session",),
    "labwright.client": ("Lab", "connect", "connect_async"),
    "labwright.core.errors": ("Finding", "NotApplicable", "TerminalError", "TransientError"),
    "labwright.core.model": ("Event",),
    "labwright.core.request": ("Request",),
    "labwright.decide.rules": ("RuleSet", "rule"),
    "labwright.decide.scenario": ("Scenario",),
    "labwright.facts.source": ("fact_source",),
    "labwright.facts.targets": ("target_source",),
    "labwright.plan.providers": ("provides",),
    "labwright.plan.retry": ("Retry",),
    "labwright.plan.steps": ("output_of", "step", "wait_for"),
    "labwright.plan.tasks": ("Task", "task"),
    "labwright.plan.calendar": ("calendar",),
    "labwright.plan.cron": ("cron",),
    "labwright.plan.policies": ("Crash", "Late", "OnError", "Overlap", "Pause", "Stop"),
    "labwright.plan.timepoints": ("after", "at", "every", "pairs"),
    "labwright.run.context": ("BlockingContext", "TaskContext"),
    "labwright.schedule.actions": ("Action",),
    "labwright.schedule.schedule": ("Schedule",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, and keep it."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
