"""A session, as its operation sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.agents.session import NOW, Said, Session, merged
from labwright.core.errors import Stopped
from labwright.core.model import SessionSnapshot, SessionState, utc_now


class Host:
    """Hears what a session says."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.changes = 0
        self.kept: list[Any] = []

    def changed(self, session: Session) -> None:
        self.changes += 1

    def keep(self, session: Session) -> None:
        self.kept.append(session.standing["kept"])

    def say(self, session: Session, level: str, text: str, fields: Mapping[str, Any], said: Said = NOW) -> None:
        self.lines.append(text)

    async def start_script(self, session: Session, number: int, path: str, args: Any, options: Any) -> Any:
        pytest.fail("no script is started here")

    async def follow_script(self, session: Session, script: Any, heard: Any) -> Any:
        pytest.fail("no script is followed here")


def new() -> Session:
    return Session(SessionSnapshot(id="ses_1", agent="a1", operation="work", started_at=utc_now()), Host())


async def test_updates_are_merged_deeply_whatever_they_hold() -> None:
    session = new()

    session.update({"a": {"b": 1}}, x=math.nan)
    session.update(a={"c": b"\x00"})

    assert session.data == {"a": {"b": 1, "c": {"$bytes": "AA=="}}, "x": {"$float": "nan"}}
    session.replace({"only": 1})
    assert session.data == {"only": 1}


async def test_the_newest_messages_are_kept_and_the_others_counted() -> None:
    session = new()
    for number in range(1005):
        session.log(f"line {number}")

    assert len(session.snapshot.messages) == 1000
    assert session.snapshot.messages_dropped == 5
    assert session.snapshot.messages[-1].text == "line 1004"


async def test_every_ends_and_check_raises_when_it_is_asked_to_end() -> None:
    session = new()
    numbers: list[int] = []
    async for number in session.every(0.001):
        numbers.append(number)
        if len(numbers) == 3:
            session.ask_to_end("enough")

    assert numbers[0] == 0
    assert len(numbers) == 3
    assert not await session.sleep(60)
    with pytest.raises(Stopped) as stopped:
        session.check()
    assert stopped.value.because == "enough"


async def test_it_ends_once() -> None:
    session = new()
    session.set_result({"n": 1})

    assert session.end(SessionState.SUCCEEDED, returned=2)
    assert not session.end(SessionState.ABORTED)
    assert session.snapshot.result == {"n": 1}
    assert not session.move(SessionState.RUNNING)


VALUES = st.dictionaries(st.text(max_size=3), st.integers() | st.dictionaries(st.text(max_size=3), st.integers()))


@given(VALUES, VALUES, VALUES)
def test_merging_is_associative_and_changes_nothing_given(a: Any, b: Any, c: Any) -> None:
    before = repr((a, b, c))

    assert merged(a, a) == a
    if not any(
        isinstance(each.get(name), dict) != isinstance(other.get(name), dict)
        for each in (a, b, c)
        for other in (a, b, c)
        for name in each.keys() & other.keys()
    ):
        assert merged(merged(a, b), c) == merged(a, merged(b, c))
    assert repr((a, b, c)) == before
