"""Records survive their way through JSON, and no bytes can break a reader."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.journal import records
from labwright.journal.records import Record, UnknownRecord, decode, encode
from tests.journal.history import BY_CLASS, any_record, json_values, requested


def test_every_class_of_record_is_tried_below() -> None:
    assert set(BY_CLASS) == set(records.AnyRecord.__args__)


@given(any_record)
def test_a_record_comes_back_as_it_was_written(record: Record) -> None:
    assert decode(encode(record)) == record


@pytest.mark.parametrize("kind", BY_CLASS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_each_class_keeps_its_tag(kind: type[Record], data: st.DataObject) -> None:
    record = data.draw(BY_CLASS[kind])
    assert json.loads(encode(record))["type"] == record.type
    assert type(decode(encode(record))) is kind


def test_a_type_of_a_newer_version_becomes_an_unknown_record() -> None:
    record = decode(b'{"type": "teleported", "record_id": "r1", "where": "the moon"}')
    assert isinstance(record, UnknownRecord)
    assert (record.type, record.record_id) == ("teleported", "r1")


def test_fields_of_a_newer_version_are_ignored() -> None:
    fields = json.loads(encode(requested())) | {"colour": "blue"}
    assert isinstance(decode(json.dumps(fields).encode()), records.Requested)


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_garbage_becomes_an_unknown_record(data: bytes) -> None:
    assert isinstance(decode(data), UnknownRecord)


@given(any_record, st.data())
def test_a_damaged_record_never_raises(record: Record, data: st.DataObject) -> None:
    encoded = encode(record)
    place = data.draw(st.integers(0, len(encoded) - 1))
    assert isinstance(decode(encoded[:place] + b"\xff" + encoded[place + 1 :]), Record)
    assert isinstance(decode(encoded[:place]), Record)
