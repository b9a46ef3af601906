"""What a schedule is made of: its actions, their points, and who does what at which of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from labwright.core.errors import UsageError
from labwright.plan.points import Points, Walk
from labwright.plan.points import Sequence as PointSequence
from labwright.plan.policies import Policies
from labwright.plan.timepoints import check_names
from labwright.schedule.actions import Action, Lock, check_keywords, unique_labels
from labwright.schedule.orders import Due
from labwright.schedule.point_run import Call
from labwright.schedule.rows import Row

Keywords = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Work:
    """What is done at some points: actions of their own or else those of the schedule, and the keywords for them."""

    keywords: Keywords = field(default_factory=dict[str, Mapping[str, Any]])
    actions: tuple[Action, ...] = ()


@dataclass
class Addition:
    """Points that were added together, one following the other, and what is done at them."""

    parts: list[Points]
    work: Work = field(default_factory=Work)
    is_row: bool = False
    """Whether what `every` and `after` add next follows these points."""

    @property
    def points(self) -> Points:
        """The points as one expression."""
        return self.parts[0] if len(self.parts) == 1 else PointSequence(tuple(self.parts))


@dataclass(frozen=True)
class Also:
    """An action that runs only at some points: by number, or by name; None is every point."""

    action: Action
    points: frozenset[int | str] | None

    def is_at(self, due: Due) -> bool:
        """Tell whether it runs at that point."""
        return self.points is None or due.number in self.points or due.name in self.points


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A schedule as it stands when it starts."""

    name: str
    actions: Sequence[Action]
    also: Sequence[Also]
    additions: Sequence[Addition]
    policies: Policies
    safe_state: Action | None
    locks: Sequence[Lock]
    on_row: Callable[[Row], object] | None = None

    def labels(self, work: Work) -> tuple[str, ...]:
        """Give the label of each action, no two the same."""
        return unique_labels(self._actions_of(work))

    def check(self) -> None:
        """Refuse what could not run.

        Raises:
            UsageError: there is no point, or an action does not take its arguments.
        """
        if not self.additions:
            raise UsageError(
                f"the schedule {self.name!r} has no time points",
                because="nothing would ever be due",
                cure="add some, as in .every(60, times=5) or .at(5 * every(60))",
            )
        check_names([addition.points for addition in self.additions])
        checked: list[Work] = []
        for addition in self.additions:
            if addition.work not in checked[-1:]:
                self.check_work(addition.work)
                checked.append(addition.work)
        if self.safe_state is not None:
            self.safe_state.arguments({})

    def check_ahead(self, now: datetime) -> None:
        """Refuse a plan of which every point is in the past, for a start now.

        Raises:
            UsageError: that is so.
        """
        first, latest = Walk(now), None
        for strand in (strand for points in self.points() for strand in points.strands()):
            for point in strand.walk(first):
                if point.is_open or (latest := point.instant(now)) >= now:
                    return
        raise UsageError(
            f"no time point of the schedule {self.name!r} is ahead",
            because=f"it is {now:%Y-%m-%d %H:%M:%S %Z}"
            + (f", and the last was at {latest:%Y-%m-%d %H:%M:%S %Z}" if latest else ", and it has none"),
            cure="give instants to come, or seconds after the start, as in after(30)",
        )

    def check_work(self, work: Work) -> None:
        """Refuse keywords that no action takes, and arguments that are missing.

        Raises:
            UsageError: an action would fail for its arguments.
        """
        labels = self.labels(work)
        check_keywords(work.keywords, labels)
        for label, action in zip(labels, self._actions_of(work), strict=True):
            action.arguments(work.keywords.get(label, {}))

    def points(self) -> Iterator[Points]:
        """Give the points of each addition."""
        return (addition.points for addition in self.additions)

    def work_of_strands(self) -> list[Work]:
        """Give, for each strand of the course, what is done at its points."""
        return [each.work for each in self.additions for _ in each.points.strands()]

    def calls(self, due: Due, work: Work) -> list[Call]:
        """Give the actions of a point."""
        is_there = [True] * len(work.actions or self.actions) + [each.is_at(due) for each in self.also]
        return [
            Call(label=label, action=action, keywords=work.keywords.get(label, {}))
            for label, action, is_due in zip(self.labels(work), self._actions_of(work), is_there, strict=True)
            if is_due
        ]

    def fingerprint(self) -> str:
        """Give a text that tells this plan from another one."""
        digest = hashlib.sha256(repr(self.labels(Work())).encode())
        for addition in self.additions:
            own = unique_labels(addition.work.actions) or ""
            digest.update(f"{addition.points!r}{own}".encode())
        return digest.hexdigest()[:16]

    def _actions_of(self, work: Work) -> tuple[Action, ...]:
        return (*(work.actions or self.actions), *(each.action for each in self.also))
