"""Tests of mylab: plain pytest, without a running lab."""

import asyncio
from datetime import UTC, datetime

import pytest

from labwright import Event, Request, Scenario, TransientError
from labwright.testing import FakeContext, crash_after_every_step
from mylab.rules import weigh as weigh_rule
from mylab.tasks import readings_agree, weigh

READINGS = [12.1, 12.3, 12.2]


def arrived(state: str) -> Scenario:
    event = Event(id="event-1", source="front-desk", type="sample.arrived", subject="sample-1", time=datetime.now(UTC))
    return Scenario.of(event, {"state": state, "readings_mg": READINGS})


def balance() -> FakeContext:
    return FakeContext().with_target("balance-1", zero_mg=0.2)


def test_a_solid_sample_is_weighed() -> None:
    assert weigh_rule.condition.test(arrived("solid")) is True
    assert weigh_rule(arrived("solid")) == [
        Request("weigh", on="balance-1", sample="sample-1", readings_mg=READINGS),
    ]


def test_a_liquid_is_not() -> None:
    assert weigh_rule.condition.test(arrived("liquid")) is False


def test_a_swinging_balance_is_asked_again_later() -> None:
    with pytest.raises(TransientError, match="has not settled"):
        asyncio.run(readings_agree(balance(), readings_mg=[10.0, 15.0]))


def test_weighing_survives_a_crash_after_every_step() -> None:
    report = asyncio.run(crash_after_every_step(weigh, balance, params={"sample": "sample-1", "readings_mg": READINGS}))

    assert report.undisturbed.result == 12.0
