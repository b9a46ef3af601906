"""What goes in and out of a course: points on their way, what it orders to be done, and what it must know of a past."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from labwright.plan.points import Since, TimePoint
from labwright.plan.policies import Policies
from labwright.schedule.rows import Outcome

Key = tuple[int, int]
"""The strand of a point and its place in it, from 1: the same in each reading of the same plan.

Strands of the plan are numbered from 0. Points that are fired by hand are on one of their own, and strands that are
inserted later are numbered downwards from there: the next process does not know them.
"""
FIRED = -1


class Now(NamedTuple):
    """What time it is: seconds elapsed since the schedule's start, and the wall clock."""

    elapsed_s: float
    wall: datetime


@dataclass(frozen=True, kw_only=True)
class Due:
    """A time point on its way; `moment_s` is its moment in elapsed seconds, save pauses where it moves with them."""

    key: Key
    point: TimePoint
    policies: Policies
    number: int | None = None
    moment_s: float = 0.0
    moves: bool = False
    planned_at: datetime | None = None
    due_at: datetime | None = None
    is_prompt: bool = False

    @property
    def name(self) -> str:
        """The point's name."""
        return self.point.name


@dataclass(frozen=True)
class Begin:
    """Run the actions of this point now."""

    due: Due


@dataclass(frozen=True)
class Miss:
    """This point does not run, for that reason: its row can be written."""

    due: Due
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Abandon:
    """Abort the point that runs: another one takes its place."""

    due: Due
    reason: str


@dataclass(frozen=True)
class Halt:
    """Stop the schedule: a point has failed, and its policy says so."""

    reason: str


Order = Begin | Miss | Abandon | Halt


class Reached(NamedTuple):
    """The moments of a point that has been reached, in elapsed seconds, and the pauses until then."""

    planned_s: float
    started_s: float | None = None
    ended_s: float | None = None
    paused_s: float = 0.0

    def moment(self, since: Since) -> float | None:
        """Give the moment if it is known."""
        return {Since.STARTED: self.started_s, Since.ENDED: self.ended_s}.get(since, self.planned_s)


@dataclass(frozen=True, kw_only=True)
class Past:
    """What is known of a course that a dead process has begun; moments are in elapsed seconds."""

    done: dict[Key, Reached] = field(default_factory=dict[Key, Reached])
    interrupted: dict[Key, int | None] = field(default_factory=dict[Key, "int | None"])
    count: int = 0
    fired: int = 0
    inserted: int = 0
    paused_s: float = 0.0
    paused_since_s: float | None = None
    now_s: float = 0.0
