"""The policy of hand-outs, against a naive one that looks at everybody each time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from labwright.plan.dispatch import AGEING_S, Candidate, Dispatch

RUNS = [f"r{number}" for number in range(12)]
POOLS = ["a", "b"]
candidates = st.builds(
    Candidate,
    run=st.sampled_from(RUNS),
    pool=st.sampled_from(POOLS),
    resources=st.lists(st.sampled_from(["x", "y", "z"]), max_size=2, unique=True).map(tuple),
    priority=st.integers(-1, 1),
    requested_at=st.sampled_from([0.0, 30.0, 60.0]),
    due_at=st.sampled_from([0.0, 5.0, 10.0]),
    latest_at=st.none() | st.sampled_from([7.0, 20.0]),
    is_held=st.sampled_from([False, False, False, True]),
)


@dataclass
class Naive:
    """The same policy, in O(n) for each hand-out: the best of all who may start."""

    candidates: dict[str, Candidate] = field(default_factory=dict[str, Candidate])
    held: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    def choose(self, now: float, places: dict[str, int], workers: int) -> tuple[list[str], set[str]]:
        expired = {run for run, each in self.candidates.items() if each.latest_at is not None and each.latest_at < now}
        for run in expired:
            del self.candidates[run]
        free, started = dict(places), list[str]()
        while workers > 0:
            able = [each for each in self.candidates.values() if self._may_start(each, now, free)]
            if not able:
                break
            best = min(able, key=lambda each: each.rank)
            started.append(best.run)
            del self.candidates[best.run]
            self.held[best.run] = best.resources
            free[best.pool] -= 1
            workers -= 1
        return started, expired

    def _may_start(self, each: Candidate, now: float, free: dict[str, int]) -> bool:
        taken = {resource for run, resources in self.held.items() if run != each.run for resource in resources}
        return (
            not each.is_held and each.due_at <= now and free.get(each.pool, 0) > 0 and not taken & set(each.resources)
        )


class AgainstNaive(RuleBasedStateMachine):
    """Random histories of what the dispatcher tells its policy."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = Dispatch()
        self.naive = Naive()
        self.now = 0.0
        self.started: set[str] = set()

    @rule(candidate=candidates)
    def offer(self, candidate: Candidate) -> None:
        if candidate.run not in self.started:
            self.policy.offer(candidate)
            self.naive.candidates[candidate.run] = candidate

    @rule(run=st.sampled_from(RUNS))
    def withdraw(self, run: str) -> None:
        self.policy.withdraw(run)
        self.naive.candidates.pop(run, None)

    @rule(run=st.sampled_from(RUNS))
    def release(self, run: str) -> None:
        self.policy.release(run)
        self.naive.held.pop(run, None)
        self.started.discard(run)

    @precondition(lambda self: self.started)
    @rule(data=st.data())
    def hold_again(self, data: st.DataObject) -> None:
        """As when a record of a running run is folded."""
        run = data.draw(st.sampled_from(sorted(self.started)))
        self.policy.hold(run, self.naive.held[run])

    @rule(run=st.sampled_from(RUNS), resources=st.lists(st.sampled_from(["x", "y"]), max_size=2, unique=True))
    def hold(self, run: str, resources: list[str]) -> None:
        """As after a take-over: the log says who holds what, even twice."""
        self.policy.withdraw(run)
        self.policy.hold(run, tuple(resources))
        self.naive.candidates.pop(run, None)
        self.naive.held[run] = tuple(resources)
        self.started.add(run)

    @rule(seconds=st.sampled_from([0.0, 3.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(places=st.dictionaries(st.sampled_from(POOLS), st.integers(0, 3)), workers=st.integers(0, 5))
    def choose(self, places: dict[str, int], workers: int) -> None:
        chosen = self.policy.choose(self.now, places, workers)
        started, expired = self.naive.choose(self.now, places, workers)
        assert [candidate.run for candidate in chosen.start] == started
        assert {candidate.run for candidate in chosen.expired} == expired
        self.started.update(started)

    @invariant()
    def it_knows_who_waits_and_who_holds(self) -> None:
        assert len(self.policy) == len(self.naive.candidates)
        for resource in ("x", "y", "z"):
            holders = {run for run, resources in self.naive.held.items() if resource in resources}
            holder = self.policy.holder(resource)
            assert holder in holders if holders else holder is None

    @invariant()
    def time_alone_changes_nothing_before_the_next_moment(self) -> None:
        waiting = [each for each in self.naive.candidates.values() if not each.is_held]
        moments = [each.due_at for each in waiting if each.due_at > self.now]
        moments += [
            each.latest_at
            for each in self.naive.candidates.values()
            if each.latest_at is not None and each.latest_at >= self.now
        ]
        next_moment = self.policy.next_moment()
        if moments:
            assert next_moment is not None
            assert next_moment <= min(moments)


TestAgainstNaive = AgainstNaive.TestCase
TestAgainstNaive.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


def everywhere(workers: int = 100, now: float = 100.0, **places: int) -> Any:
    return {"now": now, "places": {"default": 100, **places}, "workers": workers}


def started(policy: Dispatch, **options: Any) -> list[str]:
    return [candidate.run for candidate in policy.choose(**everywhere(**options)).start]


def offered(*candidates: Candidate) -> Dispatch:
    policy = Dispatch()
    for candidate in candidates:
        policy.offer(candidate)
    return policy


def test_a_higher_priority_goes_first() -> None:
    policy = offered(Candidate(run="low"), Candidate(run="high", priority=1))
    assert started(policy, workers=1) == ["high"]


def test_waiting_counts_as_priority() -> None:
    old = Candidate(run="old", requested_at=0)
    assert started(offered(old, Candidate(run="new", priority=1, requested_at=AGEING_S + 1)), workers=1) == ["old"]
    assert started(offered(old, Candidate(run="new", priority=1, requested_at=AGEING_S - 1)), workers=1) == ["new"]


def test_one_at_a_time_has_a_target() -> None:
    policy = offered(*(Candidate(run=f"r{n}", resources=("target:t",), requested_at=n) for n in range(3)))
    assert started(policy) == ["r0"]
    assert started(policy) == []
    policy.release("r0")
    assert started(policy) == ["r1"]


def test_a_run_that_waits_keeps_its_target_for_itself() -> None:
    policy = offered(Candidate(run="waiting", resources=("t",), due_at=50), Candidate(run="other", resources=("t",)))
    policy.hold("waiting", ("t",))
    assert started(policy, now=10) == []
    assert started(policy, now=60) == ["waiting"]


def test_two_locks_taken_by_different_runs_block_nobody_for_ever() -> None:
    policy = offered(
        Candidate(run="both", resources=("x", "y"), requested_at=0),
        Candidate(run="only x", resources=("x",), requested_at=1),
        Candidate(run="only y", resources=("y",), requested_at=2),
    )
    policy.hold("somebody", ("y",))
    assert started(policy) == ["only x"]
    policy.release("somebody")
    assert started(policy) == ["only y"]
    policy.release("only x")
    policy.release("only y")
    assert started(policy) == ["both"]


def test_a_resource_held_twice_is_free_after_both() -> None:
    policy = offered(Candidate(run="r", resources=("t",)))
    policy.hold("one", ("t",))
    policy.hold("two", ("t",))
    policy.release("two")
    assert started(policy) == []
    policy.release("one")
    assert started(policy) == ["r"]


def test_a_pool_that_is_not_named_has_no_place() -> None:
    policy = offered(Candidate(run="r", pool="paused"))
    assert started(policy) == []
    assert started(policy, paused=1) == ["r"]


def test_what_is_known_of_a_run_may_change_while_it_waits() -> None:
    """Two versions of one run, equal in rank and moment, lie in the same heap."""
    policy = Dispatch()
    for pool in ("a", "b", "default", "a"):
        policy.offer(Candidate(run="r", pool=pool, due_at=50, latest_at=70))
        policy.choose(**everywhere(now=60, a=0, b=0, workers=0))
    assert started(policy, now=60, a=1) == ["r"]


def test_a_latest_start_that_has_passed_expires_a_run_and_frees_the_way() -> None:
    late = Candidate(run="late", resources=("t",), latest_at=50)
    policy = offered(late, Candidate(run="next", resources=("t",), requested_at=1))
    chosen = policy.choose(**everywhere(now=60))
    assert [candidate.run for candidate in chosen.expired] == ["late"]
    assert [candidate.run for candidate in chosen.start] == ["next"]
    assert started(offered(late), now=50) == ["late"]


def test_a_run_that_waits_for_a_person_does_not_start_and_expires_all_the_same() -> None:
    held = Candidate(run="held", resources=("t",), latest_at=50, is_held=True)
    policy = offered(held, Candidate(run="other", resources=("t",), requested_at=1))
    assert policy.next_moment() == 0
    assert started(policy, now=40) == ["other"]
    assert policy.next_moment() == 50
    assert policy.choose(**everywhere(now=60)).expired == (held,)
    policy.release("other")
    policy.offer(held)
    policy.offer(replace(held, is_held=False))
    assert started(policy, now=40) == ["held"]


@given(st.permutations([Candidate(run=f"r{n}", requested_at=n) for n in range(6)]))
def test_the_order_of_offers_does_not_matter(shuffled: list[Candidate]) -> None:
    assert started(offered(*shuffled)) == [f"r{n}" for n in range(6)]


def test_many_candidates_on_few_targets_are_chosen_one_by_one() -> None:
    policy = offered(
        *(Candidate(run=f"r{n}", resources=(f"t{n % 10}",), requested_at=float(n)) for n in range(100_000))
    )
    done = 0
    for _ in range(300):
        runs = started(policy, workers=10)
        done += len(runs)
        for run in runs:
            policy.release(run)
    assert done == 3000
    assert len(policy) == 97_000


def test_an_equal_offer_changes_nothing() -> None:
    candidate = Candidate(run="r")
    policy = offered(candidate, replace(candidate))
    assert started(policy) == ["r"]
    assert started(policy) == []
