"""The rows of a schedule together: counted, shown, and written to files for other programs."""

from __future__ import annotations

import csv
import html
import importlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

from labwright.core.errors import NotProvidedError
from labwright.schedule.rows import FIELDS, Row

SHOWN = ("point", "name", "due_at", "lateness_s", "outcome", "result", "reason")


class Rows(Sequence[Row]):
    """The rows of a schedule so far, in the order in which they were written."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows = list(rows)

    @overload
    def __getitem__(self, which: int) -> Row: ...
    @overload
    def __getitem__(self, which: slice) -> Rows: ...
    def __getitem__(self, which: int | slice) -> Row | Rows:
        return Rows(self._rows[which]) if isinstance(which, slice) else self._rows[which]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def outcomes(self) -> dict[str, int]:
        """How many rows have each outcome."""
        return dict(Counter(str(row.outcome) for row in self._rows))

    def as_dicts(self) -> list[dict[str, Any]]:
        """Give every row in a form that JSON can say."""
        return [row.as_dict() for row in self._rows]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a table with a header; arguments, results and errors are JSON in their cells."""
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(FIELDS)
            writer.writerows([_cell(row[name]) for name in FIELDS] for row in self.as_dicts())

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write one JSON list."""
        Path(path).write_text(json.dumps(self.as_dicts(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Write one JSON object on each line."""
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in self.as_dicts()]
        Path(path).write_text("".join(lines), encoding="utf-8")

    def to_pandas(self) -> Any:
        """Make a pandas data frame, if pandas is installed.

        Raises:
            NotProvidedError: it is not.
        """
        try:
            pandas: Any = importlib.import_module("pandas")
        except ImportError:
            raise NotProvidedError(
                "pandas is not installed",
                because="a data frame is made by pandas, which schedules do without",
                cure="install it with: pip install pandas; or use to_csv",
            ) from None
        return pandas.DataFrame(self.as_dicts(), columns=list(FIELDS))

    def __str__(self) -> str:
        lines = [SHOWN, *(tuple(_cell(row[name]) for name in SHOWN) for row in self.as_dicts())]
        widths = [max(len(line[column]) for line in lines) for column in range(len(SHOWN))]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def __repr__(self) -> str:
        return f"Rows({len(self)}: {self.outcomes})"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in SHOWN)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_cell(row[name]))}</td>" for name in SHOWN) + "</tr>"
            for row in self.as_dicts()
        )
        return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case float():
            return f"{value:.6f}".rstrip("0").rstrip(".")
        case _:
            return json.dumps(value, ensure_ascii=False) if value != {} else ""
