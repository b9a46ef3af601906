"""Events: what is filled in, what is refused, and what makes two events the same."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from labwright.core.errors import TooLargeError, UsageError
from labwright.core.event import LIMIT, event_content, event_key, parse_event
from labwright.core.model import Event

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
LATER = datetime(2026, 3, 4, 5, 6, 8, tzinfo=UTC)


class FixedClock:
    def __init__(self, now: datetime = NOW) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return 0.0


def parse(text: bytes | str | Mapping[str, Any], now: datetime = NOW) -> Event:
    return parse_event(text, clock=FixedClock(now))


def test_what_is_absent_or_null_is_filled_in() -> None:
    event = parse('{"type": "door.opened", "id": null, "subject": null}')

    assert (event.specversion, event.source, event.time, event.subject) == ("1.0", "labwright", NOW, None)
    assert event.id.startswith("evt_")


def test_a_whole_event_is_kept_with_its_extensions() -> None:
    record = {
        "specversion": "1.0",
        "id": "1",
        "source": "/i03",
        "type": "data_collection.end",
        "subject": "993677",
        "time": "2026-01-02T04:04:05+01:00",
        "datacontenttype": "application/json",
        "data": {"images": 3600, "x": [1.5, None, True, "µ"]},
        "traceparent": "00-1",
    }

    event = parse(json.dumps(record).encode())

    assert json.loads(event.model_dump_json()) == {**record, "time": "2026-01-02T03:04:05Z"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("hello", "not JSON"),
        (b"\xff\xfe\xfa", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"type": "a", "data": ' + "[" * 100 + "]" * 100 + "}", "nested too deeply"),
        ('{"type": "a", "data": ' + "9" * 5_000 + "}", "not JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("{}", "no type"),
        ('{"type": null}', "no type"),
        ('{"type": ""}', "type is empty text"),
        ('{"type": 5}', "type is a number"),
        ('{"type": "a", "specversion": "0.3"}', "specversion '0.3'"),
        ('{"type": "a", "specversion": 1.0}', "specversion 1.0"),
        ('{"type": "a", "id": 5}', "id is a number"),
        ('{"type": "a", "id": ""}', "id is empty text"),
        ('{"type": "a", "source": {}}', "source is an object"),
        ('{"type": "a", "subject": []}', "subject is a list"),
        ('{"type": "a", "time": "yesterday"}', "time 'yesterday' is not an instant"),
        ('{"type": "a", "time": "2026-01-02T03:04:05"}', "is not an instant"),
        ('{"type": "a", "time": "9999-12-31T23:59:59-14:00"}', "is not an instant"),
        ('{"type": "a", "time": 5}', "time 5 is not an instant"),
        ('{"type": "a", "extension": {"b": 1}}', "attribute 'extension' is an object"),
        ('{"type": "a", "type": "b"}', "key 'type' twice"),
        ('{"type": "a", "data": {"x": 1, "x": 2}}', "key 'x' twice"),
        ('{"type": "a", "data": NaN}', "holds NaN"),
        ('{"type": "a", "data": [-Infinity]}', "holds -Infinity"),
        ('{"type": "a", "data": 1e999}', "holds the number 1e999"),
        ('{"type": "a", "data": 1, "data_base64": "MQ=="}', "both data and data_base64"),
    ],
)
def test_what_is_no_event_is_refused_with_the_reason(text: str | bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        parse(text)

    assert raised.value.because
    assert raised.value.cure


@pytest.mark.parametrize("size", [LIMIT, 50_000_000])
def test_an_event_that_is_too_large_is_refused(size: int) -> None:
    text = '{"type": "a", "data": "' + "x" * size + '"}'

    with pytest.raises(TooLargeError, match="too large"):
        parse(text)
    with pytest.raises(TooLargeError, match="too large"):
        parse(text.encode())
    with pytest.raises(TooLargeError, match="too large"):
        parse({"type": "a", "data": "x" * size})


def test_ten_megabytes_of_text_are_fine() -> None:
    assert len(parse('{"type": "a", "data": "' + "x" * 10_000_000 + '"}').data) == 10_000_000


def test_a_mapping_may_hold_what_json_cannot_say() -> None:
    event = parse({"type": "a", "time": LATER, "data": {"nan": float("nan"), "bytes": b"1", "when": NOW}})

    assert event.time == LATER
    assert event.data == {
        "nan": {"$float": "nan"},
        "bytes": {"$bytes": "MQ=="},
        "when": {"$time": "2026-03-04T05:06:07Z"},
    }


def test_a_lone_surrogate_does_not_stay_in_an_event() -> None:
    assert parse('{"type": "a", "data": "\\ud800"}').model_dump_json().encode()


def test_the_identity_is_source_and_id() -> None:
    first = parse('{"type": "a", "id": "1"}')

    assert event_key(first) == event_key(parse('{"type": "b", "id": "1"}'))
    assert event_key(first) != event_key(parse('{"type": "a", "id": "2"}'))
    assert event_key(first) != event_key(parse('{"type": "a", "id": "1", "source": "other"}'))


def test_a_repetition_has_the_same_content_although_its_time_was_filled_in_later() -> None:
    text = '{"type": "a", "id": "1", "data": {"x": 1, "y": 2}}'
    turned = '{"data": {"y": 2, "x": 1}, "id": "1", "type": "a"}'

    assert event_content(parse(text)) == event_content(parse(text, LATER)) == event_content(parse(turned, LATER))


@pytest.mark.parametrize(
    "other",
    [
        '{"type": "b", "id": "1", "data": 1}',
        '{"type": "a", "id": "1", "data": 2}',
        '{"type": "a", "id": "1", "data": 1, "subject": "s"}',
        '{"type": "a", "id": "1", "data": 1, "extension": "e"}',
    ],
)
def test_another_event_under_the_same_identity_has_other_content(other: str) -> None:
    assert event_content(parse(other)) != event_content(parse('{"type": "a", "id": "1", "data": 1}'))
