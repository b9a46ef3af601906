"""How late a schedule is: 200 points 50 ms apart, its rows written to disk; and what inserting 100 000 points costs.

The peers hein_control, APScheduler and schedule do the same in the same rounds, from .venv-schedulers; where that could
not be made, ours is measured alone. Lateness is the moment at which an action notes the time, less the planned one.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from support import row

from labwright import Schedule

HERE = Path(__file__).parent
PEERS = HERE.parent / ".venv-schedulers" / "bin" / "python"
POINTS = 200
INTERVAL_S = 0.05
INSERTED = 100_000
ROUNDS = 3


def main() -> None:
    """Measure in rounds and print medians."""
    rounds = [of_ours() for _ in range(ROUNDS)]
    detail = f"{POINTS} points, {INTERVAL_S * 1000:g} ms apart, rows on disk, median of {ROUNDS} rounds"
    report("time points: lateness", rounds, detail, is_ours=True)
    for name in ("hein", "apscheduler", "schedule"):
        if has_peers():
            theirs = [of_peer(name)]
            report(f"time points: lateness, {name}", theirs, f"{POINTS} points, one round", is_ours=False)
    inserting = [insert() for _ in range(ROUNDS)]
    row("time points: inserting 100 000", statistics.median(inserting), "s", at_most=1.0, detail="one call each")


def report(name: str, rounds: list[list[float]], detail: str, *, is_ours: bool) -> None:
    """Print the middle and the tail of lateness in milliseconds, and by how much each point is later than the last."""
    medians = [statistics.median(each) for each in rounds]
    tails = [statistics.quantiles(each, n=100)[98] for each in rounds]
    drifts = [statistics.linear_regression(range(len(each)), each).slope for each in rounds]
    row(f"{name} p50", statistics.median(medians), "ms", at_most=0.5 if is_ours else None, detail=detail)
    row(f"{name} p99", statistics.median(tails), "ms", at_most=5.0 if is_ours else None, detail=detail)
    row(f"{name} drift", abs(statistics.median(drifts)), "ms/point", at_most=0.01 if is_ours else None, detail=detail)


def has_peers() -> bool:
    """Tell whether the peers could be installed."""
    asked = [str(PEERS), "-c", "import hein_control, apscheduler, schedule"]
    return PEERS.exists() and subprocess.run(asked, capture_output=True, check=False).returncode == 0


def of_ours() -> list[float]:
    """Give the lateness of each point in milliseconds."""
    noted: list[float] = []
    with tempfile.TemporaryDirectory(prefix="labwright-bench-") as folder:
        schedule = Schedule(lambda: noted.append(time.time()), journal=Path(folder) / "rows.jsonl")
        with schedule.every(INTERVAL_S, times=POINTS):
            schedule.join()
    due = [each.due_at.timestamp() for each in schedule.rows if each.due_at]
    assert len(noted) == len(due) == POINTS
    return [1000 * (moment - planned) for moment, planned in zip(noted, due, strict=True)]


def of_peer(name: str) -> list[float]:
    """Have a peer do the same in its own interpreter."""
    command = [str(PEERS), str(HERE / "peer_schedulers.py"), name, str(POINTS), str(INTERVAL_S)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    return [float(each) for each in json.loads(told.splitlines()[-1])]


def insert() -> float:
    """Give the seconds that it takes to insert points one by one, in no order."""
    schedule = Schedule(print, journal=None)
    points = [(number * 7919) % 100_003 for number in range(INSERTED)]
    begun = time.perf_counter()
    for seconds in points:
        schedule.after(seconds, since="start")
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
