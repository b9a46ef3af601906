"""The tasks that every site has without defining them."""

from __future__ import annotations

from typing import Any

from labwright.core.errors import NotApplicable
from labwright.plan.tasks import Task, step
from labwright.run.fleet_tasks import FLEET_TASKS


@step
async def register_job(_ctx: Any, **parameters: Any) -> None:
    """Register a processing job in ISPyB and start it."""
    raise NotApplicable(
        "registering jobs in ISPyB comes with a later version",
        because=f"this version keeps the request with its {len(parameters)} parameters and does nothing",
        cure="run the recipe itself: a request for the task of its name",
    )


BUILTIN_TASKS = (
    *FLEET_TASKS,
    Task("ispyb-job", steps=[register_job], doc="Register a processing job in ISPyB (not yet)."),
)
