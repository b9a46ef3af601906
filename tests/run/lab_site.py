"""A site for the tests of a whole lab: steps that wait, fail, hang and die on demand, and write down when they ran."""

from __future__ import annotations

from pathlib import Path

from labwright.run.settings import Settings, load_settings

SETTINGS = """\
[site]
package = "wholelab"
decide_timeout = 5

[workers]
processes = {processes}
slots = 8

[pools.single]
concurrency = 1
"""

TARGETS = """\
- {name: t1, labels: {kind: pump}, facts: {url: "http://t1"}}
- {name: t2, labels: {kind: pump}}
- {name: t3, labels: {kind: valve}}
"""

PACKAGE = """\
import asyncio
import os
import signal
import time
from pathlib import Path

from labwright.conditions import event_type
from labwright.core.errors import TerminalError, TransientError
from labwright.core.request import Request
from labwright.decide.rules import rule
from labwright.plan.tasks import Retry, Task, step
from labwright.facts.source import fact_source
from labwright.facts.targets import target_source

PLACE = Path(__file__).resolve().parent.parent


def note(word, ctx):
    try:
        where = ctx.target.name
    except AttributeError:  # no target was asked for
        where = "-"
    with (PLACE / "ledger.txt").open("a") as file:
        file.write(f"{word} {ctx.run.id} {where}\\n")


@step
async def first(ctx, x: int = 1):
    note("first", ctx)
    return x


@step
async def second(ctx):
    note("second", ctx)
    return {"nan": float("nan"), "list": [1, 2]}


@step
def third(ctx):
    ctx.log.info("third was here", number=3)
    return "third"


@step
async def flaky(ctx):
    note("flaky", ctx)
    if ctx.attempt < 3:
        raise TransientError("not yet")
    return ctx.attempt


@step
async def nap(ctx, seconds: float = 1):
    note("nap", ctx)
    await ctx.sleep(seconds)
    note("awake", ctx)


@step
async def hang(ctx):
    note("hang", ctx)
    await asyncio.sleep(600)


@step
def block(ctx):
    note("block", ctx)
    while not ctx.cancelled:
        time.sleep(0.01)
    ctx.sleep(0)


@step
def ignore(ctx):
    note("ignore", ctx)
    time.sleep(600)


@step
async def act(ctx, seconds: float = 0.02):
    note("begin", ctx)
    await asyncio.sleep(seconds)
    note("end", ctx)


@step
async def die(ctx, times: int = 1):
    note("die", ctx)
    if (PLACE / "ledger.txt").read_text().count(f"die {ctx.run.id}") <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@step(repeat=False)
async def die_once(ctx):
    note("once", ctx)
    os.kill(os.getpid(), signal.SIGKILL)


@step
async def large(ctx, text: str):
    return {"text": text, "more": ["y" * 1_000_000]}


@step
async def use_large(ctx):
    return len(ctx.outputs["large"]["text"])


@step
async def chatter(ctx):
    ctx.note("n" * 400_000)


@step
async def broken_until_mended(ctx):
    note("broken", ctx)
    if not (PLACE / "mended").exists():
        raise TerminalError("broken")
    return "mended"


@step
async def children(ctx):
    note("children", ctx)
    return await ctx.spawn(Request("one", x=7))


@step
async def risk(ctx):
    return await ctx.spawn(Request("risky"))


one = Task("one", steps=[first])
risky = Task("risky", steps=[first], approve=True)
risky_parent = Task("risky-parent", steps=[risk])
three = Task("three", steps=[first, second, third])
flake = Task("flake", steps=[first, flaky], retry=Retry(first=0.05, jitter=0))
napping = Task("napping", steps=[nap, third])
single_nap = Task("single-nap", steps=[nap], pool="single")
hanging = Task("hanging", steps=[hang, first])
blocking = Task("blocking", steps=[block, first])
ignoring = Task("ignoring", steps=[ignore])
acting = Task("acting", steps=[act, first, act])
single = Task("single", steps=[act], pool="single")
locked = Task("locked", steps=[act], locks=("laser",))
dying = Task("dying", steps=[first, die])
dying_once = Task("dying-once", steps=[first, die_once])
sizes = Task("sizes", steps=[large, use_large])
chatting = Task("chatting", steps=[chatter])
mending = Task("mending", steps=[first, broken_until_mended])
parent = Task("parent", steps=[children])


@rule(event_type("thing.*"))
def on_thing(scenario):
    yield Request("three", x=scenario.n)
    yield Request("one", on="kind=pump")


@rule(event_type("risky.thing"))
def on_risky(scenario):
    yield Request("risky")


@rule(event_type("many"))
def on_many(scenario):
    for number in range(scenario.number):
        yield Request("one", x=number)


@rule(event_type("unknown"))
def on_unknown(scenario):
    yield Request("nothing-of-that-name")
    yield Request("one", on="nowhere")


@rule(event_type("poison"))
def on_poison(scenario):
    if (PLACE / "poison").exists():
        os._exit(7)
    yield Request("one")


@rule(event_type("looked.up"))
def on_looked_up(scenario):
    yield Request("one", x=scenario.answer)


@fact_source("looked.up")
async def sometimes(event):
    with (PLACE / "lookups.txt").open("a") as file:
        file.write("x")
    if len((PLACE / "lookups.txt").read_text()) < 3:
        raise TransientError("the database is away", retry_after=0.05)
    return {"answer": 42}


@target_source
async def more_targets():
    if (PLACE / "no-targets").exists():
        raise TransientError("the inventory is away")
    return [{"name": "t9", "labels": {"of": "inventory"}}]
"""


def write_lab(folder: Path, *, processes: int = 1) -> Settings:
    """Write the site, and load its settings."""
    (folder / "wholelab").mkdir(parents=True)
    (folder / "wholelab" / "__init__.py").write_text(PACKAGE, encoding="utf-8")
    (folder / "labwright.toml").write_text(SETTINGS.format(processes=processes), encoding="utf-8")
    (folder / "targets.yaml").write_text(TARGETS, encoding="utf-8")
    (folder / "ledger.txt").touch()
    return load_settings(folder, {})
