"""Bodies too large for a record: what is cut out comes back, and the record stays small."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labwright.core.errors import TooLargeError
from labwright.core.model import Event, Run, RunState, Step, StepState
from labwright.journal import blobs
from labwright.journal.blobs import BODY_LIMIT, RECORD_LIMIT, chunks, is_mark, restore, spill
from labwright.journal.journal import BodyGoneError, Journal
from labwright.journal.records import (
    Decided,
    Finished,
    PlannedRunRecord,
    Received,
    Requested,
    Snapshot,
    Started,
    StepEnded,
    UnknownRecord,
    encode,
)
from tests.journal.history import NOW, OPERATOR, json_objects, requested

MARK = {"$blob": "b_" + "0" * 26, "size": 5, "sha256": "0" * 64}
large = st.integers(20_000, 90_000).map(lambda size: "x" * size)
nested = st.recursive(
    large | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


async def restored(data: bytes, bodies: list[blobs.Body]) -> Any:
    stored = dict(bodies)

    async def fetch(mark: Mapping[str, Any]) -> Any:
        return json.loads(stored[mark["$blob"]])

    return await restore(json.loads(data), fetch)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None, max_examples=60)
@given(nested)
async def test_what_is_cut_out_comes_back(value: Any) -> None:
    data = json.dumps({"type": "finished", "record_id": "r", "result": value}).encode()
    small, bodies = spill(data, "run.r")
    assert len(small) <= RECORD_LIMIT
    assert await restored(small, bodies) == json.loads(data)


@given(json_objects)
def test_a_small_record_is_left_alone(value: dict[str, Any]) -> None:
    data = encode(Finished(state="succeeded", result=value))
    assert spill(data, "run.r") == (data, [])


def test_a_nested_large_value_becomes_a_mark_where_it_stands() -> None:
    data = encode(Finished(state="succeeded", result={"small": 1, "deep": [{"image": "x" * 300_000}]}))
    small, bodies = spill(data, "run.r")
    result = json.loads(small)["result"]
    assert result["small"] == 1
    assert is_mark(result["deep"][0]["image"])
    assert len(bodies) == 1


def test_a_value_over_64_mb_is_refused_with_its_name() -> None:
    data = json.dumps({"type": "finished", "result": {"image": "x" * (BODY_LIMIT + 1)}}).encode()
    with pytest.raises(TooLargeError, match="image is too large"):
        spill(data, "run.r")


@pytest.mark.parametrize(
    "value",
    [
        {"$blob": "x", "size": 5, "sha256": "y"},
        {**MARK, "size": "5"},
        {**MARK, "size": -1},
        {**MARK, "size": True},
        {**MARK, "more": 1},
        {"$blob": "b_" + "0" * 26, "sha256": ""},
        {**MARK, "$blob": "b_>.*\r\n" + "0" * 20},
        [],
        None,
    ],
)
def test_what_only_looks_like_a_mark_is_none(value: object) -> None:
    assert not is_mark(value)


def test_a_body_is_written_in_chunks_of_512_kb() -> None:
    assert [len(chunk) for chunk in chunks(b"x" * 1_200_000)] == [524_288, 524_288, 151_424]


async def test_an_event_of_100_000_small_keys_comes_back(journal: Journal) -> None:
    data = {f"key {number}": number for number in range(100_000)}
    event = Event(id="e", source="s", type="t", time=NOW, data=data)
    await journal.append("event.e", Received(event=event, content="c"), after=0)
    (entry,) = await journal.read("event.e")
    assert isinstance(entry.record, Received)
    assert entry.record.event.id == "e"
    assert is_mark(entry.record.event.data)
    assert await journal.restore(entry.record.event.data) == data


async def test_parameters_of_100_000_keys_come_back(journal: Journal) -> None:
    params = {f"key {number}": number for number in range(100_000)}
    await journal.append("run.r", requested(params=params), after=0)
    (entry,) = await journal.read("run.r")
    assert isinstance(entry.record, Requested)
    assert await journal.restore(entry.record.params) == params


def large_run() -> Run:
    steps = tuple(
        Step(name=f"step {n}", position=n, state=StepState.SUCCEEDED, output="x" * 40_000, note="n" * 100)
        for n in range(20)
    )
    return Run(id="r", task="t", cause=OPERATOR, requested_at=NOW, steps=steps, state=RunState.RUNNING)


@pytest.mark.parametrize(
    "record",
    [
        Received(event=Event(id="e", source="s", type="t", time=NOW, subject="x" * 300_000), content="c"),
        Decided(decision_json=json.dumps({"rules": [{"rule": f"r{n}"} for n in range(40_000)]})),
        Decided(decision_json="{}", runs=tuple(PlannedRunRecord(id=f"run_{n}", request=n) for n in range(10_000))),
        Started(token=1, attempt=1, worker="w", steps=tuple(f"step number {n}" for n in range(30_000))),
        StepEnded(token=1, step=Step(name="a", position=0, note="n" * 300_000, output={"rows": ["x" * 50_000] * 9})),
        Finished(state="succeeded", note="n" * 400_000),
        Snapshot(run=large_run()),
        Snapshot(run=large_run().model_copy(update={"note": "x" * 300_000})),
    ],
    ids=lambda record: type(record).__name__,
)
async def test_a_record_keeps_its_class_however_large_its_fields(journal: Journal, record: Any) -> None:
    """Text that is too long, in a field that must be text, comes back before the record is read."""
    await journal.append("run.r", record, after=0)
    (entry,) = await journal.read("run.r")
    assert type(entry.record) is type(record)
    plain = await journal.restore(entry.record.model_dump(mode="json", by_alias=True))
    assert plain == record.model_dump(mode="json", by_alias=True)


async def test_a_body_that_is_gone_is_an_error_that_says_so(journal: Journal) -> None:
    with pytest.raises(BodyGoneError, match="gone from the journal"):
        await journal.fetch(MARK)


async def test_a_record_whose_typed_field_is_gone_is_unknown_and_breaks_nothing(journal: Journal) -> None:
    await journal.append("run.r", Snapshot(run=large_run().model_copy(update={"note": "x" * 300_000})), after=0)
    await journal.api("STREAM.PURGE.BLOBS")
    (entry,) = await journal.read("run.r")
    assert isinstance(entry.record, UnknownRecord)


async def test_a_mark_of_another_body_does_not_bring_it(journal: Journal) -> None:
    await journal.append("run.r", Finished(state="succeeded", result="x" * 300_000), after=0)
    (entry,) = await journal.read("run.r")
    assert isinstance(entry.record, Finished)
    with pytest.raises(BodyGoneError, match="not what was written"):
        await journal.fetch({**entry.record.result, "sha256": "0" * 64})
