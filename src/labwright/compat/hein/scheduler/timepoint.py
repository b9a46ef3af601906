"""Time points: moments in seconds after the start of a sequence, with or without actions."""

from __future__ import annotations

import itertools
import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Protocol
from weakref import WeakValueDictionary

from labwright.compat.hein.errors import AlreadyTriggeredError, UnknownError, WrongValueError
from labwright.compat.hein.scheduler.action import SchedulerAction, TrackedAction, tracked
from labwright.compat.hein.scheduler.offsets import checked_delta
from labwright.core.clock import Clock
from labwright.core.errors import UsageError
from labwright.plan.timepoints import after
from labwright.schedule.actions import Action, unique_labels
from labwright.schedule.rows import Outcome, Row
from labwright.schedule.schedule import Schedule

log = logging.getLogger("labwright.compat.hein")

Given = str | Callable[..., Any] | SchedulerAction | TrackedAction


class TimePoint:
    """A moment, `time_delta` seconds after the start of a sequence; compares by that with others and with numbers."""

    UUID_PREFIX: ClassVar[str] = "tp-"
    _instances: ClassVar[WeakValueDictionary[str, TimePoint]] = WeakValueDictionary()

    def __init__(
        self,
        time_delta: float,
        name: str | None = None,
        description: str | None = None,
        parent_sequence_id: str | None = None,
    ) -> None:
        self.time_delta = checked_delta(time_delta)
        self.name = name
        self.description = description
        self.parent_sequence_id = parent_sequence_id
        self.sequence_time_started: float | None = None
        self._uuid = str(uuid.uuid4())
        TimePoint._instances[self._uuid] = self

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.time_delta} s"

    @property
    def uuid(self) -> str:
        """The identity of this time point."""
        return self.UUID_PREFIX + self._uuid

    @property
    def plain_uuid(self) -> str:
        """The same without its prefix."""
        return self._uuid

    @classmethod
    def get_instance(cls, key: str) -> TimePoint:
        """Give the time point with that uuid, its prefix present or not.

        Raises:
            UnknownError: there is none, or nothing holds it any more.
        """
        for prefix in ("", cls.UUID_PREFIX, ActionTimePoint.UUID_PREFIX):
            found = cls._instances.get(key.removeprefix(prefix))
            if found is not None:
                return found
        raise UnknownError(
            f"no time point has the uuid {key!r}",
            because="there was none, or it is gone",
            cure="keep the time point itself, or that of its scheduler's time_points",
        )

    def sample_time_from_reference(self, reference_time: float) -> float:
        """Give the moment in seconds for a sequence that starts at that time."""
        return self.time_delta + reference_time

    @property
    def basic_dict(self) -> dict[str, Any]:
        """What every time point tells of itself."""
        return {
            "time_delta": self.time_delta,
            "uuid": self.uuid,
            "name": self.name,
            "class": type(self).__name__,
        }

    def as_dict(self) -> dict[str, Any]:
        """Give what is known of it."""
        return self.basic_dict

    def __eq__(self, other: object) -> bool:
        return self.time_delta == seconds if (seconds := _seconds(other)) is not None else NotImplemented

    __hash__ = None  # pyright: ignore[reportAssignmentType] - equal by what may change

    def __lt__(self, other: object) -> bool:
        return self.time_delta < seconds if (seconds := _seconds(other)) is not None else NotImplemented

    def __le__(self, other: object) -> bool:
        return self.time_delta <= seconds if (seconds := _seconds(other)) is not None else NotImplemented

    def __gt__(self, other: object) -> bool:
        return self.time_delta > seconds if (seconds := _seconds(other)) is not None else NotImplemented

    def __ge__(self, other: object) -> bool:
        return self.time_delta >= seconds if (seconds := _seconds(other)) is not None else NotImplemented


class Parent(Protocol):
    """What a time point needs of the scheduler that it belongs to."""

    @property
    def clock(self) -> Clock:
        """The clock by which it runs."""
        ...

    @property
    def start_time(self) -> float | None:
        """When the sequence was started, in seconds since the epoch."""
        ...

    def trigger_point(self, point: ActionTimePoint, keywords: Mapping[str, Any]) -> None:
        """Run a point now."""
        ...

    def change(self, point: ActionTimePoint, edit: Callable[[], object]) -> None:
        """Change the actions of a point that has not begun."""
        ...


