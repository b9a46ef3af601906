"""The border of commands: whatever comes in is read or refused clearly, and hurts nothing."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labwright import Agent, Session, operation
from labwright.agents.commands import Command, read_command
from labwright.core.errors import LabwrightError, UsageError
from labwright.journal.connection import Connection
from labwright.journal.journal import Journal
from tests.agents.conftest import Serve

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    ["do", "session", "params", "key", "timeout_s", "valid_for_s", "run", "step", "token", "by", "reason", "wait"]
)
VERBS = st.sampled_from(["start", "stop", "abort", "status", "wait", "describe", "ping", "sessions"])
BODIES = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda do, more: json.dumps({**more, "do": do}).encode(), VERBS, st.dictionaries(FIELDS, JSON, max_size=4)
    ),
    st.builds(lambda depth: b'{"do": "start", "params": ' + b"[" * depth, st.integers(1, 200_000)),
)


@given(BODIES, st.text(max_size=30), st.none() | st.text(max_size=30))
@settings(max_examples=400, deadline=None)
def test_anything_is_read_or_refused(data: bytes, sender: str, operation: str | None) -> None:
    with contextlib.suppress(UsageError):
        assert isinstance(read_command(data, sender=sender, operation=operation), Command)


class Plain(Agent):
    def __init__(self) -> None:
        self.calls: list[Any] = []

    @operation(timeout=30)
    async def note(self, session: Session, text: str = "") -> str:
        self.calls.append(text)
        return text


SUBJECTS = st.sampled_from(["command.me.a1.note", "command.me.a1._", "command.me.a1.nota", "command.%zz.a1.%"])


async def test_an_agent_answers_whatever_comes_and_goes_on(
    serve: Serve, connection: Connection, journal: Journal
) -> None:
    async with serve(Plain):
        examples: list[tuple[bytes, str]] = []

        @given(BODIES, SUBJECTS)
        @settings(max_examples=250, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
        def collect(data: bytes, subject: str) -> None:
            examples.append((data, subject))

        collect()
        for data, subject in examples:
            if b'"wait"' in data and b'"do": "wait"' in data:
                continue
            reply = json.loads((await connection.request(subject, data, timeout_s=20)).data)
            assert "session" in reply
            if "error" in reply:
                assert reply["error"]["message"]
                assert reply["error"]["kind"] in {"usage", "not_found", "not_running", "locked", "refused", "conflict"}
                assert isinstance(reply["exit_code"], int)
        reply = await connection.request("command.me.a1.note", b'{"do": "start", "params": {"text": "still here"}}')
        assert json.loads(reply.data)["is_new"]


@pytest.mark.parametrize(
    ("body", "finding"),
    [
        ({"do": "fly"}, "do:"),
        ({"do": "start", "timeout_s": -1}, "timeout_s:"),
        ({"do": "start", "session": "a b.c"}, "session:"),
        ({"do": "start", "params": [1]}, "params:"),
    ],
)
def test_a_refusal_names_what_is_wrong(body: dict[str, Any], finding: str) -> None:
    with pytest.raises(LabwrightError) as refused:
        read_command(json.dumps(body).encode(), sender="me", operation="note")

    assert finding in refused.value.because
