"""The view: tables folded from the journal, in which every question about past and present is answered.

It is written in batches with the last sequence in the same transaction, so it always says up to where it is true. It
can be deleted at any time; it is then folded again. Questions use a connection of their own and never block the fold.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, TypeVar

from labwright.core.errors import LabwrightError
from labwright.core.logs import get_logger
from labwright.core.model import FileEntry, Run
from labwright.journal.records import HandOut
from labwright.journal.schedule_fold import ScheduleEntry
from labwright.journal.state import Changes, EventEntry, FileSeen, RunEntry, SessionEntry
from labwright.journal.stay_fold import StayEntry
from labwright.journal.view_rows import (
    EVENTS,
    FILE_FILTERS,
    FILES,
    RUN_FILTERS,
    RUNS,
    SCHEDULES,
    SESSIONS,
    STAY_FILTERS,
    STAYS,
    Where,
    event_entry,
    event_row,
    file_row,
    file_seen,
    run_entry,
    run_row,
    schedule_entry,
    schedule_row,
    session_entry,
    session_filters,
    session_row,
    stay_entry,
    stay_row,
)

SCHEMA_VERSION = 4
PAGE = 50
WRITE_AGAIN_S = 1.0
LARGEST_PAGE = 1000
LARGEST_CHECKED = 100_000_000

log = get_logger(__name__)


class _Placed(Protocol):
    """What has a place in the journal."""

    @property
    def first_seq(self) -> int: ...


T = TypeVar("T", bound=_Placed)


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
            for table in ("runs", "events", "hand_outs", "pools", "sessions", "files", "stays", "schedules", "meta"):
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
                [run_row(entry) for entry in changes.runs.values()],
            )
            writer.executemany(
                "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [event_row(entry) for entry in changes.events.values()],
            )
            writer.executemany("DELETE FROM hand_outs WHERE run = ?", [(run,) for run in changes.freed])
            writer.executemany(
                "INSERT OR REPLACE INTO hand_outs VALUES (?, ?, ?)",
                [(run, token, item.model_dump_json()) for run, (token, item) in changes.hand_outs.items()],
            )
            writer.executemany("INSERT OR REPLACE INTO pools VALUES (?, ?)", list(changes.pools.items()))
            writer.executemany(
                "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [session_row(entry) for entry in changes.sessions.values()],
            )
            writer.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [file_row(entry) for entry in changes.files.values()],
            )
            writer.executemany(
                "INSERT OR REPLACE INTO stays VALUES (?, ?, ?, ?, ?, ?)",
                [stay_row(entry) for entry in changes.stays.values()],
            )
            writer.executemany(
                "INSERT OR REPLACE INTO schedules VALUES (?, ?, ?, ?)",
                [schedule_row(entry) for entry in changes.schedules.values()],
            )
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
        return [run_entry(row) for row in self._reader.execute(f"{RUNS} WHERE is_open = 1")]

    def unreacted_events(self) -> list[EventEntry]:
        """Give every event that still causes work."""
        return [event_entry(row) for row in self._reader.execute(f"{EVENTS} WHERE unreacted = 1")]

    def open_sessions(self) -> list[SessionEntry]:
        """Give every session that has not ended."""
        return [session_entry(row) for row in self._reader.execute(f"{SESSIONS} WHERE is_open = 1")]

    def newest_stays(self) -> list[StayEntry]:
        """Give the newest stay of every agent that was ever seen."""
        newest = "WHERE first_seq IN (SELECT max(first_seq) FROM stays GROUP BY agent)"
        return [stay_entry(row) for row in self._reader.execute(f"{STAYS} {newest}")]

    def schedules(self) -> list[ScheduleEntry]:
        """Give every durable schedule that is known."""
        return [schedule_entry(row) for row in self._reader.execute(SCHEDULES)]

    def hand_outs(self) -> dict[str, tuple[int, HandOut]]:
        """Give the newest hand-out of every open run."""
        rows = self._reader.execute("SELECT run, token, body FROM hand_outs")
        return {run: (token, HandOut.model_validate_json(body)) for run, token, body in rows}

    def pools(self) -> dict[str, str]:
        """Give the state of every pool that was ever changed."""
        return dict(self._reader.execute("SELECT name, state FROM pools").fetchall())

    # --- questions ---------------------------------------------------------------------------------------------------

    def _page(
        self, select: str, where: Where, limit: int, cursor: str | None, read: Callable[[Sequence[Any]], T]
    ) -> tuple[list[T], str | None]:
        """Give a page of what fulfils conditions, newest first, and where the next one starts."""
        where.before(cursor)
        limit = max(1, min(limit, LARGEST_PAGE))
        text = f"{select} WHERE {where} ORDER BY first_seq DESC LIMIT ?"
        entries = [read(row) for row in self._reader.execute(text, (*where.values, limit + 1))]
        return entries[:limit], str(entries[limit - 1].first_seq) if len(entries) > limit else None

    def _ids(self, table: str, prefix: str) -> list[str]:
        text = f"SELECT DISTINCT id FROM {table} WHERE id >= ? AND id < ? LIMIT 10"  # noqa: S608 - our own table
        return [row[0] for row in self._reader.execute(text, (prefix, prefix + "~"))]

    def run(self, run_id: str) -> RunEntry | None:
        """Give one run."""
        row = self._reader.execute(f"{RUNS} WHERE id = ?", (run_id,)).fetchone()
        return run_entry(row) if row else None

    def runs(
        self, filters: Mapping[str, Any], *, limit: int = PAGE, cursor: str | None = None
    ) -> tuple[list[Run], str | None]:
        """Give a page of runs, newest first, and where the next one starts.

        Filters: `state` (one or several, by comma), `task`, `target`, `cause`, `tree` (caused by that, also through
        other runs), `parent`, `since` (RFC 3339).

        Raises:
            UsageError: an unknown filter, state or cursor.
        """
        entries, after = self._page(RUNS, RUN_FILTERS.conditions(filters), limit, cursor, run_entry)
        return [entry.run for entry in entries], after

    def run_ids(self, prefix: str) -> list[str]:
        """Give up to ten ids that start like this."""
        return self._ids("runs", prefix)

    def counts(self) -> dict[str, int]:
        """Tell how many runs there are in each state."""
        return dict(self._reader.execute("SELECT state, count(*) FROM runs GROUP BY state").fetchall())

    def event(self, key: str) -> EventEntry | None:
        """Give one event by its key."""
        row = self._reader.execute(f"{EVENTS} WHERE key = ?", (key,)).fetchone()
        return event_entry(row) if row else None

    def events_with_id(self, event_id: str) -> list[EventEntry]:
        """Give the events that have this id, one for each source."""
        rows = self._reader.execute(f"{EVENTS} WHERE id = ? ORDER BY first_seq", (event_id,))
        return [event_entry(row) for row in rows]

    def events(
        self, *, state: str | None = None, limit: int = PAGE, cursor: str | None = None
    ) -> tuple[list[EventEntry], str | None]:
        """Give a page of events, newest first, and where the next one starts."""
        where = Where()
        if state is not None:
            where.add("state = ?", state)
        return self._page(EVENTS, where, limit, cursor, event_entry)

    def session_entry(self, key: str) -> SessionEntry | None:
        """Give one session by its agent and id, as they stand in its subject."""
        row = self._reader.execute(f"{SESSIONS} WHERE key = ?", (key,)).fetchone()
        return session_entry(row) if row else None

    def sessions_with_id(self, session_id: str) -> list[SessionEntry]:
        """Give the sessions that have this id; there are several where a caller has used it for several agents."""
        rows = self._reader.execute(f"{SESSIONS} WHERE id = ? ORDER BY first_seq", (session_id,))
        return [session_entry(row) for row in rows]

    def session_ids(self, prefix: str) -> list[str]:
        """Give up to ten ids that start like this."""
        return self._ids("sessions", prefix)

    def sessions(
        self,
        filters: Mapping[str, Any],
        *,
        present: Collection[str] | None = None,
        limit: int = PAGE,
        cursor: str | None = None,
    ) -> tuple[list[SessionEntry], str | None]:
        """Give a page of sessions, newest first, and where the next one starts.

        Filters: `state` (one or several, by comma), `agent`, `operation`, `run`, `since` (RFC 3339). With
        `present`, the agents that are here, an open session of another one counts as lost.

        Raises:
            UsageError: an unknown filter, state or cursor.
        """
        where = session_filters(present).conditions(filters)
        return self._page(SESSIONS, where, limit, cursor, session_entry)

    def file(self, file_id: str) -> FileSeen | None:
        """Give one file."""
        row = self._reader.execute(f"{FILES} WHERE id = ?", (file_id,)).fetchone()
        return file_seen(row) if row else None

    def files(
        self, filters: Mapping[str, Any], *, limit: int = PAGE, cursor: str | None = None
    ) -> tuple[list[FileEntry], str | None]:
        """Give a page of files, newest first, and where the next one starts.

        Filters: `agent`, `session`, `action`, `kind`, `path`, `since` (RFC 3339).

        Raises:
            UsageError: an unknown filter or cursor.
        """
        entries, after = self._page(FILES, FILE_FILTERS.conditions(filters), limit, cursor, file_seen)
        return [entry.file for entry in entries], after

    def stays(
        self, filters: Mapping[str, Any], *, limit: int = PAGE, cursor: str | None = None
    ) -> tuple[list[StayEntry], str | None]:
        """Give a page of the stays of agents, newest first, and where the next one starts.

        Filters: `agent`, and `since` (RFC 3339): those that lasted at that moment or began after it.

        Raises:
            UsageError: an unknown filter or cursor.
        """
        return self._page(STAYS, STAY_FILTERS.conditions(filters), limit, cursor, stay_entry)


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
