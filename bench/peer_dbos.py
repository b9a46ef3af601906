"""The peer: one-step workflows on a queue of DBOS. Usage: peer_dbos.py DATABASE_URL RUNS; prints one JSON object."""

import json
import sys
import time

from dbos import DBOS


@DBOS.step()
def one(number: int) -> int:
    """Do nothing."""
    return number


@DBOS.workflow()
def flow(number: int) -> int:
    """Do one step."""
    return one(number)


@DBOS.workflow()
def steps(count: int) -> float:
    """Do many steps, and give the milliseconds of one."""
    began = time.perf_counter()
    for number in range(count):
        one(number)
    return (time.perf_counter() - began) / count * 1000


def main(database: str, count: int) -> None:
    """Measure."""
    DBOS(config={"name": "bench", "system_database_url": database, "log_level": "ERROR"})
    DBOS.launch()
    queue = DBOS.register_queue("bench", polling_interval_sec=0.01)
    queue.enqueue(flow, 0).get_result()
    began = time.perf_counter()
    handles = [queue.enqueue(flow, number) for number in range(count)]
    for handle in handles:
        handle.get_result()
    took = time.perf_counter() - began
    step_ms = steps(200)
    DBOS.destroy()
    print(json.dumps({"runs_per_s": count / took, "step_ms": step_ms}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
