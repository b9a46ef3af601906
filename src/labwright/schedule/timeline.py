"""A schedule drawn along time: the plan before, planned beside actual afterwards; as text and as SVG."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from labwright.plan.policies import Policies
from labwright.schedule.course import Course
from labwright.schedule.orders import Begin, Now
from labwright.schedule.past import Remembered
from labwright.schedule.plan import Plan
from labwright.schedule.rows import Outcome, Row

WIDTH = 720
ROW = 18
LEFT = 190
COLOURS = {Outcome.SUCCEEDED: "#2e7d32", Outcome.FAILED: "#c62828", Outcome.ABORTED: "#c62828"}
OTHER_COLOUR = "#9e9e9e"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One point: what it is called, when it was planned, and how it went if it did."""

    label: str
    planned_at: datetime | None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: Outcome | None = None
    text: str = ""

    @property
    def moments(self) -> list[datetime]:
        """The moments that the drawing must hold."""
        return [each for each in (self.planned_at, self.started_at, self.ended_at) if each is not None]


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Points along time; print it, or show it in a notebook."""

    title: str
    bars: tuple[Bar, ...]
    start: datetime
    has_more: bool = False

    @classmethod
    def planned(cls, plan: Plan, start: datetime, count: int) -> Self:
        """Draw the first points of a plan as if its actions took no time."""
        course = Course(plan.points(), Policies(), start)
        bars = tuple(itertools.islice(_foreseen(course, plan, Now(0.0, start)), count))
        return cls(title=plan.name, bars=bars, start=start, has_more=not course.is_over)

    @classmethod
    def left(cls, plan: Plan, before: Remembered, count: int) -> Self:
        """Draw the next points of a run that was cut short, as if it were gone on with, and resumed, now."""
        policies = Policies(crash=plan.policies.crash, pause=plan.policies.pause)
        course = Course(plan.points(), policies, before.started_at, before.past)
        now = Now(before.past.now_s, before.started_at + timedelta(seconds=before.past.now_s))
        bars = tuple(itertools.islice(_foreseen(course, plan, now), count))
        title = f"{plan.name}, which goes on after {len(before.rows)} rows"
        return cls(title=title, bars=bars, start=before.started_at, has_more=not course.is_over)

    @classmethod
    def actual(cls, title: str, rows: Iterable[Row], start: datetime) -> Self:
        """Draw what has happened beside what was planned."""
        bars = tuple(_of_row(row) for row in rows)
        return cls(title=title, bars=bars, start=start)

    def __str__(self) -> str:
        lines = [f"{self.title}, from {self.start:%Y-%m-%d %H:%M:%S %Z}"]
        lines += [f"{bar.label:>10}  {self._offset(bar)}  {bar.text}".rstrip() for bar in self.bars]
        return "\n".join([*lines, "       ..."] if self.has_more else lines)

    def to_svg(self) -> str:
        """Draw it: a stroke where a point was planned, a bar where it ran."""
        moments = [moment for bar in self.bars for moment in bar.moments]
        first, last = min(moments, default=self.start), max(moments, default=self.start)
        scale = (WIDTH - LEFT - 20) / max((last - first).total_seconds(), 1e-9)
        body = "".join(self._svg_bar(place, bar, first, scale) for place, bar in enumerate(self.bars))
        height = ROW * (len(self.bars) + 2)
        title = f'<text x="8" y="14" font-weight="bold">{html.escape(self.title)}</text>'
        size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
            f"{title}{body}</svg>"
        )

    def _repr_html_(self) -> str:
        return self.to_svg()

    def _offset(self, bar: Bar) -> str:
        if bar.planned_at is None:
            return " " * len(OFFSET.format(0.0))
        return OFFSET.format((bar.planned_at - self.start).total_seconds())

    def _svg_bar(self, place: int, bar: Bar, first: datetime, scale: float) -> str:
        def x(moment: datetime) -> float:
            return LEFT + (moment - first).total_seconds() * scale

        top = ROW * (place + 1) + 6
        drawn = f'<text x="8" y="{top + 10}">{html.escape(f"{bar.label} {bar.text}"[:34])}</text>'
        if bar.started_at and bar.ended_at:
            colour = COLOURS.get(bar.outcome or Outcome.BYPASSED, OTHER_COLOUR)
            width = max(x(bar.ended_at) - x(bar.started_at), 2)
            drawn += f'<rect x="{x(bar.started_at):.1f}" y="{top}" width="{width:.1f}" height="12" fill="{colour}"/>'
        if bar.planned_at:
            place_x = f"{x(bar.planned_at):.1f}"
            drawn += f'<line x1="{place_x}" x2="{place_x}" y1="{top - 2}" y2="{top + 14}" stroke="#1565c0"/>'
        return f"<g><title>{html.escape(f'{bar.label}: {bar.text}')}</title>{drawn}</g>"


OFFSET = "{:+12.3f} s"


def _foreseen(course: Course, plan: Plan, now: Now) -> Iterator[Bar]:
    """Let the course pass at once, each action taking no time."""
    work = plan.work_of_strands()
    while True:
        orders = [*course.advance(now), *course.resume(now)]
        while orders:
            order, *orders = orders
            if isinstance(order, Begin):
                due = order.due
                labels = ", ".join(call.label for call in plan.calls(due, work[due.key[0]]))
                text = f"{due.planned_at:%Y-%m-%d %H:%M:%S}  {labels}" if due.planned_at else labels
                course.started(due, now)
                orders += course.ended(due, now, is_failed=False)
                yield Bar(label=_label(due.number, due.name), planned_at=due.due_at, text=text)
        wait = course.wakes_in(now)
        if wait is None:
            return
        now = Now(now.elapsed_s + wait, now.wall + timedelta(seconds=wait))


def _of_row(row: Row) -> Bar:
    late = "" if row.lateness_s is None else f", {row.lateness_s:.3f} s late"
    return Bar(
        label=_label(row.point, row.name),
        planned_at=row.planned_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        outcome=row.outcome,
        text=f"{row.outcome}{late}" + (f" ({row.reason})" if row.reason else ""),
    )


def _label(number: int | None, name: str) -> str:
    return " ".join(filter(None, (str(number or ""), name)))
