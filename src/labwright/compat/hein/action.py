"""The actions under the name of the module that later versions of hein_control have."""

from labwright.compat.hein.scheduler.action import SchedulerAction, TrackedAction

Action = SchedulerAction

__all__ = ["Action", "SchedulerAction", "TrackedAction"]
