"""Who may start next: the pure policy of hand-outs.

A candidate is a run that wants a worker. It waits for its moment, for its target and locks, for a place in its pool and
for a free worker, in the order of its rank: priority, which grows with the time waited. Each step costs O(log n): a
candidate whose target is busy is parked with that target, and looked at again when it becomes free.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

MOST_PRIORITY = 10**9
AGEING_S = 60.0
"""Seconds of waiting that count as much as one step of priority."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A run that wants a worker; moments are seconds since the epoch."""

    run: str
    pool: str = "default"
    resources: tuple[str, ...] = ()
    """What it needs for itself alone: its target and its locks."""
    priority: int = 0
    requested_at: float = 0.0
    due_at: float = 0.0
    latest_at: float | None = None
    is_held: bool = False
    """Whether it waits for a person: it does not start, and its latest start passes all the same."""

    @property
    def rank(self) -> tuple[float, str]:
        """Tell its place in the order; the smaller goes first. Waiting is worth priority, so it never changes."""
        return (self.requested_at / AGEING_S - max(-MOST_PRIORITY, min(MOST_PRIORITY, self.priority)), self.run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What is to be done now: start some, and give up those whose latest start has passed."""

    start: tuple[Candidate, ...]
    expired: tuple[Candidate, ...]


_Queue = list[tuple[tuple[float, str], int, Candidate]]
"""A heap by rank. The number keeps apart what was known of a run at different times: candidates have no order."""

_Moments = list[tuple[float, int, Candidate]]


@dataclass(slots=True)
class Dispatch:
    """All candidates, and who holds what."""

    _candidates: dict[str, Candidate] = field(default_factory=dict[str, Candidate])
    _later: _Moments = field(default_factory=list[tuple[float, int, Candidate]])
    _deadlines: _Moments = field(default_factory=list[tuple[float, int, Candidate]])
    _ready: dict[str, _Queue] = field(default_factory=dict[str, _Queue])
    _parked: dict[str, dict[str, _Queue]] = field(default_factory=dict[str, dict[str, _Queue]])
    """Candidates by the resource they wait for and by pool, so that a full pool keeps nobody else waiting."""
    _holders: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Who holds what; the log of hand-outs may give a resource to several, after a change of the site's locks."""
    _held: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def offer(self, candidate: Candidate) -> None:
        """Take a run up, or replace what was known of it."""
        if self._candidates.get(candidate.run) == candidate:
            return
        self.withdraw(candidate.run)
        self._candidates[candidate.run] = candidate
        if not candidate.is_held:
            heapq.heappush(self._later, (candidate.due_at, next(self._numbers), candidate))
        if candidate.latest_at is not None:
            heapq.heappush(self._deadlines, (candidate.latest_at, next(self._numbers), candidate))

    def withdraw(self, run: str) -> None:
        """Forget a candidate; whoever was parked behind it gets its chance."""
        candidate = self._candidates.pop(run, None)
        if candidate is not None:
            self._wake_behind(candidate)

    def hold(self, run: str, resources: tuple[str, ...]) -> None:
        """Note that a run holds its target and locks, as one that was handed out, runs or waits does."""
        if self._held.get(run) == resources:
            return
        self.release(run)
        self._held[run] = resources
        for resource in set(resources):
            self._holders.setdefault(resource, []).append(run)

    def release(self, run: str) -> None:
        """Note that a run holds nothing any more."""
        for resource in set(self._held.pop(run, ())):
            holders = self._holders[resource]
            holders.remove(run)
            if not holders:
                del self._holders[resource]
                self._wake(resource)

    def holder(self, resource: str) -> str | None:
        """Tell which run holds a target or lock."""
        holders = self._holders.get(resource)
        return holders[0] if holders else None

    def choose(self, now: float, places: Mapping[str, int], workers: int) -> Chosen:
        """Choose who starts now, given the free places of each pool and of all workers together.

        A pool that is absent from `places` has none. Those who are chosen hold their resources from here on.
        """
        expired = tuple(self._expire(now))
        self._ripen(now)
        free = dict(places)
        start: list[Candidate] = []
        while workers > 0:
            pool = self._best_pool(free)
            if pool is None:
                break
            candidate = heapq.heappop(self._ready[pool])[2]
            if self._is_current(candidate) and self._takes(candidate):
                start.append(candidate)
                free[pool] -= 1
                workers -= 1
        return Chosen(start=tuple(start), expired=expired)

    def next_moment(self) -> float | None:
        """Tell when time alone will change something: a run falls due, or its latest start passes."""
        for heap in (self._later, self._deadlines):
            while heap and not self._is_current(heap[0][2]):
                heapq.heappop(heap)
        moments = [heap[0][0] for heap in (self._later, self._deadlines) if heap]
        return min(moments, default=None)

    def __len__(self) -> int:
        return len(self._candidates)

    def _best_pool(self, free: Mapping[str, int]) -> str | None:
        open_pools = [(heap[0][0], pool) for pool, heap in self._ready.items() if heap and free.get(pool, 0) > 0]
        return min(open_pools)[1] if open_pools else None

    def _takes(self, candidate: Candidate) -> bool:
        """Have the candidate take its resources; where one is busy it is parked there."""
        for resource in candidate.resources:
            if any(run != candidate.run for run in self._holders.get(resource, ())):
                queue = self._parked.setdefault(resource, {}).setdefault(candidate.pool, [])
                heapq.heappush(queue, (candidate.rank, next(self._numbers), candidate))
                self._wake_behind(candidate)
                return False
        del self._candidates[candidate.run]
        self.hold(candidate.run, candidate.resources)
        return True

    def _expire(self, now: float) -> Iterator[Candidate]:
        while self._deadlines and self._deadlines[0][0] < now:
            candidate = heapq.heappop(self._deadlines)[2]
            if self._is_current(candidate):
                self.withdraw(candidate.run)
                yield candidate

    def _ripen(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            candidate = heapq.heappop(self._later)[2]
            if self._is_current(candidate):
                self._make_ready(candidate)

    def _make_ready(self, candidate: Candidate) -> None:
        queue = self._ready.setdefault(candidate.pool, [])
        heapq.heappush(queue, (candidate.rank, next(self._numbers), candidate))

    def _wake(self, resource: str) -> None:
        """Give the first of each pool who waits for a free resource another look."""
        for queue in self._parked.get(resource, {}).values():
            while queue:
                candidate = heapq.heappop(queue)[2]
                if self._is_current(candidate):
                    self._make_ready(candidate)
                    break

    def _wake_behind(self, candidate: Candidate) -> None:
        """Pass the chance on: the candidate will not take these free resources now."""
        for resource in candidate.resources:
            if resource not in self._holders:
                self._wake(resource)

    def _is_current(self, candidate: Candidate) -> bool:
        return self._candidates.get(candidate.run) is candidate
