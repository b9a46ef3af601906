"""The scheduler, its actions and its time points, as `hein_control.scheduler` offers them."""

from labwright.compat.hein.scheduler.action import SchedulerAction, TrackedAction
from labwright.compat.hein.scheduler.scheduler import SamplingScheduler
from labwright.compat.hein.scheduler.timepoint import ActionTimePoint, TimePoint

__all__ = ["ActionTimePoint", "SamplingScheduler", "SchedulerAction", "TimePoint", "TrackedAction"]
