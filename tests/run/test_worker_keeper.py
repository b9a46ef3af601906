"""Workers end with those who keep them, also in the moment of their birth."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from labwright.run.worker_keeper import WorkerKeeper, slots_held

pytestmark = pytest.mark.timeout(60)


def processes_of(folder: Path) -> list[int]:
    """Give the processes whose command line names a folder."""
    found: list[int] = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in word for word in process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("pause_s", [0, 0.01, 0.05, 0.2])
async def test_a_worker_that_is_just_being_born_ends_with_its_keeper(tmp_path: Path, pause_s: float) -> None:
    (tmp_path / "labwright.toml").touch()
    keeper = WorkerKeeper(tmp_path, tmp_path / "state", 2)
    keeping = asyncio.create_task(keeper.run())
    await asyncio.sleep(pause_s)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await keeper.stop()
    assert slots_held(tmp_path / "state") == []
    assert processes_of(tmp_path) == []
