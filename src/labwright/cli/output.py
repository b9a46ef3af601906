"""How the command line speaks: the only place that prints.

Data go to standard output, talk and errors to standard error. With `--json` standard output holds one JSON document (or
JSON lines) and standard error nothing but the error, so that both can be parsed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

WIDE = 4000
"""The width in characters where no terminal sets one, so that nothing is cut off."""

WIDE_ENOUGH = 110
"""From this width a table shows its less important columns."""

NEVER_CUT = ("state", "requested")
NEVER_BROKEN = ("id", "session", "run", "outcome", "took")
"""Columns of a table that is folded where it does not fit, these excepted: what they hold is copied whole."""

STYLES = {
    "succeeded": "green",
    "fired": "green",
    "decided": "green",
    "active": "green",
    "ok": "green",
    "true": "green",
    "failed": "bold red",
    "set_aside": "bold red",
    "wrong": "bold red",
    "false": "red",
    "expired": "red",
    "aborted": "yellow",
    "skipped": "yellow",
    "retrying": "yellow",
    "missing": "yellow",
    "paused": "yellow",
    "draining": "yellow",
    "running": "cyan",
    "waiting": "blue",
    "pending": "dim",
    "received": "dim",
    "not_matched": "dim",
}


class ReaderGoneError(Exception):
    """Whoever read our output, such as `head`, has closed the pipe."""


class Output:
    """Prints for one command, for people or (`as_json`) for programs."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._stdout: TextIO | None = None
        self._stderr: TextIO | None = None
        self._data: Console | None = None
        self._talk: Console | None = None

    @property
    def stdout(self) -> TextIO:
        """Where data go."""
        return self._stdout or sys.stdout

    def shield(self, *, is_logging: bool = False) -> None:
        """Keep standard output to this object, also from processes that are started from here.

        What a site's code prints from now on goes to standard error. With `--json` that holds only the error, so it
        goes nowhere, unless the command is one that logs there.
        """
        if self._stdout is not None:
            return
        sys.stdout.flush()
        self._stdout = _kept(1)
        if self.as_json and not is_logging:
            self._stderr = _kept(2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.dup2(2, 1)

    @property
    def stderr(self) -> TextIO:
        """Where talk and errors go."""
        return self._stderr or sys.stderr

    def hush(self) -> None:
        """After the reader of a pipe has gone: see that nothing complains at exit that it cannot be written to."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in {self.stdout, sys.stdout}:
            os.dup2(nowhere, stream.fileno())

    # --- data --------------------------------------------------------------------------------------------------------

    def document(self, value: Any, show: Callable[[], None]) -> None:
        """Print a document: as JSON, or by calling `show`, which prints it for people."""
        if self.as_json:
            self._write(self.stdout, json.dumps(value, indent=2, ensure_ascii=False))
        else:
            show()

    def items(self, items: Sequence[Any], show: Callable[[], None], *, cursor: str | None = None) -> None:
        """Print a list; for people, `cursor` becomes a hint how to see more."""
        self.document({"items": list(items), "next_cursor": cursor}, show)
        if cursor and not self.as_json:
            self.talk(f"there are more: add --cursor {cursor}")

    def line(self, value: Any, text: str | Text) -> None:
        """Print one item of a stream: a JSON line, or a line of text."""
        if self.as_json:
            self._write(self.stdout, json.dumps(value, ensure_ascii=False))
        elif isinstance(text, str):
            self._write(self.stdout, printable(text))  # many lines come: a console would take too long for each
        else:
            self.text(text)

    def text(self, *parts: str | RenderableType) -> None:
        """Print for people."""
        console = self.console
        for part in parts:
            console.print(printable(part) if isinstance(part, str) else part, soft_wrap=isinstance(part, str))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, nothing: str = "none") -> None:
        """Print a table for people; an empty one says `nothing` on standard error."""
        cells = [[cell(value) for value in row] for row in rows]
        if not cells:
            self.talk(nothing)
            return
        self.text(table(columns, cells))

    def rows(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, nothing: str, only_when_wide: Sequence[str]
    ) -> None:
        """Print a table with one line for each row; where it does not fit, some columns are left out, others cut."""
        kept = [
            number
            for number, name in enumerate(columns)
            if self.console.width >= WIDE_ENOUGH or name not in only_when_wide
        ]
        cells = [[cell(row[number]) for number in kept] for row in rows]
        if not cells:
            self.talk(nothing)
            return
        self.text(table([columns[number] for number in kept], cells, one_line=True))

    # --- talk --------------------------------------------------------------------------------------------------------

    def talk(self, text: str | Text) -> None:
        """Tell people something that is no data; programs do not hear it."""
        if self.as_json:
            return
        if isinstance(text, str) and not self.is_live:
            self._write(self.stderr, printable(text))
        else:
            self.console_of_talk.print(printable(text) if isinstance(text, str) else text, soft_wrap=True)

    def error(self, error: BaseException) -> None:
        """Print an error with its cause and its cure."""
        from labwright.cli.failures import error_fields

        fields = error_fields(error)
        if self.as_json:
            self._write(self.stderr, json.dumps(fields, ensure_ascii=False))
            return
        console = self.console_of_talk
        for text in error_lines(fields):
            console.print(text, soft_wrap=True)

    # --- consoles ----------------------------------------------------------------------------------------------------

    @property
    def console(self) -> Console:
        """Standard output."""
        self._data = self._data or _console(self.stdout)
        return self._data

    @property
    def console_of_talk(self) -> Console:
        """Standard error."""
        self._talk = self._talk or _console(self.stderr)
        return self._talk

    @property
    def is_live(self) -> bool:
        """Tell whether somebody sits at a terminal and may be shown something that changes."""
        return not self.as_json and self.console_of_talk.is_terminal

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        try:
            stream.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
            stream.flush()
        except BrokenPipeError as error:
            raise ReaderGoneError from error


def table(columns: Sequence[str], rows: Iterable[Sequence[Text]], *, one_line: bool = False) -> Any:
    """Lay out rows without lines; the first column, which names things, is never cut.

    With `one_line` the others are cut where they do not fit, and else folded.
    """
    from rich.table import Table
    from rich.text import Text

    laid = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        is_kept = number == 0 or column in (NEVER_CUT if one_line else NEVER_BROKEN)
        heading = Text(column, no_wrap=True, overflow="ellipsis") if one_line else column
        laid.add_column(heading, no_wrap=is_kept, overflow="fold")
    for row in rows:
        if one_line:
            for value in row:  # not the column: rich would then make all columns narrower alike
                value.no_wrap, value.overflow = True, "ellipsis"
        laid.add_row(*row)
    return laid


def cell(value: object) -> Text:
    """Write a value as it stands in a table."""
    from rich.text import Text

    if isinstance(value, Text):
        return value
    text = printable(shown(value))
    return Text(text, style=style_of(text))


def shown(value: object) -> str:
    """Write a value for people: text as it is, nothing as a dash, anything else as JSON."""
    match value:
        case None | "":
            return "-"
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case _:
            return json.dumps(value, ensure_ascii=False, default=str)


def printable(text: str) -> str:
    """Make text harmless for a terminal: what is no printable character, and no line end, is written as its code."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape", "replace").decode()
        for char in text.encode("utf-8", "backslashreplace").decode()
    )


