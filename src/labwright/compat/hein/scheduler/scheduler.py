"""The scheduler, with hein_control's methods and arguments."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, overload
from weakref import ReferenceType, ref

from labwright.compat.hein.errors import AlreadyTriggeredError, OffsetWarning, UnknownError, WrongValueError
from labwright.compat.hein.scheduler.action import SchedulerAction, TrackedAction
from labwright.compat.hein.scheduler.offsets import END, Insertion, insertion, literal, meant, spacings
from labwright.compat.hein.scheduler.sequence import PointSequence
from labwright.compat.hein.scheduler.timepoint import ActionTimePoint, Given
from labwright.core.clock import Clock, SystemClock
from labwright.plan.policies import Pause
from labwright.schedule.schedule import BESIDE_THE_SCRIPT
from labwright.schedule.table import Rows
from labwright.schedule.timeline import Timeline


class Instances(Sequence["SamplingScheduler"]):
    """The schedulers that somebody still holds, in the order in which they were made."""

    def __init__(self) -> None:
        self._references: list[ReferenceType[SamplingScheduler]] = []

    def append(self, scheduler: SamplingScheduler) -> None:
        """Remember one for as long as somebody holds it."""
        self._references.append(ref(scheduler, self._references.remove))

    @overload
    def __getitem__(self, which: int) -> SamplingScheduler: ...
    @overload
    def __getitem__(self, which: slice) -> list[SamplingScheduler]: ...
    def __getitem__(self, which: int | slice) -> SamplingScheduler | list[SamplingScheduler]:
        return [each for reference in self._references if (each := reference()) is not None][which]

    def __len__(self) -> int:
        return len(self._references)


class SamplingScheduler:
    """Runs actions at time points, as hein_control's does.

    `actions` are callables, names of registered ones, or `SchedulerAction`; `time_deltas` are inserted as a list. What
    follows is Labwright's own: `pause` says what becomes of points whose time comes in a pause, `catch_up_all` being
    hein_control's way; `journal`, `clock` and further options are those of `labwright.Schedule`.

    Raises:
        UsageError: an action or an option will not do.
    """

    CYCLE_TIME: ClassVar[float] = 0.5
    """hein_control's; it has no effect, because nothing polls."""
    WAIT_IF_BUSY: ClassVar[bool] = True
    """hein_control's; it has no effect: a point always waits for the one before."""
    PAUSE: ClassVar[Pause | str] = Pause.SHIFT
    """What becomes of points whose time comes in a pause, for every scheduler that is not told otherwise."""
    UUID_PREFIX: ClassVar[str] = "sched-"
    instances: ClassVar[Instances] = Instances()

    def __init__(
        self,
        *actions: Given,
        time_deltas: Iterable[float] | None = None,
        sequence_name: str | None = None,
        pause: Pause | str | None = None,
        journal: str | os.PathLike[str] | None = BESIDE_THE_SCRIPT,
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        self._uuid = str(uuid.uuid4())
        self.sequence_name = sequence_name
        clock = clock or SystemClock()
        self.created = clock.now().timestamp()
        self._sequence = PointSequence(clock, journal, {"pause": pause or self.PAUSE, **options})
        self._actions: list[SchedulerAction] = []
        for action in actions:
            self.add_default_action(action)
        if time_deltas is not None:
            self.insert_time_point_list(*time_deltas)
        self.instances.append(self)

    def __repr__(self) -> str:
        states = [" STARTED"] * self.started + [" TERMINATED"] * self.terminated
        return f"{type(self).__name__} {self._uuid[:5]}{''.join(states)}"

    @property
    def uuid(self) -> str:
        """The identity of this scheduler."""
        return self.UUID_PREFIX + self._uuid

    @classmethod
    def get_instance_by_uuid(cls, uuid: str) -> SamplingScheduler:
        """Give the scheduler with that uuid.

        Raises:
            UnknownError: there is none, or nobody holds it any more.
        """
        for instance in cls.instances:
            if uuid in {instance.uuid, instance.uuid.removeprefix(cls.UUID_PREFIX)}:
                return instance
        raise UnknownError(
            f"no scheduler has the uuid {uuid!r}",
            because="there was none, or nobody holds it any more",
            cure="keep the scheduler itself",
        )

    @classmethod
    def get_newest_instance(cls) -> SamplingScheduler:
        """Give the scheduler that was made last.

        Raises:
            UnknownError: there is none.
        """
        if not cls.instances:
            raise UnknownError("there is no scheduler", because="none was made, or nobody holds one any more")
        return cls.instances[-1]

    @property
    def actions(self) -> list[SchedulerAction]:
        """The actions of points that name none of their own."""
        return self._actions

    @property
    def started(self) -> bool:
        """Whether the sequence has been started and not been killed; it may be paused, or have no points left."""
        return self._sequence.start_time is not None and not self.terminated

    @property
    def terminated(self) -> bool:
        """Whether the sequence has been killed."""
        return self._sequence.is_killed

    @property
    def paused(self) -> bool:
        """Whether planned points wait for `start_sequence`."""
        return self._sequence.is_paused

    @property
    def current_time(self) -> float | None:
        """The seconds since the start; None before."""
        return self._sequence.elapsed_s

    @property
    def time_points(self) -> list[ActionTimePoint]:
        """All time points in the order of their offsets, those that were triggered by hand among them."""
        return self._sequence.points

    @property
    def triggered_time_points(self) -> int:
        """How many time points have been triggered."""
        return sum(point.triggered for point in self.time_points)

    @property
    def remaining_time_points(self) -> int:
        """How many time points are still to come."""
        return sum(point.is_left for point in self.time_points)

    @property
    def total_time_points(self) -> int:
        """How many time points there are."""
        return len(self.time_points)

    @property
    def completed_time_points(self) -> int:
        """How many time points are over."""
        return sum(point.complete for point in self.time_points)

    @property
    def uncompleted_time_points(self) -> int:
        """How many time points are not over."""
        return len(self.time_points) - self.completed_time_points

    @property
    def next_time_point(self) -> ActionTimePoint | None:
        """The time point that comes next; None when none is left."""
        return next((point for point in self.time_points if point.is_left), None)

    @property
    def last_triggered_time_point(self) -> ActionTimePoint | None:
        """The time point that was triggered last; None before the first."""
        triggered = [point for point in self.time_points if point.triggered]
        return max(triggered, key=lambda point: point.order, default=None)

    @property
    def busy(self) -> bool:
        """Whether a time point runs, or has been triggered and waits for the one that does."""
        return any(point.in_progress for point in self.time_points)

    def add_default_action(self, action: Given) -> None:
        """Add an action to the default ones, and to each time point that is still to come.

        Raises:
            UsageError: it cannot be called, or this instance is there already.
            UnknownError: no action has that name.
        """
        if action in self._actions:
            raise WrongValueError(
                f"{action!r} is a default action already", because="an action is added once", cure="leave it out"
            )
        self._actions.append(SchedulerAction.register_action(action))
        for point in self._remaining():
            with suppress(AlreadyTriggeredError):  # it has begun meanwhile
                point.add_action(action)

    def remove_default_action(self, action: Given) -> None:
        """Take an action from the default ones, and from each time point that is still to come.

        Raises:
            WrongValueError: it is none of them.
        """
        registered = SchedulerAction.register_action(action)
        if registered not in self._actions:
            raise WrongValueError(
                f"{registered.name!r} is no default action",
                because="the default actions are " + (", ".join(each.name for each in self._actions) or "none"),
            )
        self._actions.remove(registered)
        for point in self._remaining():
            if any(each.action is registered for each in point.actions):
                with suppress(AlreadyTriggeredError):  # as above
                    point.remove_action(registered)

    def insert_time_point(  # noqa: PLR0917 - hein_control's
        self,
        time_delta: float | None = None,
        position: int = END,
        relative_to: str = "start",
        shift_subsequent: bool = True,  # noqa: FBT001, FBT002 - hein_control's
        number_of_points: int = 1,
        additional_actions: Iterable[Given] | None = None,
        specified_actions: Iterable[Given] | None = None,
        timepoint_name: str | None = None,
    ) -> None:
        """Insert time points, each `time_delta` seconds after the one before.

        The first counts from the start of the sequence, or from the point before `position` (`relative_to="previous"`).
        Points from `position` on move by the time that was put in. `additional_actions` run after the default ones,
        `specified_actions` instead of them.

        Raises:
            WrongValueError: a number will not do, or there is no such position.
            UnknownError: no action has that name.
        """
        new = self._insertion(time_delta, position, relative_to, shift_subsequent, number_of_points)
        self._insert(new, self._chosen(additional_actions, specified_actions), timepoint_name)

    def insert_time_point_list(
        self,
        *time_deltas: float,
        position: int = END,
        relative_to: str = "previous",
        additional_actions: Iterable[Given] | None = None,
        specified_actions: Iterable[Given] | None = None,
    ) -> None:
        """Insert a time point for each `time_delta`, counted from the point before or from the start.

        Raises:
            WrongValueError: a number will not do, or there is no such position.
            UnknownError: no action has that name.
        """
        actions = self._chosen(additional_actions, specified_actions)
        place = len(self.time_points) if position == END else position
        for number, time_delta in enumerate(time_deltas):
            self._insert(self._insertion(time_delta, place + number, relative_to), actions)

    def insert_time_point_list_pairs(
        self,
        *num_delta_pairs: object,
        position: int = END,
        relative_to: str = "previous",
        additional_actions: Iterable[Given] | None = None,
        specified_actions: Iterable[Given] | None = None,
    ) -> None:
        """Insert points by pairs of how many and how far apart: `5, 60, 10, 300` or `(5, 60), (10, 300)`.

        The first counts from the point before or from the start, each further one from the one before it.

        Raises:
            WrongValueError: these are no pairs, a number will not do, or there is no such position.
            UnknownError: no action has that name.
        """
        time_deltas = list(spacings(num_delta_pairs))
        if str(relative_to).lower() == "previous":
            self.insert_time_point_list(
                *time_deltas,
                position=position,
                additional_actions=additional_actions,
                specified_actions=specified_actions,
            )
            return
        first = self._insertion(time_deltas[0], position, relative_to)
        offsets = tuple(accumulate(time_deltas))
        if offsets != tuple(time_deltas):
            _warn("hein_control repeats one offset for pairs that are relative to the start; here the points follow")
        new = Insertion(offsets=offsets, position=first.position, shift_s=offsets[-1])
        self._insert(new, self._chosen(additional_actions, specified_actions))

    def start_sequence(self, *, fresh: bool = False) -> None:
        """Begin, or go on after a pause; a run that a crash has cut short goes on, unless `fresh`.

        Raises:
            KilledError: the sequence has been killed.
            UsageError: an action of a time point does not take its arguments.
            ConflictError: the file of rows has an unfinished run of another sequence.
            DamagedError: the file of rows has a line that cannot be read.
        """
        self._name_it()
        self._sequence.start(fresh=fresh)

    def pause_sequence(self) -> None:
        """Begin no planned time point until `start_sequence` is called again."""
        self._sequence.pause()

    def kill_sequence(self) -> None:
        """End for good; the time point that runs comes to its end."""
        self._sequence.kill()

    def join(self, timeout: float | None = None) -> None:
        """Wait until all time points are over; Ctrl-C aborts them.

        Raises:
            NotRunningError: the sequence has not been started.
            WaitTimeoutError: the timeout in seconds has passed; the sequence goes on.
        """
        self._sequence.join(timeout)

    def trigger(
        self,
        additional_actions: Iterable[Given] | None = None,
        specified_actions: Iterable[Given] | None = None,
        wait: bool | None = None,  # noqa: FBT001 - hein_control's
        timepoint_name: str | None = None,
        **action_kwargs: Mapping[str, Any],
    ) -> ActionTimePoint:
        """Make a time point now and give it; with `wait`, when it is over.

        It runs after the one that runs, in a pause too. Keywords are passed through under the names of functions:
        `trigger(inject={"volume_ml": 2})`.

        Raises:
            UsageError: keywords are given that no action takes.
            UnknownError: no action has that name.
        """
        actions = self._chosen(additional_actions, specified_actions)
        point = ActionTimePoint(self.current_time or 0.0, timepoint_name, _fresh(actions))
        self._name_it()
        self._sequence.trigger(point, action_kwargs)
        if wait:
            point.wait_for_completion()
        return point

    def wait_for_time_point_completion(self) -> None:
        """Wait until the time points that have been triggered are over."""
        for point in tuple(self.time_points):
            point.wait_for_completion()

    def as_dict(self) -> dict[str, Any]:
        """Give what is known of it."""
        told: dict[str, Any] = {
            "uuid": self.uuid,
            "sequence_name": self.sequence_name,
            "actions": [action.name for action in self._actions],
            "started": self.started,
            "created": self.created,
            "num_time_points": self.total_time_points,
            "sampled_time_points": self.triggered_time_points,
            "remaining_time_points": self.remaining_time_points,
        }
        if self.time_points:
            told["next_time_point"] = None if self.next_time_point is None else self.next_time_point.time_delta
        return {**told, "terminated": True} if self.terminated else told

    def get_time_point_return(self, key: str | None = None) -> dict[str, Any]:
        """Give what the actions of the time point with that uuid have returned, or of the last one triggered.

        Raises:
            UnknownError: there is no such time point.
        """
        if key is None:
            point = self.last_triggered_time_point
        else:
            point = next((each for each in self.time_points if key in {each.uuid, each.plain_uuid}), None)
        if point is None:
            raise UnknownError(
                f"this scheduler has no time point {key!r}" if key else "no time point has been triggered yet",
                because=f"it has {len(self.time_points)} time points",
                cure="see time_points for their uuids",
            )
        return point.action_returns

    @property
    def rows(self) -> Rows:
        """What Labwright's schedule tells of each time point that is over: a table, with exports."""
        return self._sequence.rows

    def visualize_timepoints(self) -> Timeline:
        """Draw the plan before the start, planned beside actual afterwards; print it, or show it in a notebook."""
        self._name_it()
        return self._sequence.timeline()

    def write_timepoints_to_csv(self, file_name: str | None = None, overwrite: bool = True) -> None:  # noqa: FBT001, FBT002 - hein_control's
        """Write the rows as a table, to `YYYY-MM-DD scheduler output.csv` unless a name is given."""
        path = Path(file_name or f"{datetime.now():%Y-%m-%d} scheduler output.csv")  # noqa: DTZ005 - the day of the lab's wall clock
        number = 0
        free = path
        while not overwrite and free.exists():
            number += 1
            free = path.with_stem(f"{path.stem} - {number}")
        self.rows.to_csv(free)

    def _name_it(self) -> None:
        self._sequence.name_after([self.sequence_name] if self.sequence_name else [each.name for each in self._actions])

    def _remaining(self) -> list[ActionTimePoint]:
        return [point for point in self.time_points if point.is_left]

    def _chosen(
        self, additional_actions: Iterable[Given] | None, specified_actions: Iterable[Given] | None
    ) -> tuple[Given, ...]:
        if additional_actions is not None:
            return (*self._actions, *additional_actions)
        return tuple(self._actions if specified_actions is None else specified_actions)

    def _insertion(
        self,
        time_delta: object,
        position: int,
        relative_to: str,
        shift: bool = True,  # noqa: FBT001, FBT002 - as it is passed on
        count: int = 1,
    ) -> Insertion:
        known = Offsets(self.time_points)
        new = insertion(known, time_delta, position=position, relative_to=relative_to, shift=shift, count=count)
        if new.position < len(known) and meant(list(known), new) != literal(list(known), new):
            _warn(
                f"hein_control moves the wrong points when some are put at position {new.position}; here the later move"
            )
        return new

    def _insert(self, new: Insertion, actions: tuple[Given, ...], name: str | None = None) -> None:
        def make(offset: float, number: int) -> ActionTimePoint:
            numbered = f"{name}#{number}" if name and len(new.offsets) > 1 else name
            return ActionTimePoint(offset, numbered, _fresh(actions))

        self._sequence.insert(new, make)


class Offsets(Sequence[float]):
    """The offsets of time points, as a list of numbers."""

    def __init__(self, points: Sequence[ActionTimePoint]) -> None:
        self._points = points

    @overload
    def __getitem__(self, which: int) -> float: ...
    @overload
    def __getitem__(self, which: slice) -> list[float]: ...
    def __getitem__(self, which: int | slice) -> float | list[float]:
        if isinstance(which, slice):
            return [point.time_delta for point in self._points[which]]
        return self._points[which].time_delta

    def __len__(self) -> int:
        return len(self._points)


def _fresh(actions: Iterable[Given]) -> list[TrackedAction]:
    """Make an execution of its own of each action."""
    return [
        TrackedAction(each.action, *each.args, **each.kwargs)
        if isinstance(each, TrackedAction)
        else TrackedAction(each)
        for each in actions
    ]


def _warn(message: str) -> None:
    warnings.warn(message, OffsetWarning, stacklevel=4)
