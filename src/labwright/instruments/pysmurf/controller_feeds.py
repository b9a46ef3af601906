"""A controller's feeds: what its operations found, as samples for whoever records them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from labwright.agents.feeds import Feed
from labwright.instruments.pysmurf.on_smurf.statistics import sample_of

QUANTILE_FEEDS = ("noise_results", "iv_results", "bias_step_results", "bias_wave_results")
COUNTS = ("biased_total",)
STATE_FIELDS = (
    *("num_active_channels", "downsample_factor", "agg_time", "open_g3stream", "pysmurf_action"),
    *("pysmurf_action_timestamp", "stream_tag", "stream_id"),
)


class Feeds:
    """The feeds `tracking_results`, `state_results` and one for each kind of measurement."""

    def __init__(self, make: Callable[[str], Feed], good_threshold: float) -> None:
        self._good_threshold = good_threshold
        names = ("tracking_results", "state_results", *QUANTILE_FEEDS)
        self._feeds = {name: make(name) for name in names}

    def quantiles(self, feed: str, result: Mapping[str, Any]) -> Mapping[str, Any]:
        """Publish the quantiles in a result, and its counts; gives the result."""
        sample: dict[str, Any] = {name: result[name] for name in COUNTS if name in result}
        for number, count in enumerate(result.get("biased_per_bg", ())):
            sample[f"biased_bg{number}"] = count
        for record in result.get("quantiles", {}).values():
            sample |= sample_of(record)
        if sample:
            self._feeds[feed].publish(sample)
        return result

    def tracking(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        """Publish how many channels of each band track, and an alarm where too few do; gives the result."""
        sample: dict[str, Any] = {}
        pairs = zip(result["all_det_num"], result["good_det_num"], strict=True)
        for band, (every, good) in enumerate(pairs):
            if every:
                sample[f"all_det_num_band{band}"] = every
                sample[f"good_det_num_band{band}"] = good
                sample[f"alarm_band{band}"] = good / every < self._good_threshold
        if sample:
            self._feeds["tracking_results"].publish(sample)
        return result

    def state(self, data: Mapping[str, Any]) -> None:
        """Publish what the SMuRF does."""
        sample = {name: data[name] for name in STATE_FIELDS if isinstance(data.get(name), str | bool | int | float)}
        if sample:
            self._feeds["state_results"].publish(sample)
