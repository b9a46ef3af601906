"""What is passed on to JetStream for identities: only what reads, and only into inboxes of who asks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.access.reads import request_of

INBOX = "_INBOX.viewer=ada.f00.1"
FOLLOW = "CONSUMER.CREATE.JOURNAL.follow_0123456789abcdef"


def consumer(**config: Any) -> bytes:
    return json.dumps({"stream_name": "JOURNAL", "config": config, "action": "create"}).encode()


@pytest.mark.parametrize(
    "request_name",
    [
        "STREAM.INFO.JOURNAL",
        "DIRECT.GET.JOURNAL",
        "DIRECT.GET.PRESENCE.presence.agent.pump-1",
        "CONSUMER.INFO.LOGS.follow_0123456789abcdef",
        "CONSUMER.MSG.NEXT.LOGS.follow_0123456789abcdef",
    ],
)
@pytest.mark.parametrize("reply", [INBOX, f"_DELIVER.{INBOX}"])
def test_reading_is_passed_on(request_name: str, reply: str) -> None:
    assert request_of(f"read.viewer=ada.{request_name}", b"{}", reply) == (f"$JS.API.{request_name}", b"{}")


@pytest.mark.parametrize(
    "request_name",
    [
        "",
        "STREAM.DELETE.JOURNAL",
        "STREAM.PURGE.JOURNAL",
        "STREAM.UPDATE.JOURNAL",
        "STREAM.INFO.OTHER",
        "STREAM.MSG.DELETE.JOURNAL",
        "CONSUMER.DELETE.JOURNAL.follow_0123456789abcdef",
        "CONSUMER.CREATE.JOURNAL",
        "CONSUMER.CREATE.JOURNAL.mine",
        "CONSUMER.DURABLE.CREATE.JOURNAL.x",
        "CONSUMER.MSG.NEXT.WORK.follow_0123456789abcdef",
        "INFO\n",
    ],
)
def test_nothing_else_is(request_name: str) -> None:
    assert request_of(f"read.viewer=ada.{request_name}", consumer(), INBOX) is None


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "$JS.API.STREAM.DELETE.JOURNAL",
        "command.labwright.pump-1.dispense",
        "_INBOX.viewer=bob.f00.1",
        "_INBOX.viewer=ada",
        "_INBOX.viewer=ada.>",
        "_INBOX.f00",
        "_DELIVER._INBOX.viewer=bob.1",
    ],
)
def test_the_answer_goes_to_who_asks(reply: str) -> None:
    assert request_of("read.viewer=ada.DIRECT.GET.JOURNAL.run.none", b"", reply) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{" * 5000,
        b"{}",
        b'{"config": 5}',
        consumer(deliver_subject="$JS.API.STREAM.DELETE.JOURNAL"),
        consumer(Deliver_Subject="x"),
        consumer(durable_name="x"),
        b'{"config": {}, "config": {"deliver_subject": "x"}}',
        b'{"config": {}, "CONFIG": {"deliver_subject": "x"}}',
        b" " * 70_000 + consumer(),
    ],
)
def test_a_consumer_that_pushes_is_not_made(data: bytes) -> None:
    assert request_of(f"read.viewer=ada.{FOLLOW}", data, INBOX) is None


def test_a_consumer_that_is_pulled_is_made() -> None:
    assert request_of(f"read.viewer=ada.{FOLLOW}", consumer(ack_policy="none"), INBOX) is not None


def test_what_stands_twice_is_passed_on_as_it_was_read() -> None:
    data = b'{"config": {"deliver_subject": "$JS.API.STREAM.DELETE.JOURNAL"}, "config": {"ack_policy": "none"}}'
    passed_on = request_of(f"read.viewer=ada.{FOLLOW}", data, INBOX)

    assert passed_on is not None
    assert b"deliver_subject" not in passed_on[1]


@given(subject=st.text(), data=st.binary(), reply=st.text())
def test_whatever_comes_nothing_breaks(subject: str, data: bytes, reply: str) -> None:
    assert request_of(subject, data, reply) is None
    request_of(f"read.{subject}", data, f"_INBOX.{reply}")
