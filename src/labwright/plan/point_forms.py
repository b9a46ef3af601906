"""Time points as JSON, as the journal keeps them, and as people write them; each form is read back to equal points."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, TypeAlias, cast

from labwright.core.clock import to_text
from labwright.core.errors import UsageError
from labwright.core.ids import canonical
from labwright.plan.calendar import Calendar, calendar
from labwright.plan.cron import Cron, cron
from labwright.plan.points import First, Marked, Points, Repeated, Union, Without
from labwright.plan.points import Sequence as Row
from labwright.plan.timepoints import After, At, Every, after, at, every

Form: TypeAlias = dict[str, Any]
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def to_form(points: Points) -> Form:
    """Write time points as JSON; `from_form` gives equal points back.

    >>> to_form(5 * every(60))
    {'first': 5, 'of': {'every': 60.0, 'after': 60.0}}

    Raises:
        UsageError: they hold something that JSON cannot say: policies of their own, or an expression of another kind.
    """
    match points:
        case Every():
            until = to_text(points.until) if isinstance(points.until, datetime) else points.until
            form = {"every": points.interval, "after": points.first}
            return form if until is None else {**form, "until": until}
        case After():
            form = {"after": list(points.seconds), "since": points.since.value}
            return form if points.of is None else {**form, "of": points.of}
        case At():
            return {"at": [to_text(instant) for instant in points.instants]}
        case Cron():
            return {"cron": points.line, "zone": points.zone}
        case Calendar():
            return {"calendar": points.text, "zone": points.zone}
        case _:
            return _combined_form(points)


def _combined_form(points: Points) -> Form:
    match points:
        case Row():
            return {"row": [to_form(part) for part in points.parts]}
        case Union():
            return {"any": [to_form(part) for part in points.parts]}
        case First():
            return {"first": points.times, "of": to_form(points.points)}
        case Repeated():
            return {"times": points.times, "of": to_form(points.points)}
        case Without():
            days = sorted(day.isoformat() for day in points.days)
            barred = [to_form(each) for each in points.excluded]
            return {"of": to_form(points.points), "without": barred, "days": days, "zone": points.zone}
        case Marked(policies=()):
            return {"named": points.name, "of": to_form(points.points)}
        case _:
            raise UsageError(
                "these time points cannot be written down",
                because="points that have policies of their own, or are of a class of your own, live in a script alone",
                cure="give the policies to the schedule instead",
            )


def from_form(form: Mapping[str, Any]) -> Points:
    """Read time points back from what `to_form` has written.

    Raises:
        UsageError: it is no such form.
    """
    try:
        return _read(form)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"these are no time points: {canonical_or_repr(form)[:200]}",
            because=f"{type(error).__name__}: {error}",
            cure="write them as to_form does, or name them with --every, --cron, --calendar or --at",
        ) from None


def _read(form: Mapping[str, Any]) -> Points:
    match form:
        case {"every": interval, "after": first}:
            until: Any = form.get("until")
            return every(
                interval, first=first, until=datetime.fromisoformat(until) if isinstance(until, str) else until
            )
        case {"after": seconds, "since": since}:
            return after(seconds, since=since, of=form.get("of"))
        case {"at": instants}:
            return at(*instants)
        case {"cron": line, "zone": zone}:
            return cron(line, zone=zone)
        case {"calendar": text, "zone": zone}:
            return calendar(text, zone=zone)
        case _:
            return _read_combined(form)


def _read_combined(form: Mapping[str, Any]) -> Points:
    match form:
        case {"row": parts}:
            return Row(_all(parts))
        case {"any": parts}:
            return Union(_all(parts))
        case {"first": int(times), "of": of}:
            return First(_read(of), times)
        case {"times": int(times), "of": of}:
            return Repeated(_read(of), times)
        case {"without": excluded, "days": days, "of": of, "zone": zone}:
            barred = tuple(_read(each) for each in excluded)
            return Without(_read(of), barred, frozenset(date.fromisoformat(day) for day in days), zone=zone)
        case {"named": name, "of": of}:
            return _read(of).named(name)
        case _:
            raise ValueError("it has none of the known keys")


def _all(forms: Sequence[Mapping[str, Any]]) -> tuple[Points, ...]:
    parts = tuple(_read(form) for form in forms)
    if not parts:
        raise ValueError("it is empty")
    return parts


def canonical_or_repr(form: object) -> str:
    """Write a form as one line, whatever it holds."""
    try:
        return canonical(form)
    except (TypeError, ValueError):
        return repr(form)


def words(form: Mapping[str, Any]) -> str:
    """Write the form of time points for people.

    >>> words(to_form(5 * every(60) + 10 * every(300)))
    '5x60s,10x300s'
    >>> words({"cron": "30 2 * * *", "zone": "Europe/Paris"})
    'cron 30 2 * * * Europe/Paris'
    """
    match form:
        case {"every": interval, "after": first}:
            begins = "" if first == interval else f" after {first:g}s"
            return f"{interval:g}s{begins}" + (f" until {form['until']}" if "until" in form else "")
        case {"after": seconds, "since": since}:
            return f"{'/'.join(f'{each:g}' for each in seconds)}s after {since}"
        case {"at": instants}:
            more = f" and {len(instants) - 2} more" if len(instants) > 2 else ""  # noqa: PLR2004 - what fits into a line
            return f"at {', '.join(instants[:2])}{more}"
        case {"cron": text, "zone": zone}:
            return f"cron {text} {zone}"
        case {"calendar": text, "zone": zone}:
            return f"{text}" if zone in text.split() else f"{text} {zone}"
        case _:
            return _combined_words(form)


def _combined_words(form: Mapping[str, Any]) -> str:
    match form:
        case {"row": parts}:
            return ",".join(words(part) for part in parts)
        case {"any": parts}:
            return " | ".join(words(part) for part in parts)
        case {"first": times, "of": of} | {"times": times, "of": of}:
            return f"{times}x{words(of)}" if "every" in of else f"{times}x({words(of)})"
        case {"without": excluded, "days": days, "of": of}:
            barred = [*days, *(words(each) for each in excluded)]
            return f"{words(of)} without {', '.join(barred)}"
        case {"named": name, "of": of}:
            return f"{words(of)} ({name})"
        case _:
            return canonical_or_repr(form)


def read_every(text: str) -> Points:
    """Read intervals as they are written on a command line: `60s`, or `5x60s,10x300s`, one after the other.

    >>> read_every("2x60s,1h").offsets(4)
    [60.0, 120.0, 3720.0, 7320.0]

    Raises:
        UsageError: a part is no interval, or follows one that never ends.
    """
    points: Points | None = None
    for part in text.split(","):
        found = re.fullmatch(r"(?:(\d{1,9})x)?(\d+(?:\.\d+)?)(ms|s|m|h|d)", part.strip())
        if found is None:
            raise UsageError(
                f"{part.strip()!r} is no interval",
                because="an interval is a number with ms, s, m, h or d, perhaps with how often before it",
                cure="write it like 60s, 5x60s or 5x60s,10x300s",
            )
        interval = every(float(found[2]) * UNITS[found[3]])
        more = interval if found[1] is None else int(found[1]) * interval
        points = more if points is None else points + more
    return cast("Points", points)
