"""A durable schedule as it is written down: what it asks for, when, and by which policies; and where it stands."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, ValidationError

from labwright.core.errors import UsageError
from labwright.core.ids import checked_name
from labwright.core.model import Instant, Model
from labwright.core.selectors import parse_selector
from labwright.plan.fan_out import FanOut
from labwright.plan.local_time import zone_named
from labwright.plan.point_forms import from_form
from labwright.plan.points import Points
from labwright.plan.policies import Late, OnError, Overlap, Pause

SPREAD_CHECKED = 100
"""How many points are looked at for the shortest time between two."""
SOME_START = datetime(2026, 1, 1, tzinfo=UTC)
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ScheduleDefinition(Model):
    """What a durable schedule asks for and when; `points` is the JSON form of its time points.

    `zone` is the one in which its points are shown. `tolerance_s` is used by `late="skip"`. A run starts at the latest
    `window_s` after its point, or never, and is aborted when it has not ended `cutoff_s` after it. The runs of a point
    are spread over `spread_s`, each target at a moment of its own. With `fleet`, the options of a `FanOut`, one run
    makes the others, wave after wave.
    """

    task: str
    on: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    priority: int = 0
    points: dict[str, Any]
    zone: str = "UTC"
    overlap: Overlap = Overlap.WAIT
    late: Late = Late.RUN
    tolerance_s: Seconds = 1.0
    pause: Pause = Pause.SHIFT
    on_error: OnError = OnError.NEXT_POINT
    window_s: Seconds | None = None
    cutoff_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    spread_s: Seconds = 0.0
    fleet: dict[str, Any] | None = None

    @cached_property
    def when(self) -> Points:
        """The time points."""
        return from_form(self.points)

    @classmethod
    def given(cls, **fields: Any) -> Self:
        """Make a definition of what somebody has written.

        Raises:
            UsageError: something in it will not do.
        """
        try:
            return checked(cls(**fields))
        except ValidationError as error:
            wrong = error.errors()[0]
            where = ".".join(map(str, wrong["loc"]))
            raise UsageError(
                f"a schedule cannot have {where} {wrong['input']!r}", because=wrong["msg"], cure="see its --help"
            ) from None


Definition = TypeVar("Definition", bound=ScheduleDefinition)


def checked(definition: Definition) -> Definition:
    """Return a definition that can be kept.

    Raises:
        UsageError: the task's name, the selector, the zone or the points will not do.
    """
    checked_name(definition.task, "task")
    zone_named(definition.zone)
    if definition.on is not None:
        parse_selector(definition.on)
    if definition.when.is_open:
        raise UsageError(
            "these time points count from what a run does",
            because="the points of a durable schedule are known beforehand, so that they outlive any process",
            cure="have the task ask for what follows, or use a Schedule in a script",
        )
    _check_spread(definition)
    if definition.fleet is not None:
        FanOut.given(**definition.fleet)
    if definition.on_error is OnError.RETRY:
        raise UsageError(
            "a durable schedule does not retry",
            because="the task's own retry policy does, step by step",
            cure="give the task a Retry(...), and use next_point or stop here",
        )
    return definition


def _check_spread(definition: ScheduleDefinition) -> None:
    if definition.on is None and (definition.spread_s or definition.fleet is not None):
        raise UsageError(
            "a schedule without targets has nothing to spread, and no waves",
            because="both are about the targets of one point",
            cure="choose them: --on crate=1",
        )
    if definition.spread_s and definition.fleet is not None:
        raise UsageError(
            "a schedule has a spread or waves",
            because="waves say when each target has its turn, and so does a spread",
            cure="leave one of them out",
        )
    first = definition.when.preview(SPREAD_CHECKED, start=SOME_START)
    gap_s = min(((b - a).total_seconds() for a, b in pairwise(first)), default=math.inf)
    if definition.spread_s > gap_s:
        raise UsageError(
            f"a spread of {definition.spread_s:g} s is too long",
            because=f"the next point may come {gap_s:g} s after one, when its last target has not begun",
            cure=f"spread over {gap_s:g} s at most",
        )


class ScheduleState(StrEnum):
    """Where a durable schedule stands."""

    ACTIVE = "active"
    PAUSED = "paused"
    REMOVED = "removed"


class PointOutcome(StrEnum):
    """What became of a point for which no run was made, in the words of all schedules."""

    FAILED = "failed"
    SKIPPED_BUSY = "skipped_busy"
    SKIPPED_LATE = "skipped_late"
    MISSED_PAUSED = "missed_paused"
    MISSED_DOWN = "missed_down"
    BYPASSED = "bypassed"


class DuePoint(Model):
    """A time point of a durable schedule: when it was planned, and when it is due after the pauses that moved it."""

    planned_at: Instant
    due_at: Instant
    name: str = ""
    fired: str = ""
    """The id of the act by which somebody made it now; empty for a planned one."""

    def missed(self, outcome: PointOutcome, reason: str) -> MissedPoint:
        """Give the row that says why no run was made for it."""
        return MissedPoint.model_construct(
            planned_at=self.planned_at,
            due_at=self.due_at,
            name=self.name,
            fired=self.fired,
            outcome=outcome,
            reason=reason,
        )


class MissedPoint(DuePoint):
    """A point for which no run was made, and why."""

    outcome: PointOutcome
    reason: str = ""


class PauseSpan(Model):
    """A pause that has ended, whose points are not settled yet."""

    from_at: Instant
    to_at: Instant


class ScheduleSnapshot(Model):
    """A durable schedule as far as the journal tells.

    Every point that was due up to `watermark` is settled: it has its runs, or a row that says why not, or it is one of
    those that are `waiting`. `generation` is the id of the record that has defined it.
    """

    name: str
    generation: str
    definition: ScheduleDefinition
    origin: str = "operator"
    by: str = ""
    role: str = ""
    state: ScheduleState = ScheduleState.ACTIVE
    reason: str = ""
    """Why it is paused, if it was not a person who paused it."""
    defined_at: Instant
    watermark: Instant
    waiting: tuple[DuePoint, ...] = ()
    skips: int = 0
    """How many of the next points are to be left out."""
    fires: tuple[DuePoint, ...] = ()
    """Points that somebody has made and that have no runs yet."""
    paused_at: Instant | None = None
    pauses: tuple[PauseSpan, ...] = ()
    moved_s: float = 0.0
    """By how many seconds pauses have moved the points that count seconds."""
    counted_to: Instant
    """The watermark of the points that count seconds, as it were without pauses."""
    rows: tuple[MissedPoint, ...] = ()
    """The newest points for which no run was made, oldest first."""

    @property
    def start(self) -> datetime:
        """The moment from which points count."""
        return self.defined_at

    @property
    def is_active(self) -> bool:
        """Tell whether points are made."""
        return self.state is ScheduleState.ACTIVE


def before(moment: datetime) -> datetime:
    """Give the watermark of a schedule that begins then: a point at that very moment is still made."""
    return moment - timedelta(microseconds=1)
