"""The view: tables folded from the journal, in which every question about past and present is answered.

It is written in batches with the last sequence in the same transaction, so it always says up to where it is true. It
can be deleted at any time; it is then folded again. Questions use a connection of their own and never block the fold.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from labwright.core.errors import LabwrightError, UsageError
from labwright.core.logs import get_logger
from labwright.core.model import ErrorRecord, Event, Run, RunState
from labwright.journal.records import HandOut, PlannedRunRecord
from labwright.journal.state import Changes, EventEntry, RunEntry

SCHEMA_VERSION = 1
PAGE = 50
WRITE_AGAIN_S = 1.0
LARGEST_PAGE = 1000
LARGEST_CHECKED = 100_000_000
RUN_FILTERS = {"state": "state", "task": "task", "target": "target", "cause": "cause_id", "parent": "parent"}
_PLANNED = TypeAdapter(tuple[PlannedRunRecord, ...])

log = get_logger(__name__)


class View:
    """The tables of one process; `write` is called from one place only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = self._open()
        self._reader = self._connect()
        self._written = asyncio.Condition()
        self._writing = threading.Lock()
        self.seq = self._checkpoint()

    # --- life --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the files, after what is being written."""
        with self._writing:
            self._writer.close()
        self._reader.close()

    async def clear(self) -> None:
        """Forget everything, as when the journal is another one than the view was folded from."""
        await asyncio.to_thread(self._clear)
        self.seq = 0

    def _clear(self) -> None:
        with self._transaction() as writer:
            for table in ("runs", "events", "hand_outs", "pools", "meta"):
                writer.execute(f"DELETE FROM {table}")  # noqa: S608 - constants

    def _open(self) -> sqlite3.Connection:
        """Open the tables, making them anew where they are missing, of another version or damaged."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            connection = self._connect()
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version in {0, SCHEMA_VERSION} and self._is_sound(connection):
                self._make_tables(connection)
                return connection
            connection.close()
        except sqlite3.DatabaseError as error:
            log.warning("the view is damaged and will be folded again", because=str(error))
        remove_view(self.path)
        connection = self._connect()
        self._make_tables(connection)
        return connection

    def _is_sound(self, connection: sqlite3.Connection) -> bool:
        """Have a view looked through as long as that is quick; a larger one is trusted, as its log is."""
        if self.path.stat().st_size > LARGEST_CHECKED:
            return True
        return connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=10)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA temp_store = MEMORY")
        return connection

    @staticmethod
    def _make_tables(connection: sqlite3.Connection) -> None:
        connection.executescript(resources.files("labwright.journal").joinpath("view.sql").read_text())
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _checkpoint(self) -> int:
        row = self._writer.execute("SELECT value FROM meta WHERE name = 'seq'").fetchone()
        return int(row[0]) if row else 0

    # --- writing -----------------------------------------------------------------------------------------------------

    async def write(self, changes: Changes) -> None:
        """Write a batch of changes in one transaction, in a thread; then whoever waits for it may ask.

        While the disk is full it waits for space.
        """
        while True:
            try:
                await asyncio.to_thread(self._write, changes)
            except sqlite3.OperationalError as error:
                log.error("the view cannot be written; trying again", because=str(error))  # noqa: TRY400 - said, not traced
                await asyncio.sleep(WRITE_AGAIN_S)
            else:
                break
        async with self._written:
            self.seq = changes.seq
            self._written.notify_all()

    async def wait_for(self, seq: int, timeout_s: float) -> bool:
        """Wait until the view is true up to a sequence; tells whether it came to that in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._written:
                await self._written.wait_for(lambda: self.seq >= seq)
        return self.seq >= seq

    def _write(self, changes: Changes) -> None:
        with self._transaction() as writer:
            writer.executemany(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_run_row(entry) for entry in changes.runs.values()],
            )
            writer.executemany(
                "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_event_row(entry) for entry in changes.events.values()],
            )
            writer.executemany("DELETE FROM hand_outs WHERE run = ?", [(run,) for run in changes.freed])
            writer.executemany(
                "INSERT OR REPLACE INTO hand_outs VALUES (?, ?, ?)",
                [(run, token, item.model_dump_json()) for run, (token, item) in changes.hand_outs.items()],
            )
            writer.executemany("INSERT OR REPLACE INTO pools VALUES (?, ?)", list(changes.pools.items()))
            writer.execute("INSERT OR REPLACE INTO meta VALUES ('seq', ?)", (str(changes.seq),))

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.OperationalError):  # a full disk has rolled it back already
                    self._writer.execute("ROLLBACK")
                raise

    # --- start -------------------------------------------------------------------------------------------------------

    def open_runs(self) -> list[RunEntry]:
        """Give every run that has not ended."""
        rows = self._reader.execute("SELECT body, first_seq, seq FROM runs WHERE is_open = 1")
        return [_run_entry(row) for row in rows]

    def unreacted_events(self) -> list[EventEntry]:
        """Give every event that still causes work."""
        rows = self._reader.execute(f"{_EVENT_SELECT} WHERE unreacted = 1")
        return [_event_entry(row) for row in rows]

    def hand_outs(self) -> dict[str, tuple[int, HandOut]]:
        """Give the newest hand-out of every open run."""
        rows = self._reader.execute("SELECT run, token, body FROM hand_outs")
        return {run: (token, HandOut.model_validate_json(body)) for run, token, body in rows}

    def pools(self) -> dict[str, str]:
        """Give the state of every pool that was ever changed."""
        return dict(self._reader.execute("SELECT name, state FROM pools").fetchall())

    # --- questions ---------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> RunEntry | None:
        """Give one run."""
        row = self._reader.execute("SELECT body, first_seq, seq FROM runs WHERE id = ?", (run_id,)).fetchone()
        return _run_entry(row) if row else None

    def runs(
        self, filters: dict[str, Any], *, limit: int = PAGE, cursor: str | None = None
    ) -> tuple[list[Run], str | None]:
        """Give a page of runs, newest first, and where the next one starts.

        Filters: `state` (one or several, by comma), `task`, `target`, `cause`, `parent`, `since` (RFC 3339).

        Raises:
            UsageError: an unknown filter, state or cursor.
        """
        where, values = _conditions(filters)
        if cursor is not None:
            where.append("first_seq < ?")
            values.append(_cursor(cursor))
        limit = max(1, min(limit, LARGEST_PAGE))
        text = (
            f"SELECT body, first_seq, seq FROM runs WHERE {' AND '.join(where) or '1'} ORDER BY first_seq DESC LIMIT ?"  # noqa: S608 - the columns are ours
        )
        rows = self._reader.execute(text, (*values, limit + 1)).fetchall()
        entries = [_run_entry(row) for row in rows[:limit]]
        return [entry.run for entry in entries], str(entries[-1].first_seq) if len(rows) > limit else None

    def run_ids(self, prefix: str) -> list[str]:
        """Give up to ten ids that start like this."""
        rows = self._reader.execute("SELECT id FROM runs WHERE id >= ? AND id < ? LIMIT 10", (prefix, prefix + "~"))
        return [row[0] for row in rows]

    def counts(self) -> dict[str, int]:
        """Tell how many runs there are in each state."""
        return dict(self._reader.execute("SELECT state, count(*) FROM runs GROUP BY state").fetchall())

    def event(self, key: str) -> EventEntry | None:
        """Give one event by its key."""
        row = self._reader.execute(f"{_EVENT_SELECT} WHERE key = ?", (key,)).fetchone()
        return _event_entry(row) if row else None

    def events_with_id(self, event_id: str) -> list[EventEntry]:
        """Give the events that have this id, one for each source."""
        rows = self._reader.execute(f"{_EVENT_SELECT} WHERE id = ? ORDER BY first_seq", (event_id,))
        return [_event_entry(row) for row in rows]

    def events(
        self, *, state: str | None = None, limit: int = PAGE, cursor: str | None = None
    ) -> tuple[list[EventEntry], str | None]:
        """Give a page of events, newest first, and where the next one starts."""
        where, values = ["1"], list[Any]()
        if state is not None:
            where.append("state = ?")
            values.append(state)
        if cursor is not None:
            where.append("first_seq < ?")
            values.append(_cursor(cursor))
        limit = max(1, min(limit, LARGEST_PAGE))
        text = f"{_EVENT_SELECT} WHERE {' AND '.join(where)} ORDER BY first_seq DESC LIMIT ?"
        rows = self._reader.execute(text, (*values, limit + 1)).fetchall()
        entries = [_event_entry(row) for row in rows[:limit]]
        return entries, str(entries[-1].first_seq) if len(rows) > limit else None


