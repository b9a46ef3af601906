"""The locks of one agent."""

from __future__ import annotations

import asyncio

import pytest

from labwright.agents.locks import Holder, Locks
from labwright.core.errors import LockedError
from labwright.core.model import utc_now


def holder(name: str) -> Holder:
    return Holder(session=name, operation=f"operation {name}", since=utc_now(), by="somebody")


async def test_locks_are_taken_all_or_none() -> None:
    locks = Locks()
    locks.take(["b"], holder("one"))

    with pytest.raises(LockedError, match="'b' is held"):
        locks.take(["a", "b"], holder("two"))

    assert set(locks.held) == {"b"}


async def test_who_waits_longest_comes_first_and_nobody_overtakes() -> None:
    locks = Locks()
    locks.take(["a"], holder("one"))
    both = asyncio.create_task(locks.queue(["a", "b"], holder("two")))
    await asyncio.sleep(0)
    alone = asyncio.create_task(locks.queue(["b"], holder("three")))
    await asyncio.sleep(0)
    assert not alone.done()
    with pytest.raises(LockedError):
        locks.take(["b"], holder("four"))

    locks.release("one")
    await both
    assert not alone.done()
    locks.release("two")
    await alone

    assert locks.held["b"].session == "three"


async def test_who_leaves_the_queue_holds_up_nobody() -> None:
    locks = Locks()
    locks.take(["a"], holder("one"))
    leaving = asyncio.create_task(locks.queue(["a", "b"], holder("two")))
    waiting = asyncio.create_task(locks.queue(["b"], holder("three")))
    await asyncio.sleep(0)

    leaving.cancel()
    await waiting
    locks.release("one")

    assert set(locks.held) == {"b"}
