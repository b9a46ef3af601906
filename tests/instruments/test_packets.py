"""Reading datagrams: whatever comes in is a packet, or is said to be none and why."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.instruments.pysmurf.packets import Malformed, Packet, read_packet

WHOLE: dict[str, Any] = {
    "host": "smurf-srv20",
    "id": "crate1slot2",
    "script": "tune.py",
    "time": 1789900000.25,
    "seq_no": 7,
    "type": "session_data",
    "payload": {"a": 1},
}


def test_a_published_message_is_read_field_by_field() -> None:
    packet = read_packet(json.dumps(WHOLE).encode())

    assert packet == Packet(**WHOLE)


def test_a_bare_nan_passes_as_python_writes_it() -> None:
    packet = read_packet(json.dumps({**WHOLE, "payload": {"R_n": math.nan, "p_sat": -math.inf}}).encode())

    assert isinstance(packet, Packet)
    assert math.isnan(packet.payload["R_n"])
    assert packet.payload["p_sat"] == -math.inf


@pytest.mark.parametrize("name", ["host", "id", "script", "time", "seq_no"])
def test_a_message_without_a_field_that_only_describes_it_is_taken(name: str) -> None:
    assert isinstance(read_packet(json.dumps({key: WHOLE[key] for key in WHOLE if key != name}).encode()), Packet)


@pytest.mark.parametrize("time", [math.nan, math.inf, -1.0, 1e300, 10**400, "now", True, [1]])
def test_a_time_that_is_none_is_left_out(time: object) -> None:
    packet = read_packet(json.dumps({**WHOLE, "time": time}).encode())

    assert isinstance(packet, Packet | Malformed)
    assert not isinstance(packet, Packet) or packet.time is None


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "not JSON"),
        (b"hello", "not JSON"),
        (b"{}", "no type and no payload"),
        (b"[1, 2]", "a list"),
        (b"null", "a NoneType"),
        (b'{"type": "log"}', "no payload"),
        (b'{"type": 3, "payload": {}}', "type is not text"),
        (b'{"type": "log", "payload": {}, "id": ["x"]}', "id is not text"),
        (b'{"type": "log", "payload": {}, "seq_no": -1}', "seq_no"),
        (b'{"type": "log", "payload": {}, "seq_no": true}', "seq_no"),
        (b'{"type": "log", "payload": {}, "seq_no": 1.5}', "seq_no"),
        (b'{"type": "log", "payload": "\xff\xfe"}', "not UTF-8"),
        (b"[" * 60_000, "not JSON"),
    ],
)
def test_what_is_no_packet_is_said_to_be_none_and_why(datagram: bytes, reason: str) -> None:
    malformed = read_packet(datagram)

    assert isinstance(malformed, Malformed)
    assert reason in malformed.reason
    assert malformed.size == len(datagram)
    assert len(malformed.sample) <= 4 * 240


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=2000))
def test_no_bytes_break_the_reading(datagram: bytes) -> None:
    assert isinstance(read_packet(datagram), Packet | Malformed)


@given(st.dictionaries(st.sampled_from([*WHOLE, "extra"]), JSON))
def test_no_object_breaks_the_reading_and_names_can_be_shown(fields: dict[str, object]) -> None:
    packet = read_packet(json.dumps(fields).encode())

    if isinstance(packet, Packet):
        for text in (packet.id, packet.script, packet.host, packet.type):
            text.encode()
        assert packet.time is None or math.isfinite(packet.time)
    else:
        packet.reason.encode()
        packet.sample.encode()
