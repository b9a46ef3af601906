"""What people read about one thing: a decision with its reasons, a run with its steps, the story behind it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from labwright.cli.output import Output, cell, error_lines, printable, shown, style_of, styled, table

if TYPE_CHECKING:
    from rich.text import Text

LONGEST_LINE = 2000


def show_decision(output: Output, decision: Mapping[str, Any]) -> None:
    """Print a decision: the event, what is known, each rule's outcome with its reasons, and what follows."""
    from rich.text import Text

    event: Mapping[str, Any] = decision["event"]
    about = f" about {event['subject']}" if event.get("subject") else ""
    output.text(Text.assemble(("decision ", "bold"), decision["id"]))
    output.text(f"  event     {event['type']}{about} from {event['source']} ({event['id']})")
    facts: Mapping[str, Any] = decision["scenario"]["facts"]
    output.text(f"  facts     {pairs(facts) or 'none'}")
    if decision["held"]:
        output.text(styled("  held      a rule failed, and this site does not act then: no run follows", "bold red"))
    output.text(Text("rules", style="bold"))
    for rule in sorted(decision["rules"], key=lambda rule: ("fired", "failed", "not_matched").index(rule["outcome"])):
        _show_rule(output, rule)
    if not decision["rules"]:
        output.text("  none")
    output.text(Text("requests", style="bold"))
    for request in decision["requests"]:
        output.text(f"  {request_line(request)}", styled(f"    asked for by {', '.join(request['rules'])}", "dim"))
    if not decision["requests"]:
        output.text("  none")
    for run in decision.get("runs", ()):
        if run["error"]:
            output.text(styled(f"  a run of it will fail: {run['error']['message']}", "red"))
    for note in decision["scenario"]["notes"]:
        output.text(styled(f"note: {note}", "yellow"))


def _show_rule(output: Output, rule: Mapping[str, Any]) -> None:
    from rich.text import Text

    outcome: str = rule["outcome"]
    output.text(Text.assemble("  ", (f"{outcome:<12}", style_of(outcome)), printable(rule["rule"])))
    for reason in rule["reasons"]:
        holds = shown(reason["holds"])
        output.text(Text.assemble("    ", (f"{holds:<8}", style_of(holds)), printable(reason["condition"])))
    if rule["error"]:
        show_error(output, rule["error"], indent="    ")


def request_line(request: Mapping[str, Any]) -> str:
    """Write a request as people say it: the task, its parameters, where, and when."""
    words = [request["task"], pairs(request["params"])]
    words += [f"on {request['on']}"] if request["on"] else []
    words += [f"priority {request['priority']}"] if request["priority"] else []
    words += [f"{name.replace('_', ' ')} {request[name]}" for name in ("not_before", "not_after") if request[name]]
    words += [f"key {request['key']}"] if request["key"] else []
    return " ".join(filter(None, words))


def show_run(output: Output, run: Mapping[str, Any]) -> None:
    """Print a run: where it stands, what it waits for, why it exists, its steps, and where to look next."""
    from rich.text import Text

    where = f" on {run['target']}" if run["target"] else ""
    output.text(Text.assemble((run["id"], "bold"), f"  {printable(run['task'] + where)}  ", styled(run["state"])))
    for name, value in _lines_about(run):
        output.text(Text.assemble((f"  {name:<11}", "dim"), printable(value)))
    if run["steps"]:
        rows = (_step_row(step, run["attempt"]) for step in run["steps"])
        output.text(table(("step", "state", "attempts", "took", "said"), rows))
    if (rows := fleet_rows(run["result"])) is not None:
        output.text(table(fleet_columns(run["result"]), rows))
    elif run["result"] is not None:
        output.text(Text.assemble(("result ", "bold"), printable(brief(run["result"]))))
    if run["error"]:
        show_error(output, run["error"])
    output.talk(styled(f"next: labwright runs why {run['id']} · labwright runs log {run['id']}", "dim"))


