"""hein_control's scheduler on Labwright's schedules: scripts run once their imports name this package.

`hein_control.scheduler` becomes `labwright.compat.hein.scheduler`, and so on for every module below. What is different
on purpose stands in the how-to page "Move hein_control scripts over".
"""

from labwright.compat.hein.scheduler import (
    ActionTimePoint,
    SamplingScheduler,
    SchedulerAction,
    TimePoint,
    TrackedAction,
)

__all__ = ["ActionTimePoint", "SamplingScheduler", "SchedulerAction", "TimePoint", "TrackedAction"]
