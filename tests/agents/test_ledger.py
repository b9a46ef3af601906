"""The ledger: what an agent remembers across its own death."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from labwright.agents.ledger import FolderInUseError, Ledger, LedgerError
from labwright.agents.wire import is_left_out
from labwright.core.model import SessionSnapshot, SessionState, utc_now
from labwright.journal.records import SessionChanged


def session(name: str, state: SessionState = SessionState.RUNNING) -> SessionSnapshot:
    return SessionSnapshot(id=name, agent="a1", operation="work", state=state, started_at=utc_now())


def kept(ledger: Ledger) -> set[str]:
    return {row[0] for row in ledger._database.execute("SELECT id FROM sessions")}


def test_a_folder_has_one_user_at_a_time(tmp_path: Path) -> None:
    with Ledger(tmp_path / "a1"), pytest.raises(FolderInUseError, match="runs here already"):
        Ledger(tmp_path / "a1")
    with Ledger(tmp_path / "a1"):
        pass


async def test_what_was_written_is_there_for_the_next(tmp_path: Path) -> None:
    first = SessionChanged()
    with Ledger(tmp_path / "a1") as ledger:
        ledger.write(session("one"), [("session.a1.one", first)], tokens=[("smurf", 5)], progress={"timeout_s": 3})
        ledger.write(session("two", SessionState.SUCCEEDED), tokens=[("smurf", 4)])
        await ledger.make_durable()
    with Ledger(tmp_path / "a1") as ledger:
        left = ledger.open_sessions()
        due = ledger.due(10)

        assert [(found.id, progress) for found, progress in left] == [("one", {"timeout_s": 3})]
        assert ledger.highest_token("smurf") == 5
        assert ledger.highest_token("other") == 0
        assert [item.record.record_id for item in due] == [first.record_id]
        newest = ledger.newest("work")
        assert newest is not None
        assert newest.id == "two"
        ledger.delivered(due[0])
        assert not ledger.due(10)


def test_records_come_in_the_order_of_writing(tmp_path: Path) -> None:
    with Ledger(tmp_path / "a1") as ledger:
        records = [SessionChanged() for _ in range(5)]
        for record in records:
            ledger.post("session.a1.one", record)

        assert [item.record.record_id for item in ledger.due(3)] == [record.record_id for record in records[:3]]


def test_only_the_newest_ended_sessions_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labwright.agents.ledger.KEPT", 3)
    monkeypatch.setattr("labwright.agents.ledger.TIDY_EVERY", 10)
    with Ledger(tmp_path / "a1") as ledger:
        ledger.write(session("open"))
        for number in range(19):
            ledger.write(session(f"s{number}", SessionState.SUCCEEDED))

        assert ledger.session("open") is not None
        assert ledger.newest("work") is not None
        assert kept(ledger) == {"open", "s16", "s17", "s18"}


def test_that_a_session_has_ended_is_known_long_after_it_was_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labwright.agents.ledger.KEPT", 1)
    monkeypatch.setattr("labwright.agents.ledger.TIDY_EVERY", 4)
    old = utc_now() - timedelta(days=399)
    with Ledger(tmp_path / "a1") as ledger:
        shown = {"params": {"n": 1}, "result": list(range(100)), "content": "c1"}
        ledger.write(session("old", SessionState.SUCCEEDED).model_copy(update={"ended_at": old, **shown}))
        ledger.write(
            session("older", SessionState.FAILED).model_copy(update={"ended_at": utc_now() - timedelta(days=401)})
        )
        for number in range(6):
            ledger.write(session(f"s{number}", SessionState.SUCCEEDED))
    with Ledger(tmp_path / "a1") as ledger:
        known = ledger.session("old")

        assert known is not None
        assert "old" not in kept(ledger)
        assert (known.state, known.content, known.params) == (SessionState.SUCCEEDED, "c1", {"n": 1})
        assert is_left_out(known.model_dump())
        assert ledger.session("older") is None


def test_a_ledger_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a1").mkdir()
    (tmp_path / "a1" / "ledger.sqlite").write_bytes(b"no database at all" * 1000)

    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger(tmp_path / "a1")
    (tmp_path / "a1" / "ledger.sqlite").unlink()
    with Ledger(tmp_path / "a1"):
        pass
