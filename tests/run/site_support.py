"""Small sites written to a folder, for the tests of loading and of deciding."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent
from typing import Any

from labwright.core.model import Event
from labwright.run.settings import Settings, load_settings

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

RULES = """
    from labwright.core.request import Request
    from labwright.decide.conditions import event_type, fact
    from labwright.decide.rules import rule

    @rule(event_type("scan.end") & fact("beam", "on"))
    def reduce(scenario):
        '''Reduce every scan.'''
        yield Request("greet", name=scenario.facts.get("sample", "nobody"))
"""

TASKS = """
    from labwright.plan.tasks import Task, step

    @step
    async def greet(ctx, name: str) -> str:
        return f"Hello {name}"

    greeting = Task("greet", steps=[greet])
"""


def write_site(folder: Path, settings: str = "", *, package: str = "mylab", **modules: str) -> Settings:
    """Write a package of modules (`__` in a name stands for a folder) and load the settings."""
    (folder / package).mkdir(exist_ok=True)
    (folder / package / "__init__.py").touch()
    for name, text in modules.items():
        path = folder / package / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(dedent(text), encoding="utf-8")
    (folder / "labwright.toml").write_text(f'[site]\npackage = "{package}"\n{dedent(settings)}', encoding="utf-8")
    return load_settings(folder, {})


def event(kind: str = "scan.end", number: int = 1, **data: Any) -> Event:
    """Make an event."""
    return Event(id=f"e{number}", source="tests", type=kind, subject="s1", time=NOW, data={"beam": "on", **data})
