"""The site of the kill tests, as text: steps that count themselves in a file, and die after their end on demand."""

SETTINGS = """\
[site]
package = "hardlab"

[workers]
processes = 2
slots = 16
"""

PACKAGE = '''\
"""Runs of five steps on shared targets."""

import os
import signal
import time
from pathlib import Path

from labwright.conditions import event_type
from labwright.core.request import Request
from labwright.decide.rules import rule
from labwright.plan.tasks import Retry, Task, step

PLACE = Path(__file__).resolve().parent.parent
LEDGER = PLACE / "ledger.txt"
DEATHS = PLACE / "deaths"


def count(ctx, name, word):
    """Write one line that no crash can tear."""
    line = f"{time.time_ns()} {word} {ctx.run.id} {name} {ctx.target.name} {os.getpid()}\\n"
    with LEDGER.open("a") as file:
        file.write(line)


def die_here_if_asked():
    """Be killed between the end of a step and its record, once for each token that lies there."""
    for token in DEATHS.glob("*"):
        try:
            token.unlink()
        except FileNotFoundError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)


def counting(name, pause):
    @step
    async def perform(ctx):
        import asyncio

        count(ctx, name, "begin")
        await asyncio.sleep(pause)
        count(ctx, name, "end")
        die_here_if_asked()
        return name

    return perform


@step
def blocking(ctx):
    """A step in a thread."""
    count(ctx, "blocking", "begin")
    time.sleep(0.005)
    count(ctx, "blocking", "end")
    die_here_if_asked()
    return "blocking"


five = Task(
    "five",
    steps=[
        counting("first", 0.002), counting("second", 0.01), blocking, counting("fourth", 0), counting("fifth", 0.004)
    ],
    retry=Retry(attempts=5, first=0.1),
)


@rule(event_type("hard.event"))
def ten_runs(scenario):
    """Ask for ten runs."""
    for number in range(10):
        yield Request("five", on=f"t{(scenario.n + number) % scenario.targets}", key=f"{scenario.n}-{number}")
'''


def targets(count: int) -> str:
    """Write the targets' file."""
    return "".join(f"- name: t{number}\n" for number in range(count))
