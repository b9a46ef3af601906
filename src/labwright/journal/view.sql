-- The view's tables: folded from the journal, for questions; they can be made anew at any time.
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY,
    first_seq INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    task TEXT NOT NULL,
    target TEXT,
    state TEXT NOT NULL,
    cause_kind TEXT NOT NULL,
    cause_id TEXT NOT NULL,
    parent TEXT,
    requested_at TEXT NOT NULL,
    is_open INTEGER NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS runs_by_age ON runs (first_seq);
CREATE INDEX IF NOT EXISTS runs_by_state ON runs (state, first_seq);
CREATE INDEX IF NOT EXISTS runs_by_task ON runs (task, first_seq);
CREATE INDEX IF NOT EXISTS runs_by_target ON runs (target, first_seq);
CREATE INDEX IF NOT EXISTS runs_by_cause ON runs (cause_id, first_seq);
CREATE INDEX IF NOT EXISTS runs_by_parent ON runs (parent, first_seq) WHERE parent IS NOT NULL;
CREATE INDEX IF NOT EXISTS runs_open ON runs (is_open) WHERE is_open = 1;

CREATE TABLE IF NOT EXISTS hand_outs (run TEXT PRIMARY KEY, token INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS events (
    key TEXT PRIMARY KEY,
    first_seq INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    type TEXT NOT NULL,
    subject TEXT,
    state TEXT NOT NULL,
    received_at TEXT NOT NULL,
    unreacted INTEGER NOT NULL,
    event TEXT NOT NULL,
    decision TEXT,
    runs TEXT,
    error TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS events_by_age ON events (first_seq);
CREATE INDEX IF NOT EXISTS events_by_id ON events (id);
CREATE INDEX IF NOT EXISTS events_by_state ON events (state, first_seq);
CREATE INDEX IF NOT EXISTS events_unreacted ON events (unreacted) WHERE unreacted = 1;

CREATE TABLE IF NOT EXISTS pools (name TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS schedules (
    name TEXT PRIMARY KEY,
    first_seq INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS sessions (
    key TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    agent TEXT NOT NULL,
    operation TEXT NOT NULL,
    run TEXT,
    state TEXT NOT NULL,
    started_at TEXT NOT NULL,
    is_open INTEGER NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_by_age ON sessions (first_seq);
CREATE INDEX IF NOT EXISTS sessions_by_id ON sessions (id);
CREATE INDEX IF NOT EXISTS sessions_by_state ON sessions (state, first_seq);
CREATE INDEX IF NOT EXISTS sessions_by_agent ON sessions (agent, first_seq);
CREATE INDEX IF NOT EXISTS sessions_by_operation ON sessions (operation, first_seq);
CREATE INDEX IF NOT EXISTS sessions_by_run ON sessions (run, first_seq) WHERE run IS NOT NULL;
CREATE INDEX IF NOT EXISTS sessions_open ON sessions (is_open) WHERE is_open = 1;

CREATE TABLE IF NOT EXISTS stays (
    first_seq INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    agent TEXT NOT NULL,
    owner TEXT NOT NULL,
    gone_at TEXT,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS stays_by_agent ON stays (agent, first_seq);
CREATE INDEX IF NOT EXISTS stays_by_end ON stays (gone_at);

CREATE TABLE IF NOT EXISTS files (
    id TEXT PRIMARY KEY,
    first_seq INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    agent TEXT NOT NULL,
    session TEXT,
    action TEXT NOT NULL,
    kind TEXT NOT NULL,
    path TEXT NOT NULL,
    registered_at TEXT NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_age ON files (first_seq);
CREATE INDEX IF NOT EXISTS files_by_agent ON files (agent, first_seq);
CREATE INDEX IF NOT EXISTS files_by_session ON files (session, first_seq) WHERE session IS NOT NULL;
CREATE INDEX IF NOT EXISTS files_by_action ON files (action, first_seq);
