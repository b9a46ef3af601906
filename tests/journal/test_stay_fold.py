"""The fold of who was here when: stays follow one another, and a word that does not fit changes nothing."""

from __future__ import annotations

from datetime import timedelta

from labwright.journal.records import AgentCame, AgentGone, Record, UnknownRecord
from labwright.journal.stay_fold import StayEntry, apply_stay, stay_subject
from tests.journal.history import NOW

SUBJECT = stay_subject("s.1")
SAID = {"class": "Pump", "labels": {"crate": "1"}, "host": "h", "pid": 7, "since": "then"}
CAME = AgentCame.model_validate({"owner": "a", "at": NOW, **SAID})
GONE = AgentGone(owner="a", why="silent", at=NOW + timedelta(seconds=5))


def fold(*records: Record) -> list[StayEntry | None]:
    """Give the newest stay after each record."""
    after: list[StayEntry | None] = []
    for seq, record in enumerate(records, 1):
        after.append(apply_stay(after[-1] if after else None, record, subject=SUBJECT, seq=seq))
    return after


def test_an_agent_comes_and_goes() -> None:
    here, away = fold(CAME, GONE)
    assert here is not None
    assert away is not None
    assert (here.stay.agent, here.stay.class_name, here.stay.pid, here.stay.came_at) == ("s.1", "Pump", 7, NOW)
    assert (here.is_open, away.is_open) == (True, False)
    assert (away.stay.why, away.stay.gone_at, away.first_seq, away.seq) == ("silent", GONE.at, 1, 2)


def test_what_is_said_twice_counts_once_and_moves_the_place_only() -> None:
    _, again, away, away_again = fold(CAME, CAME, GONE, GONE.model_copy(update={"why": "farewell"}))
    assert again is not None
    assert away is not None
    assert away_again is not None
    assert (again.first_seq, again.seq) == (1, 2)
    assert (away_again.stay, away_again.seq) == (away.stay, 4)


def test_another_of_the_name_begins_a_stay_of_its_own() -> None:
    *_, second = fold(CAME, GONE, CAME.model_copy(update={"owner": "b"}))
    assert second is not None
    assert (second.owner, second.first_seq, second.is_open) == ("b", 3, True)


def test_an_end_whose_beginning_has_left_the_journal_is_a_stay_of_which_only_the_end_is_known() -> None:
    (only,) = fold(GONE)
    assert only is not None
    assert (only.stay.came_at, only.stay.is_found, only.stay.gone_at) == (None, True, GONE.at)


def test_what_is_not_known_makes_no_stay() -> None:
    assert fold(UnknownRecord(type="agent_danced")) == [None]
