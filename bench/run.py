"""Runs every `bench_*.py` beside this file in turn, writes `results.json` and prints a table.

A bench prints one JSON object per line on stdout: `name`, `value`, `unit`, and where it has them `target`, `reached`
(true or false) and `detail`. What it says on stderr is shown as it comes. Names on the command line choose among them.
"""

import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
COLUMNS = ("name", "value", "unit", "target", "reached")
BENCH_TIMEOUT_S = 1800
WHOLE_FROM = 1000

Row = dict[str, Any]


def main(names: list[str]) -> int:
    """Run the benches that are named, or all of them; return 1 if one of them broke."""
    scripts = [script for script in sorted(HERE.glob("bench_*.py")) if not names or script.stem[6:] in names]
    if not scripts:
        print("error: no such bench; there are:", *(each.stem[6:] for each in sorted(HERE.glob("bench_*.py"))))
        return 2
    rows: list[Row] = []
    broken: list[str] = []
    for script in scripts:
        print(f"== {script.stem}", file=sys.stderr, flush=True)
        started = time.monotonic()
        done = run(script)
        rows += rows_of(script, done.stdout)
        if done.returncode:
            broken.append(f"{script.stem} ended with {done.returncode}")
        print(f"   {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
    RESULTS.write_text(json.dumps({"machine": machine(), "rows": rows, "broken": broken}, indent=2) + "\n")
    print(table(rows))
    for line in broken:
        print(f"error: {line}")
    return 1 if broken else 0


def run(script: Path) -> subprocess.CompletedProcess[str]:
    """Run one bench in an interpreter of its own, so that none warms up or burdens the next."""
    command = [sys.executable, str(script)]
    try:
        return subprocess.run(
            command, cwd=HERE, stdout=subprocess.PIPE, text=True, timeout=BENCH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(command, 124, (error.stdout or b"").decode())


def rows_of(script: Path, said: str) -> list[Row]:
    """Read the JSON lines among what a bench printed."""
    rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [{"bench": script.stem, **row} for row in rows]


def machine() -> Row:
    """Describe where and when the numbers were taken."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def table(rows: list[Row]) -> str:
    """Lay the rows out in columns."""
    lines = [COLUMNS, *(tuple(shown(row.get(column)) for column in COLUMNS) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def shown(value: object) -> str:
    """Show a cell as a person wants to read it."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "NO"
        case float():
            return f"{value:,.0f}" if abs(value) >= WHOLE_FROM else f"{value:.4g}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
