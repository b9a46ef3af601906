"""Feeds: named, typed, batched."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.agents.feeds import NAME, Feed, checked_feed
from labwright.core.errors import UsageError


def make(buffer_s: float = 0) -> tuple[Feed, list[tuple[str, dict[str, Any]]]]:
    sent: list[tuple[str, dict[str, Any]]] = []
    return Feed("a.1", "temps", buffer_s, lambda subject, data: sent.append((subject, json.loads(data)))), sent


def test_a_sample_goes_out_at_once() -> None:
    feed, sent = make()
    feed.publish({"stage_1": 0.1, "ok": True, "mode": "cold"}, at=5)

    assert sent == [
        (
            "feed.a%2E1.temps",
            {"agent": "a.1", "feed": "temps", "at": 5.0, "data": {"stage_1": 0.1, "ok": True, "mode": "cold"}},
        )
    ]


async def test_buffered_samples_go_out_together() -> None:
    feed, sent = make(buffer_s=0.02)
    for number in range(10):
        feed.publish({"n": number})
    assert not sent
    while not sent:
        await asyncio.sleep(0.01)

    assert [sample["data"]["n"] for sample in sent[0][1]["samples"]] == list(range(10))
    assert len(sent) == 1


@pytest.mark.parametrize("values", [{}, {"1a": 1}, {"a b": 1}, {"a": None}, {"a": [1]}, {"": 1}, {"a" * 256: 1}])
def test_what_is_no_sample_is_refused(values: dict[str, Any]) -> None:
    feed, sent = make()
    with pytest.raises(UsageError):
        feed.publish(values)
    assert not sent


@given(st.text(max_size=12))
def test_names_follow_the_rule(name: str) -> None:
    is_valid = bool(name) and NAME.fullmatch(name) is not None
    try:
        checked_feed(name)
    except UsageError:
        assert not is_valid
    else:
        assert name.strip("_")[0].isalpha()
        assert name.isascii()
