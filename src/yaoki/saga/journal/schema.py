"""The SQLite schema of a journal, and how one is recognised.

`run` is the header; `record` the history. Both are keyed by the journal's own number and not by the user's id: numbers
only grow, so new rows land beside each other and a commit touches few pages whatever the users' ids look like.
"""

from __future__ import annotations

import sqlite3

from yaoki.errors import JournalForeignError

APPLICATION_ID = 0x59414F4B  # "YAOK" in ASCII
VERSION = 1

DDL = """
CREATE TABLE run (
    no          INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    saga        TEXT NOT NULL,
    graph       TEXT NOT NULL,
    state       TEXT NOT NULL,
    input       BLOB NOT NULL,
    result      BLOB NOT NULL DEFAULT x'',
    reason      TEXT NOT NULL DEFAULT '',
    traceparent TEXT NOT NULL DEFAULT '',
    created_at  REAL NOT NULL,
    updated_at  REAL NOT NULL,
    finished_at REAL NOT NULL DEFAULT 0,
    deadline_at REAL NOT NULL DEFAULT 0,
    wake_at     REAL NOT NULL DEFAULT 0, -- above 0: parked until then
    lane        INTEGER NOT NULL DEFAULT 0, -- above 0: it waits in a queue for its turn
    sum         INTEGER NOT NULL -- see sums.py
);
CREATE INDEX run_unfinished ON run (no) WHERE finished_at = 0;
CREATE INDEX run_parked ON run (wake_at) WHERE wake_at > 0 AND lane = 0;
CREATE INDEX run_queued ON run (lane, wake_at, no) WHERE wake_at > 0 AND lane > 0;
CREATE INDEX run_placed ON run (lane) WHERE lane > 0 AND wake_at = 0 AND finished_at = 0;
CREATE INDEX run_blocked ON run (saga, updated_at) WHERE state = 'blocked';
CREATE TABLE record (
    run  INTEGER NOT NULL,
    seq  INTEGER NOT NULL,
    kind TEXT NOT NULL,
    step TEXT NOT NULL,
    data BLOB NOT NULL,
    at   REAL NOT NULL,
    sum  INTEGER NOT NULL, -- see sums.py
    PRIMARY KEY (run, seq)
) WITHOUT ROWID;
CREATE TABLE request (
    no   INTEGER PRIMARY KEY AUTOINCREMENT,
    run  TEXT NOT NULL,
    kind TEXT NOT NULL,
    data BLOB NOT NULL,
    at   REAL NOT NULL
);
CREATE TABLE definition (
    hash  TEXT PRIMARY KEY,
    saga  TEXT NOT NULL,
    graph BLOB NOT NULL
);
CREATE TABLE register (
    scope TEXT NOT NULL,
    name  TEXT NOT NULL,
    data  BLOB NOT NULL,
    at    REAL NOT NULL,
    fence INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, name)
) WITHOUT ROWID;
CREATE TABLE lock (
    no  INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    run TEXT NOT NULL,
    at  REAL NOT NULL,
    UNIQUE (key, run)
);
CREATE INDEX lock_run ON lock (run);
CREATE TABLE lane (
    no       INTEGER PRIMARY KEY,
    saga     TEXT NOT NULL,
    queue    TEXT NOT NULL,
    priority INTEGER NOT NULL,
    tenant   TEXT NOT NULL,
    UNIQUE (saga, queue, priority, tenant)
);
CREATE TABLE queue (
    name        TEXT PRIMARY KEY,
    concurrency INTEGER,
    per_worker  INTEGER,
    rate        REAL,
    burst       INTEGER,
    tat         REAL NOT NULL DEFAULT 0,
    declared    TEXT NOT NULL DEFAULT '',
    by_hand     INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE pause (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    at   REAL NOT NULL,
    who  TEXT NOT NULL,
    why  TEXT NOT NULL,
    PRIMARY KEY (kind, name)
);
CREATE TABLE operation (
    no     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     REAL NOT NULL,
    action TEXT NOT NULL,
    kind   TEXT NOT NULL,
    name   TEXT NOT NULL,
    who    TEXT NOT NULL,
    why    TEXT NOT NULL,
    data   BLOB NOT NULL
);
CREATE INDEX operation_name ON operation (name, no);
CREATE TABLE attribute (
    run   INTEGER NOT NULL,
    name  TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (name, value, run)
) WITHOUT ROWID;
CREATE INDEX attribute_run ON attribute (run);
"""

HEADER_COLUMNS = "no, id, saga, graph, state, input, result, reason, traceparent, created_at, updated_at, finished_at, deadline_at"
SUMMED_COLUMNS = f"{HEADER_COLUMNS}, sum"


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Create the schema in an empty file; accept our own; refuse everything else, untouched."""
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if found == APPLICATION_ID and version == VERSION:
        return
    if found == APPLICATION_ID:
        raise JournalForeignError(f"{path} is a journal of version {version}, and this program knows {VERSION}",
                                  do="run it with the version of yaoki that wrote it, or a newer one", path=path, version=version)
    if tables or found:
        raise JournalForeignError(f"{path} is a SQLite database of another program ({tables} tables), not a journal",
                                  do="name another file; this one was not changed", path=path)
    connection.execute("BEGIN IMMEDIATE")
    for statement in DDL.split(";"):
        if statement.strip():
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
