"""The time points under the name of the module that later versions of hein_control have."""

from labwright.compat.hein.scheduler.timepoint import ActionTimePoint, TimePoint

__all__ = ["ActionTimePoint", "TimePoint"]
