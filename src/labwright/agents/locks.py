"""The locks of one agent: what only one session may have at a time, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from labwright.core.clock import to_text
from labwright.core.errors import LockedError


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock: a session of an operation, since when, and who asked for it."""

    session: str
    operation: str
    since: datetime
    by: str = ""

    def __str__(self) -> str:
        asked = f", asked for by {self.by}" if self.by else ""
        return f"{self.operation} (session {self.session}, since {to_text(self.since)}{asked})"


@dataclass(frozen=True, eq=False)
class _Waiter:
    locks: frozenset[str]
    holder: Holder
    got: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Locks:
    """Gives locks to sessions, all that one needs at once, in the order of asking."""

    def __init__(self) -> None:
        self._held: dict[str, Holder] = {}
        self._waiting: list[_Waiter] = []

    @property
    def held(self) -> Mapping[str, Holder]:
        """Who holds what now."""
        return self._held

    def take(self, locks: Sequence[str], holder: Holder) -> None:
        """Take locks at once.

        Raises:
            LockedError: one of them is held, or others wait for it.
        """
        for lock in locks:
            other = self._held.get(lock) or next((each.holder for each in self._waiting if lock in each.locks), None)
            if other is not None:
                raise LockedError(
                    f"{holder.operation} was not started: {lock!r} is held",
                    because=f"by {other}",
                    cure=f"wait for that session, or end it: labwright abort {other.session}",
                )
        self._held.update(dict.fromkeys(locks, holder))

    async def queue(self, locks: Sequence[str], holder: Holder) -> None:
        """Take locks when their turn has come; a cancellation leaves the queue."""
        waiter = _Waiter(frozenset(locks), holder)
        self._waiting.append(waiter)
        self._serve()
        try:
            await waiter.got
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            self.release(holder.session)
            raise

    def release(self, session: str) -> None:
        """Free what a session holds."""
        for lock in [lock for lock, holder in self._held.items() if holder.session == session]:
            del self._held[lock]
        self._serve()

    def _serve(self) -> None:
        """Give to the first in the queue that can have all it needs; nobody overtakes on a lock that another awaits."""
        awaited: set[str] = set()
        for waiter in list(self._waiting):
            if not waiter.got.done() and not (waiter.locks & (awaited | self._held.keys())):
                self._held.update(dict.fromkeys(waiter.locks, waiter.holder))
                self._waiting.remove(waiter)
                waiter.got.set_result(None)
            else:
                awaited |= waiter.locks
