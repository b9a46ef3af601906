"""What a schedule of a task asks the lab for: such a schedule stands in a site's package and is kept by the lab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labwright.core.errors import UsageError
from labwright.core.ids import checked_name
from labwright.core.plain import to_plain
from labwright.plan.point_forms import to_form
from labwright.plan.points import Points, Union
from labwright.plan.policies import Policies


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A task, on which targets, with what; `window` in seconds."""

    task: str
    on: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    priority: int = 0
    window: float | None = None
    zone: str = "UTC"

    def definition(self, name: str, points: Sequence[Points], policies: Policies) -> dict[str, Any]:
        """Give the fields of a durable schedule's definition.

        Raises:
            UsageError: there are no points, or such as cannot be written down.
        """
        if not points:
            raise UsageError(
                f"the schedule {name!r} has no time points",
                because="nothing would ever be due",
                cure='add some, as in .every(60) or .cron("30 2 * * *")',
            )
        return {
            "task": self.task,
            "on": self.on,
            "params": to_plain(dict(self.params)),
            "priority": self.priority,
            "points": to_form(points[0] if len(points) == 1 else Union(tuple(points))),
            "zone": self.zone,
            "overlap": policies.overlap.value,
            "late": policies.late.value,
            "tolerance_s": policies.tolerance,
            "pause": policies.pause.value,
            "on_error": policies.on_error.value,
            "window_s": self.window,
        }


def asked_by(
    actions: Sequence[object],
    *,
    on: str | None,
    params: Mapping[str, Any] | None,
    priority: int,
    window: float | None,
) -> Asked | None:
    """Tell what a schedule asks for, if it is one of a task.

    Raises:
        UsageError: it has a task among functions, or options that are for a task alone.
    """
    tasks = [each for each in actions if isinstance(each, str)]
    if not tasks:
        if on is not None or params is not None or priority or window is not None:
            raise UsageError(
                "on, params, priority and window are for the schedule of a task",
                because="this one calls functions",
                cure='name a task, Schedule("rotate", on="env=prod"), or give arguments with Action(function, ...)',
            )
        return None
    if len(actions) != 1:
        raise UsageError(
            "a schedule has one task, or functions",
            because="a task is run by the lab, on its targets, step by step",
            cure="make a schedule for each task, or one task of several steps",
        )
    return Asked(task=checked_name(tasks[0], "task"), on=on, params=params or {}, priority=priority, window=window)


def of_a_task(name: str, task: str) -> UsageError:
    """Give the error that a schedule of a task does not run in a script."""
    return UsageError(
        f"the schedule {name!r} cannot be started here",
        because=f"it has the lab run the task {task!r}, so the lab keeps it",
        cure="let it stand in a module of the site's package, then labwright reload; a script takes functions",
    )


def of_functions(name: str) -> UsageError:
    """Give the error that a schedule of functions is not kept by a lab."""
    return UsageError(
        f"the schedule {name!r} calls functions",
        because="a lab keeps schedules of tasks: functions cannot be written down",
        cure="make a task of them, and name it: Schedule('task')",
    )


def only_for_functions(name: str) -> UsageError:
    """Give the error that something is not for the schedule of a task."""
    return UsageError(
        f"the schedule {name!r} has also(), a safe_state or locks",
        because="these are functions of a script, and this one has the lab run a task",
        cure="give the task more steps and locks",
    )
