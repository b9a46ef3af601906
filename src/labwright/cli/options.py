"""Options that several commands share, and how what stands in them is read: parameters, moments, filters."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from labwright.core.errors import UsageError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
OPEN = "pending,running,waiting,retrying"
UNSUCCESSFUL = "failed,aborted,expired"
MOST_READ = 64 * 1024 * 1024

StateFilter = Annotated[
    str | None, typer.Option("--state", metavar="STATE[,STATE]", help="Only runs in these states.", show_default=False)
]
TaskFilter = Annotated[
    str | None, typer.Option("--task", metavar="TASK", help="Only runs of this task.", show_default=False)
]
OnFilter = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="SELECTOR", help="Only runs on these targets: a name, or crate=1,slot!=3.", show_default=False
    ),
]
SinceFilter = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="WHEN",
        help="Only what was requested since then: 2h, 3d, or 2026-01-02T03:04:05Z.",
        show_default=False,
    ),
]
CauseFilter = Annotated[
    str | None,
    typer.Option("--cause", metavar="ID", help="Only runs that this event, run or person caused.", show_default=False),
]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="At most so many.")]
Cursor = Annotated[
    str | None,
    typer.Option("--cursor", metavar="CURSOR", help="Where the page before said to go on.", show_default=False),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        "--param",
        metavar="NAME=VALUE",
        help="A parameter; VALUE is JSON if it reads as JSON, and else text. @FILE.json brings a whole object.",
        show_default=False,
    ),
]
Wait = Annotated[
    bool,
    typer.Option("--wait", help="Wait until all that follows has ended; exit 1 if a run failed.", show_default=False),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="S",
        min=0,
        help="Wait at most so many seconds, then exit 124; the runs go on.",
        show_default=False,
    ),
]
Quorum = Annotated[
    str | None,
    typer.Option("--quorum", metavar="N|P%", help="So many targets must succeed; default: all.", show_default=False),
]
Serial = Annotated[bool, typer.Option("--serial", help="One target after the other.", show_default=False)]
Settle = Annotated[
    float | None,
    typer.Option("--settle", metavar="S", min=0, help="With --serial: seconds between two.", show_default=False),
]
Parallel = Annotated[
    int | None,
    typer.Option("--parallel", metavar="N", min=1, help="At most so many targets at a time.", show_default=False),
]
Waves = Annotated[
    str | None,
    typer.Option(
        "--waves",
        metavar="SIZES",
        help="Wave after wave: 1,10%,all. The last size is repeated until nobody is left.",
        show_default=False,
    ),
]
FailureBudget = Annotated[
    str | None,
    typer.Option(
        "--failure-budget",
        metavar="N|P%",
        help="Once more have failed, start nothing more; default in waves: 0.",
        show_default=False,
    ),
]
OnFailureOption = Annotated[
    str | None,
    typer.Option(
        "--on-failure",
        metavar="continue|abort",
        help="What becomes of what runs once the failure budget is used up; default: continue.",
        show_default=False,
    ),
]
Retries = Annotated[
    int | None,
    typer.Option("--retries", metavar="N", min=0, help="Try what has failed again so often.", show_default=False),
]
ReturnWithin = Annotated[
    float | None,
    typer.Option(
        "--return-within",
        metavar="S",
        min=0,
        help="A target that goes away has so many seconds to come back with its session; default: 30.",
        show_default=False,
    ),
]
EventFile = Annotated[
    str, typer.Argument(metavar="EVENT.json|-", help="A CloudEvents 1.0 JSON file; - is standard input.")
]


def parameters(texts: Iterable[str]) -> dict[str, Any]:
    """Read `-p` options.

    >>> parameters(["dcid=5", "name=Ada", "text='5'"])
    {'dcid': 5, 'name': 'Ada', 'text': "'5'"}

    Raises:
        UsageError: one is no NAME=VALUE, or a file holds no JSON object.
    """
    read: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if text.startswith("@"):
            read.update(_parameter_file(text[1:]))
        elif not sign or not name:
            raise UsageError(
                f"-p {text} is no parameter",
                because="a parameter is NAME=VALUE",
                cure=f"-p {name or 'name'}=VALUE, or -p @file.json",
            )
        else:
            read[name] = _value(value)
    return read


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _parameter_file(name: str) -> dict[str, Any]:
    try:
        found: object = json.loads(read_input(name))
    except ValueError as error:
        raise UsageError(
            f"-p @{name} cannot be read", because=f"it is not JSON: {error}", cure="mend the file"
        ) from error
    if not isinstance(found, dict):
        raise UsageError(f"-p @{name} cannot be used", because="it holds no JSON object", cure='write {"name": value}')
    return cast("dict[str, Any]", found)


def read_input(name: str) -> bytes:
    """Read a file, or standard input for `-`, up to a size that nothing valid has.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        if name == "-":
            return sys.stdin.buffer.read(MOST_READ)
        with Path(name).expanduser().open("rb") as file:
            return file.read(MOST_READ)
    except OSError as error:
        raise UsageError(
            f"{name} cannot be read", because=error.strerror or str(error), cure="name a file, or - for standard input"
        ) from error


def moment(text: str | None, option: str) -> datetime | None:
    """Read a moment: RFC 3339 with a zone, or a time from now such as `+15m`.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    if text.startswith("+") and (duration := _duration(text[1:])) is not None:
        return datetime.now(UTC) + duration
    return _instant(text, option, "+15m")


def since(text: str | None) -> str | None:
    """Read how far to look back: `2h`, or RFC 3339 with a zone; as the lab's filter takes it.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    duration = _duration(text)
    found = datetime.now(UTC) - duration if duration is not None else _instant(text, "--since", "2h")
    return found.isoformat()


def seconds(text: str, option: str) -> float:
    """Read how long something is to last, such as `90s` or `2h`, in seconds.

    >>> seconds("2h", "--for")
    7200.0

    Raises:
        UsageError: it is no length of time.
    """
    duration = _duration(text)
    if duration is None or not duration:
        raise UsageError(
            f"{option} {text} is no length of time",
            because="it is a whole number above 0 with s, m, h, d or w",
            cure=f"{option} 2h",
        )
    return duration.total_seconds()


def _duration(text: str) -> timedelta | None:
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    return timedelta(seconds=int(match[1]) * UNITS[match[2]]) if match else None


def _instant(text: str, option: str, example: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise UsageError(
        f"{option} {text} is no moment",
        because="a moment is RFC 3339 with a zone, or a time from now",
        cure=f"{option} 2026-01-02T03:04:05Z, or {option} {example}",
    )


def run_filters(
    *, state: str | None, task: str | None, on: str | None, since_text: str | None, cause: str | None
) -> dict[str, Any]:
    """Put the filters of runs together as the lab takes them; those that are not given are left out."""
    given = {"state": state, "task": task, "on": on, "since": since(since_text), "cause": cause}
    return {name: value for name, value in given.items() if value is not None}
