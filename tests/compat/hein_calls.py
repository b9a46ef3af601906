"""Every documented call of hein_control's scheduler, and what comes of it, as JSON.

Run as a script with the name of a package: `hein_control`, in one of its versions, or `labwright.compat.hein`.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any

ABOUT_ACTIONS = (
    "action_start_times",
    "action_completion_times",
    "action_durations",
    "started_timestamps",
    "relative_start_times",
    "action_returns",
    "actions_status",
)
TOLERANCE_S = 20.0
"""How long something may take that is expected to happen."""


class Library:
    """The names of a version under one roof."""

    def __init__(self, package: str) -> None:
        self.is_ours = not package.startswith("hein_control")
        self.SamplingScheduler = importlib.import_module(f"{package}.scheduler").SamplingScheduler
        try:
            actions = importlib.import_module(f"{package}.scheduler.action")
            points = importlib.import_module(f"{package}.scheduler.timepoint")
        except ImportError:  # late versions
            actions = importlib.import_module(f"{package}.action")
            points = importlib.import_module(f"{package}.timepoint")
        self.is_late = not hasattr(actions, "SchedulerAction")
        self.SchedulerAction = getattr(actions, "SchedulerAction", None) or actions.Action
        self.TrackedAction = actions.TrackedAction
        self.TimePoint = points.TimePoint
        self.ActionTimePoint = points.ActionTimePoint
        self.SamplingScheduler.CYCLE_TIME = 0.005

    def scheduler(self, *actions: Any, **options: Any) -> Any:
        return self.SamplingScheduler(*actions, **options, **({"journal": None} if self.is_ours else {}))

    def point(self, time_delta: float, *actions: Any) -> Any:
        if self.is_late:
            return self.ActionTimePoint.create_from_actions(time_delta, actions)
        return self.ActionTimePoint(time_delta, actions=list(actions))

    def names_of_actions(self) -> list[str]:
        ask = getattr(self.SchedulerAction, "get_register_action_names", None)
        return (ask or self.SchedulerAction.get_registered_action_names)()


Insert = Callable[[Any], object]
OFFSETS: dict[str, Insert] = {
    "one point": lambda s: s.insert_time_point(60),
    "two points, each from the start": lambda s: [s.insert_time_point(60), s.insert_time_point(20)],
    "two points, each from the one before": lambda s: (
        [s.insert_time_point(60, relative_to="previous")] * 1 + [s.insert_time_point(20, relative_to="previous")]
    ),
    "several points": lambda s: s.insert_time_point(15, number_of_points=4),
    "several points after others": lambda s: [
        s.insert_time_point(100),
        s.insert_time_point(15, relative_to="previous", number_of_points=3),
    ],
    "positional arguments": lambda s: s.insert_time_point(15, -1, "previous", True, 2, None, None),
    "a list": lambda s: s.insert_time_point_list(10, 10, 20, 40),
    "a list from the start": lambda s: s.insert_time_point_list(10, 20, 45, relative_to="start"),
    "a list after a list": lambda s: [s.insert_time_point_list(10, 20), s.insert_time_point_list(1, 2)],
    "pairs": lambda s: s.insert_time_point_list_pairs(3, 10, 5, 20),
    "pairs in tuples": lambda s: s.insert_time_point_list_pairs((3, 10), (5, 20)),
    "pairs in lists": lambda s: s.insert_time_point_list_pairs([3, 10], [5, 20]),
    "the published sequence": lambda s: s.insert_time_point_list_pairs(5, 60, 10, 300),
    "a point between others": lambda s: [
        s.insert_time_point_list(5, 5, 10, 10),
        s.insert_time_point(2, position=2, relative_to="previous"),
    ],
    "a point between others, which stay": lambda s: [
        s.insert_time_point_list(5, 5, 10, 10),
        s.insert_time_point(7, position=1, shift_subsequent=False),
    ],
    "a point before the others": lambda s: [
        s.insert_time_point_list(5, 5, 10, 10),
        s.insert_time_point(3, position=0, relative_to="previous"),
    ],
    "a list between others": lambda s: [
        s.insert_time_point_list(50, 50, 50),
        s.insert_time_point_list(2, 3, position=1),
    ],
    "pairs between others": lambda s: [
        s.insert_time_point_list(50, 50, 50),
        s.insert_time_point_list_pairs(2, 3, position=1),
    ],
}
OF_A_DEFECT: dict[str, Insert] = {
    "a point at a position moves itself": lambda s: [
        s.insert_time_point_list(5, 5, 10, 10),
        s.insert_time_point(7, position=0),
    ],
    "points that reach over later ones move themselves": lambda s: [
        s.insert_time_point_list(5, 5, 10, 10),
        s.insert_time_point(10, position=1, relative_to="previous", number_of_points=3),
    ],
    "pairs from the start are all the same": lambda s: s.insert_time_point_list_pairs(3, 10, relative_to="start"),
}


def offsets(library: Library, insert: Insert) -> list[float]:
    scheduler = library.scheduler()
    insert(scheduler)
    return sorted(point.time_delta for point in scheduler.time_points)


def sequence(library: Library) -> dict[str, Any]:
    """Run a sequence with everything that can be said of actions, and tell what was called in which order."""
    called: list[Any] = []

    def take_sample(vial: int = 0) -> int:
        called.append(["take_sample", vial])
        return vial

    def inject(volume_ml: float = 1.0) -> float:
        called.append(["inject", volume_ml])
        return volume_ml

    def rinse() -> None:
        called.append(["rinse"])

    def calibrate() -> None:
        called.append(["calibrate"])

    library.SchedulerAction.register_action(calibrate)
    by_name = calibrate if library.is_late else "calibrate"  # late versions know the names of configurations alone
    scheduler = library.scheduler(take_sample, inject, time_deltas=[0.1], sequence_name="kinetics")
    scheduler.insert_time_point(0.2, additional_actions=[rinse, by_name])
    scheduler.insert_time_point_list(0.1, specified_actions=[rinse])
    scheduler.insert_time_point_list_pairs(1, 0.1, additional_actions=[rinse])
    before = told(library, scheduler)
    as_dict = keys(scheduler.as_dict())
    scheduler.start_sequence()
    scheduler.join()
    scheduler.wait_for_time_point_completion()
    finished(*scheduler.time_points)
    point = scheduler.trigger(wait=True, take_sample={"vial": 7}, inject={"volume_ml": 2.5})
    finished(point)
    finished(scheduler.trigger([rinse], wait=True))
    finished(scheduler.trigger(specified_actions=[by_name], wait=True))
    returned = scheduler.get_time_point_return()
    by_key = scheduler.get_time_point_return(point.uuid)
    after = told(library, scheduler)
    newest = library.SamplingScheduler.get_newest_instance() is scheduler
    scheduler.kill_sequence()
    return {
        "called": called,
        "before": before,
        "after": after,
        "returned": [plain(returned), plain(by_key)],
        "is the newest": newest,
        "terminated": scheduler.terminated,
        "keys": as_dict,
        "point": of_point(point),
    }


def told(library: Library, scheduler: Any) -> dict[str, Any]:
    names = ("started", "terminated", "triggered_time_points", "remaining_time_points", "busy", "sequence_name")
    following = scheduler.next_time_point
    last = scheduler.last_triggered_time_point
    return {
        **{name: getattr(scheduler, name) for name in names},
        "has a time": scheduler.current_time is not None,
        "next": None if following is None else following.time_delta,
        "has a last point": last is not None,
        "uuid": scheduler.uuid[:6],
        "points": len(scheduler.time_points),
    }


def paused(library: Library) -> dict[str, Any]:
    """Pause a sequence, trigger it by hand in the pause, and go on."""
    called: list[str] = []

    def note() -> None:
        called.append("note")

    scheduler = library.scheduler(note, time_deltas=[0.02, 1.0])
    scheduler.start_sequence()
    until(lambda: len(called) == 1)
    finished(scheduler.time_points[0])
    scheduler.pause_sequence()
    in_pause = len(called)
    finished(scheduler.trigger(wait=True))
    triggered = len(called) - in_pause
    scheduler.start_sequence()
    scheduler.join()
    finished(*scheduler.time_points)
    return {"triggered": triggered, "called": called, "points": len(scheduler.time_points)}


def actions(library: Library) -> dict[str, Any]:
    """Register, name and call actions, with arguments merged over the default ones."""

    def mix(a: Any, b: Any = "B", c: Any = "C") -> list[Any]:
        return [a, b, c]

    registered = library.SchedulerAction(mix, 1, c=3)
    merged = []
    for args, kwargs in (((), {}), ((10,), {}), ((10,), {"c": 30}), ((), {"b": 20})):
        tracked = library.TrackedAction(mix)
        tracked(*args, **kwargs)
        merged.append(tracked.method_return)
    tracked = library.TrackedAction(mix)
    pending = {"keys": keys(tracked.as_dict()), "status": tracked.status, "started": tracked.time_started}
    tracked()
    refused = ""
    try:
        library.SchedulerAction(mix)
    except ValueError:
        refused = "ValueError"
    return {
        "merged": merged,
        "pending": pending,
        "done": {
            "keys": keys(tracked.as_dict()),
            "status": tracked.status,
            "name": tracked.action.name,
            "kinds": [
                type(each).__name__
                for each in (
                    tracked.time_started,
                    tracked.time_completed,
                    tracked.started_timestamp,
                    tracked.action_duration,
                )
            ],
            "in order": tracked.time_started <= tracked.time_completed,
        },
        "is registered": [
            library.SchedulerAction.action_is_registered("mix"),
            library.SchedulerAction.action_is_registered(mix),
            library.SchedulerAction.action_is_registered("nosuch"),
            library.SchedulerAction.register_action("mix") is registered,
            library.SchedulerAction.register_action(mix) is registered,
            library.SchedulerAction.register_action(registered) is registered,
            registered in library.SchedulerAction.get_registered_actions(),
            "mix" in library.names_of_actions(),
        ],
        "refused": refused,
        "called": registered(1, 2, 3),
        "name": registered.name,
    }


def time_points(library: Library) -> dict[str, Any]:
    """Compare time points, and trigger some that belong to no scheduler."""
    called: list[Any] = []

    def takes(value: Any = None) -> Any:
        called.append(value)
        return value

    def second() -> str:
        called.append("second")
        return "done"

    point = library.TimePoint(5, "five", "the fifth", "parent")
    later = library.TimePoint(10)
    by_call, by_trigger = library.point(1, takes, second), library.point(2, takes, second)
    before = of_point(by_call)
    by_call(takes={"value": 42})
    by_call.wait_for_completion()
    finished(by_call)
    by_trigger.trigger(wait=True, takes={"value": 43})
    finished(by_trigger)
    twice = ""
    try:
        by_call.trigger()
    except (SystemError, RuntimeError):
        twice = "raised"
    return {
        "compared": [
            point < later,
            point <= 5,
            point == 5,
            point > 4.5,
            point >= later,
            later == library.TimePoint(10),
        ],
        "of a reference": point.sample_time_from_reference(100),
        "described": [point.name, point.description, point.parent_sequence_id, point.time_delta],
        "uuids": [point.uuid[:3], by_call.uuid[:4]],
        "keys": [] if library.is_late else keys(point.as_dict()),  # late versions raise NotImplementedError
        "before": before,
        "after": of_point(by_call),
        "called": called,
        "twice": twice,
    }


def of_point(point: Any) -> dict[str, Any]:
    """Tell what a time point tells of its actions."""
    states = {"triggered": point.triggered, "in_progress": point.in_progress, "complete": point.complete}
    names = {name: keys_of(point, name) for name in ABOUT_ACTIONS} if point.triggered else {}
    return {
        **states,
        **names,
        "keys": keys(point.as_dict()),
        "returns": plain(point.action_returns) if point.triggered else {},
        "string": str(point.string_time_delta).split(".")[0],
    }


def keys_of(point: Any, name: str) -> list[str]:
    try:
        return keys(getattr(point, name))
    except ValueError:  # of a sequence that has not started
        return []


def keys(told: dict[str, Any]) -> list[str]:
    """Give the keys in order; late versions number the names of functions that are used again."""
    return [re.sub(r"_\d+$", "", key) for key in told]


def plain(returned: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(keys(returned), returned.values(), strict=True))


def finished(*points: Any) -> None:
    """Wait until points are over; hein_control may say so before their thread has begun."""
    for point in points:
        until(lambda point=point: all(status.endswith("COMPLETE") for status in point.actions_status.values()))
        until(lambda point=point: point.complete)


def until(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + TOLERANCE_S
    while not happens():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.001)


def main(package: str) -> dict[str, Any]:
    library = Library(package)
    return {
        "offsets": {name: offsets(library, insert) for name, insert in OFFSETS.items()},
        "offsets of a defect": {name: offsets(library, insert) for name, insert in OF_A_DEFECT.items()},
        "sequence": sequence(library),
        "paused": paused(library),
        "actions": actions(library),
        "time points": time_points(library),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1]), indent=1))
