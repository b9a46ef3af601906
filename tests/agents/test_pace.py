"""The pace of announcing: each second up to a thousand agents, slower where there are more, never too many words."""

from __future__ import annotations

import random

import pytest

from labwright.agents.pace import TOLD, UNTOLD, Limits, Pace


def crowd(count: int, seconds: float, limits: Limits = UNTOLD, seed: int = 1) -> tuple[list[Pace], float]:
    """Have many agents speak for a while; gives their paces, and how many words there were each second at the end."""
    chance = random.Random(seed)
    paces = [Pace() for _ in range(count)]
    for pace in paces:
        pace.limits = limits
    due = [chance.random() for _ in range(count)]
    now, seq, late = 0.0, 0, 0
    while now < seconds:
        now += 0.02
        for number, pace in enumerate(paces):
            if due[number] <= now:
                seq += 1
                late += now > seconds - 10
                pace.note(seq, now)
                due[number] = now + pace.refresh_s * (0.9 + 0.2 * chance.random())
    return paces, late / 10


def test_a_thousand_agents_speak_each_second() -> None:
    paces, _ = crowd(1000, 60)
    assert {pace.refresh_s for pace in paces} == {1}


@pytest.mark.parametrize(
    ("count", "limits", "slowest_s"),
    [(2000, UNTOLD, 2), (4000, UNTOLD, 4), (100, TOLD, 1), (300, TOLD, 4), (1000, TOLD, 16)],
)
def test_more_of_them_slow_down_until_they_say_no_more_than_a_server_likes(
    count: int, limits: Limits, slowest_s: int
) -> None:
    paces, each_s = crowd(count, 80, limits)
    assert each_s < limits.most_each_s * 1.1
    assert max(pace.refresh_s for pace in paces) == slowest_s


@pytest.mark.parametrize("limits", [TOLD, UNTOLD])
def test_it_does_not_swing(limits: Limits) -> None:
    """Slowing down alone must not bring the words below the least."""
    assert limits.most_each_s / 2 > limits.least_each_s


def test_where_the_others_have_gone_it_is_quick_again() -> None:
    pace = Pace()
    for second in range(40):
        pace.note(1 + 3000 * second, float(second))
    assert (pace.refresh_s, pace.ttl_s) == (UNTOLD.slowest_s, 2 * UNTOLD.slowest_s)
    for second in range(40, 80):
        pace.note(120_000 + 10 * second, float(second))
    assert (pace.refresh_s, pace.ttl_s) == (1, 2)


def test_a_server_that_has_forgotten_and_a_standstill_tell_nothing() -> None:
    pace = Pace()
    pace.note(10_000_000, 0.0)
    pace.note(5, 11.0)
    pace.note(10_000_000, 500.0)
    assert pace.refresh_s == 1
