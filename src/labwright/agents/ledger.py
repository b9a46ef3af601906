"""An agent's ledger: what it must remember across its own death, in a folder that one process at a time may use.

It holds the sessions, the records that the journal has not acknowledged yet, and the highest token of each lock. A
write has survived the agent's death when it returns; with `make_durable` it survives that of the machine, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from labwright.agents.wire import remembered, shortened
from labwright.core.errors import ConflictError, LabwrightError
from labwright.core.model import SessionSnapshot
from labwright.journal.records import Record, decode, encode

KEPT = 2000
"""How many ended sessions the ledger keeps as they were; the journal has all of them."""
REMEMBERED_S = 400 * 86_400
"""How long the ledger knows that a session has ended, so that a command that comes again does not start it again."""
TIDY_EVERY = 500
"""After so many writes the log of writes is folded into the file, beside the loop."""

SCHEMA = """
-- No index but the keys: each one is a page more in every write, and what they would serve is asked once in a while.
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, operation TEXT NOT NULL, is_open INTEGER NOT NULL, n INTEGER NOT NULL, body TEXT NOT NULL,
    progress TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS remembered (id TEXT PRIMARY KEY, at INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS age ON remembered (at);
CREATE TABLE IF NOT EXISTS outbox (n INTEGER PRIMARY KEY, subject TEXT NOT NULL, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS tokens (lock TEXT PRIMARY KEY, token INTEGER NOT NULL) WITHOUT ROWID;
"""


NEWEST = "SELECT operation, id, max(n) FROM sessions GROUP BY operation"


class LedgerError(LabwrightError):
    """The agent cannot write down what it does, so it does nothing."""

    kind = "ledger"


class FolderInUseError(ConflictError):
    """Another process serves an agent of that name from the same folder."""

    kind = "held"


@dataclass(frozen=True, slots=True)
class Due:
    """A record that the journal has not acknowledged."""

    n: int
    subject: str
    record: Record


class Ledger:
    """The ledger in one folder; `with Ledger(folder) as ledger`, on the loop's thread.

    Raises:
        FolderInUseError: another process has it.
        LedgerError: it cannot be opened, read or written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._held = _hold(folder / "lock", folder.name)
        self._path = folder / "ledger.sqlite"
        try:
            self._database = sqlite3.connect(self._path, isolation_level=None, cached_statements=64)
            for setting in (
                "journal_mode = WAL",
                "synchronous = NORMAL",
                "wal_autocheckpoint = 0",
                "cache_size = -256",
            ):
                self._database.execute(f"PRAGMA {setting}")
            self._database.executescript(SCHEMA)
            self._log = os.open(f"{self._path}-wal", os.O_RDWR | os.O_CLOEXEC)
        except (sqlite3.Error, OSError) as error:
            os.close(self._held)
            raise _refusal(folder, error) from error
        self._next = self._number("SELECT coalesce(max(n), 0) FROM sessions") + 1
        self._newest = {name: id_ for name, id_, _ in self._rows(NEWEST)}
        """The session of each operation that was started last, by id."""
        self._open = {id_ for (id_,) in self._rows("SELECT id FROM sessions WHERE is_open")}
        self._writes = 0
        self._tidying: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it, and let others have the folder."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()
        os.close(self._log)
        os.close(self._held)

    # --- write -------------------------------------------------------------------------------------------------------

    def write(
        self,
        session: SessionSnapshot,
        due: Iterable[tuple[str, Record]] = (),
        *,
        tokens: Iterable[tuple[str, int]] = (),
        progress: Mapping[str, Any] | None = None,
    ) -> None:
        """Write down how a session stands, what the journal is to be told of it, and tokens; all or nothing.

        `progress` is what a successor of this process needs beside it to go on with it.
        """
        is_final = session.state.is_final
        body = shortened(session).decode() if is_final else session.model_dump_json(by_alias=True)
        with self._transaction():
            self._database.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
                "SET is_open = excluded.is_open, body = excluded.body, progress = excluded.progress",
                (session.id, session.operation, not is_final, self._next, body, json.dumps(progress or {})),
            )
            for subject, record in due:
                self._database.execute("INSERT INTO outbox (subject, record) VALUES (?, ?)", (subject, encode(record)))
            for lock, token in tokens:
                self._database.execute(
                    "INSERT INTO tokens VALUES (?, ?) "
                    "ON CONFLICT (lock) DO UPDATE SET token = max(token, excluded.token)",
                    (lock, token),
                )
        self._note(session)
        self._tidy()

    def post(self, subject: str, record: Record) -> None:
        """Write down a record that belongs to no session."""
        with self._transaction():
            self._database.execute("INSERT INTO outbox (subject, record) VALUES (?, ?)", (subject, encode(record)))
        self._tidy()

    def delivered(self, last: Due) -> None:
        """Forget the records up to this one: the journal has them."""
        try:
            self._database.execute("DELETE FROM outbox WHERE n <= ?", (last.n,))
        except sqlite3.Error as error:
            raise _refusal(self._folder, error) from error

    async def make_durable(self) -> None:
        """Return when everything written so far would survive the machine's end."""
        try:
            await asyncio.to_thread(os.fsync, self._log)
        except OSError as error:
            raise _refusal(self._folder, error) from error

    # --- read --------------------------------------------------------------------------------------------------------

    def session(self, session_id: str) -> SessionSnapshot | None:
        """Find a session; of one that ended long ago values and messages are left out."""
        known = self._one("SELECT body FROM sessions WHERE id = ?", session_id)
        return known or self._one("SELECT body FROM remembered WHERE id = ?", session_id)

    def newest(self, operation: str) -> SessionSnapshot | None:
        """Find the session of an operation that was started last."""
        known = self._newest.get(operation)
        return None if known is None else self.session(known)

    def open_sessions(self) -> list[tuple[SessionSnapshot, dict[str, Any]]]:
        """List the sessions that have not ended, the oldest first, with what was written beside them to go on."""
        rows = self._rows("SELECT body, progress FROM sessions WHERE is_open ORDER BY n")
        return [(SessionSnapshot.model_validate_json(body), json.loads(progress)) for body, progress in rows]

    def due(self, most: int) -> list[Due]:
        """List the oldest records that the journal has not acknowledged."""
        rows = self._rows("SELECT n, subject, record FROM outbox ORDER BY n LIMIT ?", most)
        return [Due(n, subject, decode(record)) for n, subject, record in rows]

    def is_due(self) -> bool:
        """Tell whether there are records that the journal has not acknowledged."""
        return bool(self._rows("SELECT 1 FROM outbox LIMIT 1"))

    def highest_token(self, lock: str) -> int:
        """Tell the highest token that was used for a lock."""
        return self._number("SELECT coalesce(max(token), 0) FROM tokens WHERE lock = ?", lock)

    # --- inside ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error | OSError):
                raise _refusal(self._folder, error) from error
            raise
        self._writes += 1

    def _note(self, session: SessionSnapshot) -> None:
        """Note which session of its operation is the newest, and which are open."""
        if session.id not in self._open:
            self._next += 1
            self._newest[session.operation] = session.id
            self._open.add(session.id)
        if session.state.is_final:
            self._open.discard(session.id)

    def _tidy(self) -> None:
        """Once in a while, forget what is old and fold the log of writes into the file, beside the loop."""
        if self._writes < TIDY_EVERY or (self._tidying is not None and not self._tidying.done()):
            return
        self._forget()
        self._writes = 0
        with contextlib.suppress(RuntimeError):
            self._tidying = asyncio.get_running_loop().create_task(asyncio.to_thread(_fold, self._path))

    def _forget(self) -> None:
        """Keep of the oldest sessions that have ended the little that is remembered, and of those for so long only."""
        with contextlib.suppress(LedgerError), self._transaction():
            old = self._rows(
                "SELECT body FROM sessions WHERE NOT is_open AND n <= "
                "(SELECT n FROM sessions WHERE NOT is_open ORDER BY n DESC LIMIT 1 OFFSET ?)",
                KEPT,
            )
            for session in (SessionSnapshot.model_validate_json(body) for (body,) in old):
                at = int((session.ended_at or session.started_at).timestamp())
                self._database.execute(
                    "INSERT OR REPLACE INTO remembered VALUES (?, ?, ?)", (session.id, at, remembered(session))
                )
                self._database.execute("DELETE FROM sessions WHERE id = ?", (session.id,))
            self._database.execute("DELETE FROM remembered WHERE at < ?", (int(time.time()) - REMEMBERED_S,))

    def _one(self, query: str, value: str) -> SessionSnapshot | None:
        rows = self._rows(query, value)
        return SessionSnapshot.model_validate_json(rows[0][0]) if rows else None

    def _number(self, query: str, *values: object) -> int:
        return int(self._rows(query, *values)[0][0])

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _refusal(self._folder, error) from error


def agent_folder(state_dir: Path, name: str) -> Path:
    """Give an agent's own folder; a name of dots alone, which would be another folder, is written otherwise.

    >>> agent_folder(Path("state"), "..").as_posix()
    'state/agents/%2E%2E'
    """
    return state_dir / "agents" / (name if name.strip(".") else name.replace(".", "%2E"))


def _hold(path: Path, name: str) -> int:
    """Take the lock file for as long as this process lives, and write our pid there."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise FolderInUseError(
            f"an agent named {name!r} runs here already",
            because=f"the process {pid} holds {path}",
            cure="use another name or state folder, or end that process first",
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _fold(path: Path) -> None:
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _refusal(folder: Path, error: Exception) -> LedgerError:
    return LedgerError(
        "the agent's ledger cannot be used",
        because=f"{folder}: {error}",
        cure="see to space and permissions there; what runs goes on",
    )