def style_of(word: str) -> str:
    """Give the colour of a state or an outcome."""
    return STYLES.get(word, "")


def styled(text: str, style: str | None = None) -> Text:
    """Give text in the colour of the word that it is."""
    from rich.text import Text

    return Text(printable(text), style=style_of(text) if style is None else style)


def error_lines(fields: Mapping[str, Any]) -> Iterable[Text]:
    """Write an error: what, because of what, what to try, and every finding."""
    from rich.text import Text

    for word, name, style in (("error", "message", "bold red"), ("because", "because", "bold"), ("try", "try", "bold")):
        if fields.get(name):
            yield Text.assemble((f"{word}: ", style), printable(str(fields[name])))
        if name == "message":
            for finding in fields.get("findings", ()):
                yield Text(f"  - {printable(str(finding))}")
    if fields.get("traceback") and fields.get("kind") == "bug":
        yield Text(printable(str(fields["traceback"])).rstrip(), style="dim")


def _kept(number: int) -> TextIO:
    return os.fdopen(os.dup(number), "w", encoding="utf-8", closefd=False)


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    class Quiet(Console):
        """A console that leaves a broken pipe to whoever called."""

        def on_broken_pipe(self) -> None:
            raise ReaderGoneError

    width = None if stream.isatty() else WIDE
    return Quiet(file=stream, markup=False, highlight=False, emoji=False, width=width)