def count_open(path: Path) -> int:
    """Count the runs that had not ended when this view was last written; without a view there are none.

    Raises:
        LabwrightError: the file cannot be read.
    """
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as tables:
            return int(tables.execute("SELECT count(*) FROM runs WHERE is_open = 1").fetchone()[0])
    except sqlite3.Error as error:
        message = f"{path} cannot be read"
        raise LabwrightError(message, because=str(error), cure="labwright rebuild-view") from error


def remove_view(path: Path) -> None:
    """Delete the files of a view; it is folded again at the next start."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


_EVENT_SELECT = "SELECT key, first_seq, seq, state, received_at, event, decision, runs, error FROM events"


def _run_row(entry: RunEntry) -> tuple[Any, ...]:
    run = entry.run
    return (
        run.id,
        entry.first_seq,
        entry.seq,
        run.task,
        run.target,
        run.state.value,
        run.cause.kind,
        run.cause.id,
        run.parent,
        _sortable(run.requested_at),
        int(not run.state.is_final),
        run.model_dump_json(by_alias=True, exclude_defaults=True),
    )


def _run_entry(row: Sequence[Any]) -> RunEntry:
    return RunEntry(run=Run.model_validate_json(row[0]), first_seq=row[1], seq=row[2])


def _event_row(entry: EventEntry) -> tuple[Any, ...]:
    return (
        entry.key,
        entry.first_seq,
        entry.seq,
        entry.event.id,
        entry.event.source,
        entry.event.type,
        entry.event.subject,
        entry.state,
        entry.received_at,
        int(entry.is_unreacted),
        json.dumps({"event": entry.event.model_dump(mode="json"), "content": entry.content}),
        entry.decision_json,
        _PLANNED.dump_json(entry.runs, by_alias=True, exclude_defaults=True).decode(),
        None if entry.error is None else entry.error.model_dump_json(by_alias=True),
    )


def _event_entry(row: Sequence[Any]) -> EventEntry:
    stored = json.loads(row[5])
    return EventEntry(
        key=row[0],
        first_seq=row[1],
        seq=row[2],
        state=row[3],
        received_at=row[4],
        event=Event.model_validate(stored["event"]),
        content=stored["content"],
        decision_json=row[6],
        runs=_PLANNED.validate_json(row[7]) if row[7] else (),
        error=ErrorRecord.model_validate_json(row[8]) if row[8] else None,
    )


def _conditions(filters: dict[str, Any]) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    values: list[Any] = []
    for name, value in filters.items():
        if value is None:
            continue
        if name == "state":
            states = [_state(text.strip()) for text in str(value).split(",")]
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        elif name == "since":
            where.append("requested_at >= ?")
            values.append(_moment(str(value)))
        elif name in RUN_FILTERS:
            where.append(f"{RUN_FILTERS[name]} = ?")
            values.append(value)
        else:
            message = f"runs cannot be filtered by {name!r}"
            raise UsageError(message, because=f"the filters are {', '.join([*RUN_FILTERS, 'since'])}")
    return where, values


def _state(text: str) -> str:
    try:
        return RunState(text).value
    except ValueError as error:
        message = f"{text!r} is no state of a run"
        raise UsageError(message, because=f"the states are {', '.join(RunState)}", cure="use one of them") from error


def _moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{text!r} is no moment"
        raise UsageError(message, because="a moment is written like 2026-01-02T03:04:05Z", cure="mend it") from error
    return _sortable(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _sortable(moment: datetime) -> str:
    """Write a moment so that the order of the texts is that of the moments."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _cursor(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        message = f"{text!r} is no cursor"
        raise UsageError(message, because="a cursor is what next_cursor of the page before said") from error