class ActionTimePoint(TimePoint):
    """A time point at which actions run, one after another.

    Dictionaries of what is known of them have the actions' names as keys; the second of a name is `name_2`.
    """

    UUID_PREFIX: ClassVar[str] = "atp-"

    def __init__(self, time_delta: float, name: str | None = None, actions: Iterable[Given] = ()) -> None:
        super().__init__(time_delta, name)
        self._actions = [tracked(each) for each in actions]
        self.row: Row | None = None
        """What Labwright's schedule tells of this point, when it is over."""
        self.parent: Parent | None = None
        self.row_name = ""
        """The name that this point has in rows; it is given by its scheduler."""
        self.is_planned = False
        """Whether a schedule waits for its moment."""
        self.order = 0
        """Which of all time points this was when it was triggered."""
        self._is_triggered = False
        self._has_ended = threading.Event()
        self._guard = threading.Lock()

    def __repr__(self) -> str:
        state = " COMPLETE" if self.complete else " TRIGGERED" if self.triggered else ""
        return f"{type(self).__name__} {self.string_time_delta}{state}"

    def __call__(self, wait: bool | None = None, **kwargs: Mapping[str, Any]) -> None:  # noqa: FBT001 - as `trigger`
        """Do the same as `trigger`."""
        self.trigger(wait, **kwargs)

    @property
    def actions(self) -> list[TrackedAction]:
        """The actions, in the order in which they run."""
        return self._actions

    def add_action(self, action: Given, location: int | None = None) -> None:
        """Add an action, at the end or at a place.

        Raises:
            AlreadyTriggeredError: it has been triggered.
        """
        place = len(self._actions) if location is None else location
        added = tracked(action)
        self._change(lambda: self._actions.insert(place, added))

    def remove_action(self, action: Given) -> None:
        """Take an action away, the first of that name or callable.

        Raises:
            WrongValueError: it is not there.
            AlreadyTriggeredError: it has been triggered.
        """
        sought = tracked(action)
        for place, each in enumerate(self._actions):
            if each is sought or (each.action is sought.action and not isinstance(action, TrackedAction)):
                self._change(lambda: self._actions.pop(place))  # noqa: B023 - it is called at once
                break
        else:
            raise WrongValueError(
                f"{sought.name!r} is no action of this time point",
                because="its actions are " + (", ".join(each.name for each in self._actions) or "none"),
                cure="name one of them",
            )

    def trigger(self, wait: bool | None = None, **kwargs: Mapping[str, Any]) -> None:  # noqa: FBT001 - hein_control's
        """Run the actions now; keywords are passed through under their names: `trigger(takes={"value": 42})`.

        Raises:
            AlreadyTriggeredError: it has been triggered before.
            UsageError: keywords are given that no action takes.
        """
        self.claim()
        try:
            if self.parent:
                self.parent.trigger_point(self, kwargs)
            else:
                self._run_alone(kwargs)
        except UsageError:
            self._is_triggered = False
            raise
        if wait:
            self.wait_for_completion()

    def wait_for_completion(self, cycle_time: float = 0.1, timeout: float | None = None) -> None:
        """Wait until it is over, for `timeout` seconds at most; return at once if it has not been triggered.

        `cycle_time` is hein_control's and has no effect: nothing polls.
        """
        del cycle_time
        if self.triggered:
            self._has_ended.wait(timeout)

    @property
    def string_time_delta(self) -> str:
        """The seconds after the start, as hours, minutes and seconds."""
        return str(timedelta(seconds=self.time_delta))

    @property
    def triggered(self) -> bool:
        """Whether it has been triggered, by hand or because its moment had come."""
        return self._is_triggered

    @property
    def in_progress(self) -> bool:
        """Whether it has been triggered and is not over."""
        return self._is_triggered and not self._has_ended.is_set()

    @property
    def complete(self) -> bool:
        """Whether it has been triggered and is over, after an error too."""
        return self._is_triggered and self._has_ended.is_set()

    @property
    def is_left(self) -> bool:
        """Whether it is still to come."""
        return not self._is_triggered and self.row is None

    @property
    def action_start_times(self) -> dict[str, float | None] | None:
        """When each action began, in seconds since the epoch; None before the trigger."""
        return self._of_each(lambda action: action.time_started)

    @property
    def action_completion_times(self) -> dict[str, float | None] | None:
        """When each action ended, in seconds since the epoch."""
        return self._of_each(lambda action: action.time_completed)

    @property
    def action_durations(self) -> dict[str, float | None] | None:
        """How long each action took, in seconds."""
        return self._of_each(lambda action: action.action_duration)

    @property
    def started_timestamps(self) -> dict[str, datetime | None] | None:
        """When each action began, in local time."""
        return self._of_each(lambda action: action.started_timestamp)

    @property
    def relative_start_times(self) -> dict[str, float]:
        """When each action began, in seconds after the start of the sequence.

        Raises:
            WrongValueError: it has not been triggered, or belongs to no sequence that has started.
        """
        start = self.sequence_time_started
        if not self._is_triggered or start is None:
            raise WrongValueError(
                f"{self!r} has no start times that are relative to a sequence",
                because="no sequence has started" if self._is_triggered else "it has not been triggered yet",
                cure="ask when its scheduler has started and triggered it",
            )
        times = self.action_start_times or {}
        return {name: seconds - start for name, seconds in times.items() if seconds is not None}

    @property
    def action_returns(self) -> dict[str, Any]:
        """What each action has returned; None for those that have not."""
        return {name: action.method_return for name, action in self.named_actions}

    @property
    def actions_status(self) -> dict[str, str]:
        """The status of each action."""
        return {name: action.status for name, action in self.named_actions}

    def as_dict(self) -> dict[str, Any]:
        """Give what is known of it and of each of its actions."""
        return {
            **self.basic_dict,
            "triggered": self.triggered,
            "actions": [action.as_dict() for action in self._actions],
        }

    @property
    def named_actions(self) -> list[tuple[str, TrackedAction]]:
        """Each action with a name of its own in this point."""
        seen: dict[str, int] = {}
        named: list[tuple[str, TrackedAction]] = []
        for action in self._actions:
            seen[action.name] = number = seen.get(action.name, 0) + 1
            named.append((action.name if number == 1 else f"{action.name}_{number}", action))
        return named

    def keywords(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Turn keywords by the names of functions into keywords by the labels of a schedule's actions."""
        labels = unique_labels(self.scheduled())
        names = [
            (label, {name, action.name}) for label, (name, action) in zip(labels, self.named_actions, strict=False)
        ]
        passed: dict[str, Any] = {}
        for key, keywords in given.items():
            for label in [label for label, known_as in names if key in known_as] or [key]:
                both = isinstance(keywords, Mapping) and label in passed
                passed[label] = {**passed[label], **keywords} if both else keywords
        return passed

    def scheduled(self) -> list[Action]:
        """Give the actions as a schedule calls them."""
        return [PointAction(self, action) for action in self._actions] or [Action(self.begin, label="nothing")]

    def claim(self) -> None:
        """Take note that it is triggered.

        Raises:
            AlreadyTriggeredError: it has been.
        """
        with self._guard:
            self._refuse_when_triggered()
            self._is_triggered = True
            self.order = next(_order)

    def begin(self) -> None:
        """Take note that its actions begin."""
        if self.parent:
            self.sequence_time_started = self.parent.start_time
        with self._guard:
            if not self._is_triggered:
                self._is_triggered = True
                self.order = next(_order)

    def end(self, row: Row) -> None:
        """Take note of how it has ended."""
        self.row = row
        if row.outcome is Outcome.FAILED:
            log.error("%r has failed: %s", self, row.reason + ": " + str((row.error or {}).get("message", "")))
        self._is_triggered = self._is_triggered or row.started_at is not None
        self._has_ended.set()

    def _change(self, edit: Callable[[], object]) -> None:
        self._refuse_when_triggered()
        if self.parent:
            self.parent.change(self, edit)
        else:
            edit()

    def _run_alone(self, keywords: Mapping[str, Any]) -> None:
        schedule = Schedule(*self.scheduled(), name="trigger", journal=None, on_row=self.end)
        schedule.insert(after(0), **self.keywords(keywords)).start()

    def _refuse_when_triggered(self) -> None:
        if self._is_triggered:
            raise AlreadyTriggeredError(
                f"{self!r} has been triggered already",
                because="a time point happens once, and keeps what came of it",
                cure="make another ActionTimePoint, or use the scheduler's trigger()",
            )

    def _of_each(self, ask: Callable[[TrackedAction], Any]) -> dict[str, Any] | None:
        return {name: ask(action) for name, action in self.named_actions} if self._is_triggered else None


class PointAction(Action):
    """An action of a time point, with the arguments that it has when it is called."""

    def __init__(self, point: ActionTimePoint, tracked_action: TrackedAction) -> None:
        super().__init__(tracked_action.action.action)
        self._point = point
        self._tracked = tracked_action

    def arguments(self, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Give the arguments of a call by name.

        Raises:
            UsageError: the function does not take these.
        """
        self.args, self.kwargs = self._tracked.args, self._tracked.kwargs
        return super().arguments(keywords)

    def call(self, keywords: Mapping[str, Any]) -> Any:
        """Call the function, and keep what is known of that."""
        self._point.begin()
        if self._point.parent:
            self._tracked.clock = self._point.parent.clock
        return self._tracked.perform(keywords)


_order = itertools.count(1)


def _seconds(other: object) -> float | None:
    if isinstance(other, TimePoint):
        return other.time_delta
    return other if isinstance(other, int | float) else None
