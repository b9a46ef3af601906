"""Waiting in tests for what another part brings about: looked at again and again, with a generous limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

LIMIT_S = 30.0


async def until(condition: Callable[[], Any], what: str = "it holds", *, limit_s: float = LIMIT_S) -> Any:
    """Wait until something holds, and give it; a condition may be asynchronous."""
    end = time.monotonic() + limit_s
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < end, f"in vain for {limit_s:g} s: {what}"
        await asyncio.sleep(0.01)
