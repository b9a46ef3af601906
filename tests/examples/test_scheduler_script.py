"""The example script runs the published sequence in both ways, in real time and on a clock that is moved by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.requirements import REPOSITORY

SCRIPT = REPOSITORY / "examples" / "example_scheduler_script.py"
LIMIT_S = 60.0
PLANNED_S = [*range(60, 301, 60), *range(600, 3301, 300)]


@pytest.mark.parametrize("api", ["labwright", "hein"])
@pytest.mark.parametrize("rehearses", [True, False])
def test_the_published_sequence_prints_its_plan_before_and_its_table_after(
    tmp_path: Path, api: str, rehearses: bool
) -> None:
    scale = 1.0 if rehearses else 0.0005
    options = ["--rehearse"] if rehearses else ["--scale", str(scale)]
    command = [sys.executable, str(SCRIPT), "--api", api, *options]

    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout

    plan, head, table = told.partition("point  name")
    offsets = [float(line.partition("+")[2].split()[0]) for line in plan.splitlines()[1:]]
    assert head
    assert offsets == pytest.approx([planned * scale for planned in PLANNED_S], abs=0.001)
    rows = table.splitlines()[1:]
    assert len(rows) == 16
    assert all("succeeded" in row and "perform_sampling_sequence" in row for row in rows)
    assert ["10.0" in row for row in rows].count(True) == 1
    assert (tmp_path / "reaction.rows.jsonl").exists() != rehearses
