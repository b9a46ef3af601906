"""The fold of sessions: forward only, ended once, adopted after a loss, and nothing breaks it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from labwright.core.model import OperationKind, SessionMessage, SessionState
from labwright.journal import records
from labwright.journal.records import Record, SessionAdopted, SessionChanged, SessionEnded, SessionStarted
from labwright.journal.session_fold import MOST_MESSAGES, apply_session, decoded, encoded, fold_session
from tests.journal.history import BY_CLASS, NOW

SESSION_RECORDS = (
    records.SessionStarted,
    records.SessionChanged,
    records.SessionAdopted,
    records.SessionEnded,
)
any_session_record = st.one_of([BY_CLASS[kind] for kind in SESSION_RECORDS])
STARTED = SessionStarted(agent="a.1", operation="measure", kind=OperationKind.TASK, at=NOW)


@given(st.lists(any_session_record, max_size=8))
def test_an_end_is_final_unless_it_was_a_loss(history: list[Record]) -> None:
    session = None
    for record in history:
        before, session = session, apply_session(session, record, "ses_1")
        if before is None:
            assert session is None or isinstance(record, SessionStarted)
        elif before.state.is_final and not isinstance(record, SessionAdopted):
            assert session is before
        elif before.state.is_final:
            assert session is not None
            assert before.state is SessionState.LOST or session is before


def test_a_lost_session_that_is_adopted_runs_again() -> None:
    lost = SessionEnded(state="lost")
    session = fold_session([STARTED, lost, SessionAdopted(note="back")], "ses_1")
    assert session is not None
    assert (session.state, session.ended_at, session.note) == (SessionState.RUNNING, None, "back")


def test_messages_are_kept_to_a_limit_and_the_rest_is_counted() -> None:
    many = tuple(SessionMessage(at=NOW, text=str(number)) for number in range(MOST_MESSAGES))
    session = fold_session([STARTED, SessionChanged(messages=many), SessionChanged(messages=many[:3])], "ses_1")
    assert session is not None
    assert (len(session.messages), session.messages_dropped) == (MOST_MESSAGES, 3)
    assert session.messages[-1].text == "2"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_a_name_survives_its_way_through_a_subject(name: str) -> None:
    assert decoded(encoded(name)) == name
    assert "." not in encoded(name)