def fleet_columns(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what stands in the lines of a fleet's result: of a task the rows have runs, of an operation sessions."""
    has_runs = any(row.get("run") for row in result["targets"].values())
    return ("target", "outcome", "took", "run" if has_runs else "session", "result")


def fleet_rows(result: Any) -> list[list[Any]] | None:
    """Give a line for each target of a fleet's result; None for any other result."""
    if not isinstance(result, Mapping):
        return None
    found = cast("Mapping[str, Any]", result)
    if not isinstance(found.get("targets"), Mapping) or "quorum" not in found:
        return None
    return [_fleet_row(name, row) for name, row in sorted(found["targets"].items())]


def _fleet_row(name: str, row: Mapping[str, Any]) -> list[Any]:
    took = seconds(row["duration_s"]) if row.get("duration_s") is not None else None
    error = row.get("error")
    if error:
        what = brief(f"{error['message']}: {error['because']}" if error["because"] else error["message"], 160)
    else:
        what = data_words(row["result"], 60) if row.get("result") is not None else None
    return [name, row["outcome"], took, row.get("session") or row.get("run"), what]


def _lines_about(run: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    waiting = run["waiting_for"]
    if waiting:
        word, _, detail = waits(waiting["detail"] or waiting["kind"]).partition(" ")
        yield word.rstrip(":"), detail
    cause = run["cause"]
    yield "cause", f"{cause['kind']} {cause['id']}" + (f" from {cause['source']}" if cause.get("source") else "")
    if run["params"]:
        yield "parameters", pairs(run["params"])
    yield "requested", run["requested_at"] + (f" by {run['by']}" if run["by"] else "")
    if run["started_at"]:
        took = duration(run["started_at"], run["ended_at"])
        yield "started", f"{run['started_at']}, attempt {run['attempt']}" + (f", took {took}" if took else "")
    for name in ("not_before", "not_after", "next_attempt_at"):
        if run[name]:
            yield name.removesuffix("_at").replace("_", " "), run[name]
    if run["worker"] and run["state"] == "running":
        yield "worker", run["worker"]
    for name in ("key", "note", "parent"):
        if run[name]:
            yield name, str(run[name])
    if run.get("aborting"):
        yield "aborting", str(run["aborting"])


def _step_row(step: Mapping[str, Any], attempt: int) -> Sequence[Text]:
    said = step["error"]["message"] if step["error"] else step.get("note") or brief(step["output"], 80)
    took = duration(step["started_at"], step["ended_at"])
    is_under_way = step["state"] == "running" and attempt > 0
    attempts = step["attempts"] + 1 if is_under_way else step["attempts"]  # the record of this one comes at its end
    return [cell(value) for value in (step["name"], step["state"], attempts, took, said)]


def show_why(output: Output, story: Sequence[Mapping[str, Any]]) -> None:
    """Print a story from its root cause to its end, each part further in than what it follows from."""
    from rich.text import Text

    for part in story:
        depth = int(part["depth"])
        indent = "  " * depth
        arrow = "└ " if depth else ""
        time = str(part["at"] or "")[11:19]
        output.text(
            Text.assemble(
                (f"{time:<9}", "dim"),
                indent,
                arrow,
                (part["kind"], "bold"),
                f" {printable(part['summary'])}",
                (f"  {printable(str(part['id']))}", "dim"),
            )
        )


def show_error(output: Output, error: Mapping[str, Any], *, indent: str = "") -> None:
    """Print an error that is part of an answer."""
    from rich.text import Text

    if error.get("kind") == "timeout":
        error = {**error, "try": str(error["try"]).replace("timeout_s", "--timeout")}
    for line in error_lines(error):
        for text in line.split("\n"):
            output.text(Text.assemble(indent, text))


def counted(number: int, thing: str) -> str:
    """Write how many of something there are.

    >>> counted(1, "rule"), counted(2, "rule")
    ('1 rule', '2 rules')
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def waits(detail: str) -> str:
    """Say what a run waits for, as the lab puts it.

    >>> waits("until noon"), waits("a worker: none is here"), waits("its pool slow is paused")
    ('waits until noon', 'waits for a worker: none is here', 'waits: its pool slow is paused')
    """
    if detail.startswith(("until ", "for ")):
        return f"waits {detail}"
    return f"waits: {detail}" if detail.startswith("its pool ") else f"waits for {detail}"


def short_time(moment: str | None, now: datetime | None = None) -> str:
    """Write a moment (RFC 3339, UTC) for a narrow column: the time if it is of today, else the date.

    >>> now = datetime(2026, 1, 2, 12, tzinfo=UTC)
    >>> short_time("2026-01-02T03:04:05.678Z", now), short_time("2026-01-01T03:04:05Z", now)
    ('03:04:05', '2026-01-01')
    """
    if not moment:
        return ""
    today = (now or datetime.now(UTC)).date().isoformat()
    return moment[11:19] if moment.startswith(today) else moment[:10]


def pairs(values: Mapping[str, Any]) -> str:
    """Write names and values in one line."""
    return " ".join(f"{name}={brief(value, 200)}" for name, value in values.items())


MOST_ITEMS = 8
"""So many items of a list are shown in one line."""
LEFT_OUT = "$left_out"
"""The one key of what stands for a value that was too large to be told; its value is the size."""


def shown_data(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the data of a session without what is no data: the word that they were too large to be told."""
    return {} if set(data) == {LEFT_OUT} else data


def data_words(value: Any, most: int = LONGEST_LINE) -> str:
    """Write a value that an operation gave in one line: long lists are cut, and what was too large is said.

    >>> data_words([1, 2, 3]), data_words({"$left_out": 200_000})
    ('[1, 2, 3]', '(200000 characters: too large to be shown)')
    """
    from labwright.core.plain import from_plain

    return brief(_cut(from_plain(value)), most)


def _cut(value: Any) -> Any:
    match value:
        case {"$left_out": size}:
            return f"({size} characters: too large to be shown)"
        case list() if len(items := cast("list[Any]", value)) > MOST_ITEMS:
            return [*map(_cut, items[:MOST_ITEMS]), f"… {len(items)} items"]
        case list():
            return [_cut(item) for item in cast("list[Any]", value)]
        case dict():
            return {name: _cut(item) for name, item in cast("dict[str, Any]", value).items()}
        case _:
            return value


def brief(value: Any, most: int = LONGEST_LINE) -> str:
    """Write a value in one line, cut where it is long."""
    text = (
        value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    )
    text = text.replace("\n", " ")
    return text if len(text) <= most else text[: most - 1] + "…"


def duration(start: str | datetime | None, end: str | datetime | None) -> str:
    """Write how long something took; empty while it has not ended.

    >>> duration("2026-01-02T03:04:05Z", "2026-01-02T03:05:06Z")
    '1m 1s'
    """
    if not start or not end:
        return ""
    first, last = (datetime.fromisoformat(each) if isinstance(each, str) else each for each in (start, end))
    return seconds((last - first).total_seconds())


def seconds(took: float) -> str:
    """Write a number of seconds.

    >>> seconds(0.25), seconds(12.3), seconds(7322)
    ('250 ms', '12.3 s', '2h 2m')
    """
    if took < 1:
        return f"{took * 1000:.0f} ms"
    if took < 60:  # noqa: PLR2004 - a minute
        return f"{took:.1f} s"
    minutes, rest = divmod(round(took), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s"
