"""The peers of our schedules. Usage: peer_schedulers.py NAME POINTS INTERVAL; prints how late each point was, in ms.

hein_control and APScheduler run as they come; schedule is polled each millisecond, far more often than it documents.
"""

import json
import sys
import time
from datetime import UTC, datetime

NOTED: list[float] = []


def note() -> None:
    """Note when this was called."""
    NOTED.append(time.time())


def hein(points: int, interval_s: float) -> float:
    """Run hein_control's scheduler; give when it began."""
    from hein_control.scheduler import SamplingScheduler

    scheduler = SamplingScheduler(note)
    scheduler.insert_time_point(interval_s, number_of_points=points, relative_to="previous")
    begun = time.time()
    scheduler.start_sequence()
    scheduler.join()
    return begun


def apscheduler(points: int, interval_s: float) -> float:
    """Run APScheduler's; give when it began."""
    from apscheduler.schedulers.background import BackgroundScheduler

    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.start()
    begun = time.time() + 0.2
    for number in range(1, points + 1):
        moment = datetime.fromtimestamp(begun + number * interval_s, UTC)
        scheduler.add_job(note, "date", run_date=moment, misfire_grace_time=None)
    while len(NOTED) < points:
        time.sleep(0.05)
    scheduler.shutdown()
    return begun


def schedule(points: int, interval_s: float) -> float:
    """Run schedule's loop; give when it began."""
    import schedule as library

    begun = time.time()
    library.every(interval_s).seconds.do(note)
    while len(NOTED) < points:
        library.run_pending()
        time.sleep(0.001)
    return begun


if __name__ == "__main__":
    count, interval = int(sys.argv[2]), float(sys.argv[3])
    origin = {"hein": hein, "apscheduler": apscheduler, "schedule": schedule}[sys.argv[1]](count, interval)
    print(json.dumps([1000 * (moment - origin - (place + 1) * interval) for place, moment in enumerate(NOTED)]))
