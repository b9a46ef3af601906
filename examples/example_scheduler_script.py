"""Sample a reaction five times 60 s apart, then ten times 300 s apart, with a pause and a sample by hand on the way.

    python example_scheduler_script.py                     # an hour, as in the laboratory
    python example_scheduler_script.py --scale 0.001       # the same in four seconds
    python example_scheduler_script.py --rehearse          # the same on a clock that is moved by hand, at once
    python example_scheduler_script.py --api hein          # the same with the names of hein_control

The plan is printed before it begins, and a table of what has happened after it has ended. Its rows are also written to
reaction.rows.jsonl as they happen, save in a rehearsal.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from labwright import Schedule, every
from labwright.compat.hein.scheduler import SamplingScheduler
from labwright.core.clock import Clock, SystemClock
from labwright.testing import ManualClock

Wait = Callable[[float], None]


def perform_sampling_sequence() -> str:
    """Draw a sample from the reactor; a real one would move a pump here."""
    return "sampled"


def inject(volume_ul: float = 5.0) -> float:
    """Inject the sample into the chromatograph."""
    return volume_ul


def with_labwright(clock: Clock, wait: Wait, scale: float, rows: str | None) -> None:
    """Run the sequence with Labwright's own schedule."""
    schedule = Schedule(perform_sampling_sequence, inject, name="reaction", clock=clock, journal=rows)
    schedule.at(5 * every(60 * scale) + 10 * every(300 * scale))

    print(schedule.preview())
    with schedule:
        wait(150 * scale)
        schedule.fire(inject={"volume_ul": 10.0})  # one more sample, now
        schedule.pause()
        wait(100 * scale)  # somebody looks at the stirrer
        schedule.resume()  # what is left has moved by this time
        wait(3250 * scale)  # to move a clock that is moved by hand; join() alone waits as long as it takes
        schedule.join()
    print(schedule.rows)


def with_hein_control(clock: Clock, wait: Wait, scale: float, rows: str | None) -> None:
    """Run the sequence with the names of hein_control; there the import says `from hein_control.scheduler`."""
    scheduler = SamplingScheduler(
        perform_sampling_sequence, inject, sequence_name="reaction", clock=clock, journal=rows
    )
    scheduler.insert_time_point_list_pairs(5, 60 * scale, 10, 300 * scale)

    print(scheduler.visualize_timepoints())
    scheduler.start_sequence()
    wait(150 * scale)
    scheduler.trigger(inject={"volume_ul": 10.0})
    scheduler.pause_sequence()
    wait(100 * scale)
    scheduler.start_sequence()
    wait(3250 * scale)
    scheduler.join()
    print(scheduler.rows)


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--api", choices=["labwright", "hein"], default="labwright")
    parser.add_argument("--scale", type=float, default=1.0, help="how long a second takes, in seconds")
    parser.add_argument("--rehearse", action="store_true", help="run on a clock that is moved by hand")
    chosen = parser.parse_args()
    run = with_labwright if chosen.api == "labwright" else with_hein_control
    if chosen.rehearse:
        clock = ManualClock()
        run(clock, clock.advance, chosen.scale, None)
    else:
        run(SystemClock(), time.sleep, chosen.scale, "reaction.rows.jsonl")


if __name__ == "__main__":
    main()
