"""Waves, quorums and budgets: what they mean, what is refused, and that nobody is forgotten or started twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.core.errors import UsageError
from labwright.plan.fan_out import FanOut
from labwright.plan.rollout import Rollout

SHARES = st.one_of(
    st.integers(1, 30).map(str), st.integers(1, 100).map(lambda share: f"{share}%"), st.just("all"), st.just("12.5%")
)


@pytest.mark.parametrize(
    ("quorum", "total", "needed"),
    [("all", 12, 12), ("7", 12, 7), ("50%", 12, 6), ("50%", 13, 7), ("33.3%", 1000, 333), ("100%", 5, 5)],
)
def test_a_quorum_is_a_number_or_a_share_that_is_rounded_up(quorum: str, total: int, needed: int) -> None:
    assert FanOut(quorum=quorum).needed(total) == needed


def test_a_quorum_that_cannot_be_reached_is_refused() -> None:
    with pytest.raises(UsageError, match="quorum of 7 cannot be reached"):
        FanOut.given(quorum="7").needed(3)


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({}, 20),
        ({"failure_budget": "2"}, 2),
        ({"failure_budget": "19%"}, 3),
        ({"waves": "1,all"}, 0),
        ({"on_failure": "abort"}, 0),
        ({"waves": "1,all", "failure_budget": "50%"}, 10),
        ({"failure_budget": "99"}, 20),
    ],
)
def test_a_failure_budget_is_a_number_or_a_share_that_is_rounded_down(options: dict[str, str], allowed: int) -> None:
    assert FanOut.given(**options).allowed_failures(20) == allowed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quorum": "most"}, "no number of targets"),
        ({"quorum": "101%"}, "no number of targets"),
        ({"quorum": True}, "no number of targets"),
        ({"quorum": "0"}, "quorum of 0"),
        ({"quorum": "0.0%"}, "quorum of 0"),
        ({"waves": "1,0,all"}, "never ends"),
        ({"waves": "1,00%"}, "never ends"),
        ({"serial": True, "waves": "1,all"}, "leave one of them out"),
        ({"waves": "1,,-2"}, "no number of targets"),
        ({"serial": True, "parallel": 3}, "one at a time"),
        ({"settle_s": 3}, "needs serial"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"retries": -1}, "retries"),
        ({"on_failure": "weep"}, "on_failure"),
        ({"bands": [0]}, "no option bands"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_a_reason(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        FanOut.given(**options)
    assert words in f"{caught.value.message}: {caught.value.because}"


def test_a_policy_reads_back_from_its_json() -> None:
    how = FanOut.given(waves="1,10%,all", quorum="7", timeout_s=5, on_failure="abort")
    assert FanOut.given(**how.model_dump(mode="json", exclude_defaults=True)) == how


def test_a_target_that_stands_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="s2 is named twice"):
        Rollout(["s1", "s2", "s2"], FanOut())


def test_the_next_wave_begins_when_the_one_before_has_ended() -> None:
    rollout = Rollout([f"t{number}" for number in range(20)], FanOut.given(waves="1,10%,all"))
    assert rollout.due() == ["t0"]
    assert rollout.due() == []
    rollout.ended("t0", succeeded=True)
    assert rollout.due() == ["t1", "t2"]
    rollout.ended("t2", succeeded=True)
    assert rollout.due() == []
    rollout.ended("t1", succeeded=True)
    assert len(rollout.due()) == 17


def test_too_many_failures_end_the_rest() -> None:
    rollout = Rollout(["a", "b", "c", "d"], FanOut.given(parallel=2, failure_budget="1"))
    assert rollout.due() == ["a", "b"]
    rollout.ended("a", succeeded=False)
    assert rollout.due() == ["c"]
    rollout.ended("b", succeeded=False)
    assert (rollout.due(), rollout.is_done, rollout.aborts) == ([], False, False)
    rollout.ended("c", succeeded=True)
    assert rollout.is_done
    assert "budget is 1" in rollout.over


@given(
    total=st.integers(0, 60),
    waves=st.lists(SHARES, max_size=4),
    parallel=st.one_of(st.none(), st.integers(1, 10)),
    budget=st.one_of(st.none(), SHARES),
    data=st.data(),
)
def test_everybody_is_started_once_or_skipped_for_a_reason(
    total: int, waves: list[str], parallel: int | None, budget: str | None, data: st.DataObject
) -> None:
    how = FanOut.given(waves=tuple(waves) or None, parallel=parallel, failure_budget=budget)
    names = [f"t{number}" for number in range(total)]
    rollout = Rollout(names, how)
    started: list[str] = []
    failed = 0
    while not rollout.is_done:
        started += (due := rollout.due())
        assert due or rollout.running, "it goes on, or it is done"
        assert how.at_once is None or len(rollout.running) <= how.at_once
        if rollout.running:
            succeeded = data.draw(st.booleans())
            failed += not succeeded
            rollout.ended(data.draw(st.sampled_from(sorted(rollout.running))), succeeded=succeeded)
    assert started == names[: len(started)], "in order, each once"
    assert len(started) == total or (rollout.over and failed > how.allowed_failures(total))
