"""One-step runs per second, everything durable (fsync on every record), beside DBOS in the same run.

The load comes from a process of its own and `serve`, nats-server and one worker are processes of their own, all on this
machine. DBOS enqueues workflows of one step on its queue, on PostgreSQL (LABWRIGHT_BENCH_POSTGRES) or, without one, on
SQLite; its queue is asked every 10 ms instead of every second.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Generator
from typing import Any

from support import ask_for, bench_lab, in_own_process, row, spread

ROUNDS = 5
RUNS = 1500
TARGET_RATIO = 4
TARGET_P50_MS = 4
TARGET_P99_MS = 15
DBOS_RUNS = 300
POSTGRES = os.environ.get("LABWRIGHT_BENCH_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")


async def main() -> None:
    """Take turns, and print both and their ratio."""
    ours: list[float] = []
    theirs: list[float] = []
    latencies: list[float] = []
    slowest: list[float] = []
    with dbos_database() as database:
        async with bench_lab() as lab:
            await lab.wait(lab.follow_runs(await ask_for(lab, "one", 100)))
            for _ in range(ROUNDS):
                said = await in_own_process("load.py", lab.settings.folder, "runs", RUNS)
                ours.append(said["runs_per_s"])
                latencies.append(said["first_step_p50_ms"])
                slowest.append(said["first_step_p99_ms"])
                theirs.append((await in_own_process("peer_dbos.py", database, DBOS_RUNS))["runs_per_s"])
    ratio = statistics.median(mine / peer for mine, peer in zip(ours, theirs, strict=True))
    row("one-step runs", statistics.median(ours), "runs/s", detail=spread(ours, 0))
    row(
        "the same in DBOS",
        statistics.median(theirs),
        "runs/s",
        detail=f"{spread(theirs, 0)} on {database.partition(':')[0]}",
    )
    row(
        "one-step runs / DBOS",
        ratio,
        "x",
        at_least=TARGET_RATIO,
        detail="median of the rounds' ratios",
    )
    p50, p99 = statistics.median(latencies), statistics.median(slowest)
    row(
        "request to first step, p50",
        p50,
        "ms",
        at_most=TARGET_P50_MS,
        detail=spread(latencies),
    )
    row(
        "request to first step, p99",
        p99,
        "ms",
        at_most=TARGET_P99_MS,
        detail=spread(slowest),
    )


@contextlib.contextmanager
def dbos_database() -> Generator[str]:
    """Give the url of an empty database for DBOS: on PostgreSQL if it answers, and dropped at the end; else SQLite."""
    name = f"labwright_bench_{time.time_ns()}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            psycopg: Any = importlib.import_module("psycopg")  # it comes with DBOS, in the venv of the benches
            connection = psycopg.connect(POSTGRES, autocommit=True, connect_timeout=3)
        except Exception as error:  # noqa: BLE001 - whatever keeps PostgreSQL from us, SQLite is there
            print(f"no PostgreSQL ({error}), so DBOS uses SQLite", file=sys.stderr)
            yield f"sqlite:///{folder}/dbos.sqlite"
            return
        with connection:
            connection.execute(f'CREATE DATABASE "{name}"')
            try:
                yield f"{POSTGRES.rpartition('/')[0]}/{name}"
            finally:
                connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


if __name__ == "__main__":
    asyncio.run(main())
