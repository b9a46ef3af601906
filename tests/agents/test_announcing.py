"""How an agent takes its name: from a dead holder at once, from a living one never."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator

import pytest

from labwright.agents.announcing import KIND, Announcing, NameTakenError
from labwright.agents.following import agents_here
from labwright.journal.journal import Journal
from labwright.journal.presence import Presence, ProcessIdentity, ensure_presence, start_of, this_host

LONG_S = 600


@contextlib.asynccontextmanager
async def announcing(journal: Journal, name: str) -> AsyncGenerator[Announcing]:
    made = Announcing(journal, name, lambda: {"name": name, "pid": 2})
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def held_by(journal: Journal, name: str, identity: ProcessIdentity, *, ttl_s: int) -> None:
    await ensure_presence(journal)
    body = {"name": name, "pid": identity.pid, "host": "h", "identity": str(identity)}
    await Presence(journal, KIND, name, lambda: body).announce(ttl_s=ttl_s)


async def test_the_name_of_one_that_was_killed_here_is_taken_over_at_once(journal: Journal) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = ProcessIdentity(this_host(), dead.pid, start_of(dead.pid) or "")
    dead.kill()
    dead.communicate()
    await held_by(journal, "a1", identity, ttl_s=LONG_S)

    async with announcing(journal, "a1") as mine:
        async with asyncio.timeout(30):
            await mine.may_act.wait()
        assert (await agents_here(journal.connection))["a1"]["pid"] == 2


async def test_a_holder_elsewhere_keeps_the_name_as_long_as_its_word_counts(journal: Journal) -> None:
    await held_by(journal, "a1", ProcessIdentity("elsewhere", 1, "1"), ttl_s=LONG_S)

    async with announcing(journal, "a1") as mine:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await mine.may_act.wait()
        assert (await agents_here(journal.connection))["a1"]["pid"] == 1


async def test_one_that_lives_longer_than_its_word_refuses_others_and_is_named(journal: Journal) -> None:
    await held_by(journal, "a1", ProcessIdentity("elsewhere", 1, "1"), ttl_s=LONG_S)
    refused = Announcing(journal, "a1", lambda: {"name": "a1", "pid": 2})
    refused._held_since = asyncio.get_running_loop().time() - LONG_S - 10

    with pytest.raises(NameTakenError) as taken:
        async with asyncio.timeout(30):
            await refused.run()

    assert "process 1 on h" in str(taken.value.because)
