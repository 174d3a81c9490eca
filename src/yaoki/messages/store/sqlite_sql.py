"""The statements behind `SqliteStore`: plain functions over a connection, each called in one of its two threads."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import msgspec

from yaoki.errors import FencedError, StoreError
from yaoki.messages.envelope import Message, meta_of
from yaoki.messages.store.port import Held, Lease, Position, Settlement, Share
from yaoki.messages.store.shares import Owned, plan

VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS yaoki_messages (
    pos INTEGER PRIMARY KEY AUTOINCREMENT, part INTEGER NOT NULL, id TEXT NOT NULL, source TEXT NOT NULL,
    type TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, time REAL NOT NULL, due REAL NOT NULL,
    data BLOB NOT NULL, meta BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS yaoki_messages_id ON yaoki_messages (id, source);
CREATE TABLE IF NOT EXISTS yaoki_groups (
    grp TEXT PRIMARY KEY, types TEXT NOT NULL, since INTEGER NOT NULL, declared REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS yaoki_members (
    grp TEXT, worker TEXT, lease_until REAL NOT NULL, under_way INTEGER NOT NULL, PRIMARY KEY (grp, worker)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS yaoki_cursors (
    grp TEXT, part INTEGER, pos INTEGER NOT NULL, owner TEXT NOT NULL, lease_until REAL NOT NULL,
    fence INTEGER NOT NULL, crashes INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (grp, part)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS yaoki_held (
    grp TEXT, part INTEGER, pos INTEGER, key TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
    due REAL NOT NULL, error TEXT NOT NULL, first_at REAL NOT NULL, history BLOB NOT NULL, replays INTEGER NOT NULL,
    data BLOB, PRIMARY KEY (grp, part, pos)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS yaoki_held_due ON yaoki_held (grp, state, due);
CREATE INDEX IF NOT EXISTS yaoki_held_key ON yaoki_held (grp, part, key, pos);
"""
# AUTOINCREMENT, because a row id that is used again after pruning would lie behind the cursors.

INSERT = """INSERT INTO yaoki_messages (part, id, source, type, key, version, time, due, data, meta)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"""


def connect(path: str, power_safe: bool, busy_s: float) -> sqlite3.Connection:  # noqa: FBT001 (called through a thread)
    """A connection that any thread may use, one at a time, with our tables in it."""
    if not os.path.exists(path):  # noqa: PTH110 (also given URIs by tests)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=busy_s)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL" if power_safe else "PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -16000")
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection) -> None:
    """Create our tables, beside whatever else is in the file."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.split(";\n"):
        if statement.strip():
            connection.execute(statement)
    connection.execute("CREATE TABLE IF NOT EXISTS yaoki_messages_version (version INTEGER NOT NULL)")
    row = connection.execute("SELECT version FROM yaoki_messages_version").fetchone()
    if row is None:
        connection.execute("INSERT INTO yaoki_messages_version VALUES (?)", (VERSION,))
    connection.execute("COMMIT")
    if row is not None and row[0] > VERSION:
        raise StoreError(f"the messages in this file were written by a newer program (format {row[0]}, known {VERSION})",
                         do="use the newer program, or another file", found=row[0])


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def begin(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")


def commit(connection: sqlite3.Connection, appends: Sequence[Sequence[Message]],
           writes: Sequence[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
    """One transaction for everybody who waits. Gives an outcome for each append, then for each write."""
    begin(connection)
    try:
        insert(connection, [message for messages in appends for message in messages])
        outcomes: list[Any] = [None] * len(appends)
        for work in writes:
            connection.execute("SAVEPOINT one")
            try:
                outcomes.append(work(connection))
            except Exception as error:
                connection.execute("ROLLBACK TO one")
                outcomes.append(error)
            connection.execute("RELEASE one")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise
    return outcomes


def insert(connection: sqlite3.Connection, messages: Iterable[Message]) -> None:
    connection.executemany(INSERT, [row_of(each) for each in messages])


def row_of(each: Message) -> tuple[Any, ...]:
    """The columns of `INSERT`."""
    return (each.part, each.id, each.source, each.type, each.key, each.version, each.time, each.due, each.data,
            meta_of(each))


def settle(connection: sqlite3.Connection, group: str, settlement: Settlement, now: float) -> None:
    """Write a settlement in the open transaction. Raises `FencedError` before writing anything."""
    for part, fence in settlement.fences.items():
        found = connection.execute("SELECT fence FROM yaoki_cursors WHERE grp = ? AND part = ?", (group, part)).fetchone()
        if found is None or found[0] != fence:
            raise fenced(group, part)
    connection.executemany("UPDATE yaoki_cursors SET pos = max(pos, ?), crashes = 0 WHERE grp = ? AND part = ?",
                           [(pos, group, part) for part, (_, pos) in settlement.cursors.items()])
    if settlement.hold:
        hold(connection, group, settlement.hold)
    if settlement.drop:
        drop(connection, group, settlement.drop, now)
    if settlement.publish:
        insert(connection, settlement.publish)


def fenced(group: str, part: int) -> FencedError:
    return FencedError(f"partition {part} of {group} is another worker's now; nothing of this batch was written",
                       do="nothing: the other worker goes on; if it happens often, raise `lease` or look for a blocked "
                          "event loop", group=group, part=part)


def hold(connection: sqlite3.Connection, group: str, rows: Iterable[Held]) -> None:
    connection.executemany(
        """INSERT INTO yaoki_held (grp, part, pos, key, state, attempts, due, error, first_at, history, replays, data)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (grp, part, pos) DO UPDATE SET state = excluded.state, attempts = excluded.attempts,
               due = excluded.due, error = excluded.error, first_at = excluded.first_at, history = excluded.history,
               replays = excluded.replays, data = excluded.data""",
        [(group, row.part, row.position[1], row.key, row.state, row.attempts, row.due_at, row.error, row.first_at,
          msgspec.json.encode(row.history), row.replays, row.data) for row in rows])


def drop(connection: sqlite3.Connection, group: str, rows: Sequence[tuple[int, Position]], now: float) -> None:
    """Remove held rows; the next of each key that waited behind them is due now."""
    for part, (_, pos) in rows:
        gone = connection.execute("DELETE FROM yaoki_held WHERE grp = ? AND part = ? AND pos = ? RETURNING key",
                                  (group, part, pos)).fetchone()
        if gone is not None and gone[0]:
            connection.execute(
                """UPDATE yaoki_held SET state = 'retry', due = ? WHERE grp = ? AND part = ? AND state = 'behind'
                   AND pos = (SELECT min(pos) FROM yaoki_held WHERE grp = ? AND part = ? AND key = ?
                              AND state IN ('retry', 'quarantined', 'behind'))""",
                (now, group, part, group, part, gone[0]))


def prune(connection: sqlite3.Connection, before: float, limit: int, *, runs: bool) -> int:
    """Delete old messages that every group has done and none holds.

    Readers of replies belong to one process; those of dead processes are forgotten here, or they would keep everything.
    Groups without types read nothing: they choose who reads a broker.
    """
    for (group,) in connection.execute(
            """SELECT grp FROM yaoki_groups WHERE types LIKE '["reply.%' AND declared < ?
               AND grp NOT IN (SELECT grp FROM yaoki_members WHERE lease_until >= ?)""", (before, before)).fetchall():
        forget(connection, group)
    done = connection.execute(
        """DELETE FROM yaoki_messages WHERE pos IN (
               SELECT pos FROM yaoki_messages m WHERE time < ? AND (? OR type NOT LIKE 'saga.%')
               AND NOT EXISTS (SELECT 1 FROM yaoki_groups g LEFT JOIN yaoki_cursors c ON c.grp = g.grp AND c.part = m.part
                               WHERE g.types <> '[]' AND coalesce(c.pos, g.since) < m.pos)
               AND NOT EXISTS (SELECT 1 FROM yaoki_held h WHERE h.part = m.part AND h.pos = m.pos)
               ORDER BY pos LIMIT ?)""", (before, runs, limit))
    return done.rowcount


# ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def declare(connection: sqlite3.Connection, group: str, types: list[str], since: str, now: float) -> None:
    start = "SELECT coalesce(max(pos), 0) FROM yaoki_messages" if since == "now" else "SELECT 0"
    at = connection.execute(start).fetchone()[0]
    connection.execute(
        """INSERT INTO yaoki_groups (grp, types, since, declared) VALUES (?, ?, ?, ?)
           ON CONFLICT (grp) DO UPDATE SET types = excluded.types, declared = excluded.declared""",
        (group, msgspec.json.encode(types).decode(), at, now))


def forget(connection: sqlite3.Connection, group: str) -> None:
    connection.execute("DELETE FROM yaoki_held WHERE grp = ?", (group,))
    connection.execute("DELETE FROM yaoki_cursors WHERE grp = ?", (group,))
    connection.execute("DELETE FROM yaoki_members WHERE grp = ?", (group,))
    connection.execute("DELETE FROM yaoki_groups WHERE grp = ?", (group,))


def balance(connection: sqlite3.Connection, group: str, worker: str, ttl_s: float, *, draining: Collection[int],
            under_way: int, now: float) -> Share:
    connection.execute("DELETE FROM yaoki_members WHERE grp = ? AND lease_until < ?", (group, now))
    connection.execute("INSERT OR REPLACE INTO yaoki_members VALUES (?, ?, ?, ?)", (group, worker, now + ttl_s, under_way))
    workers = [row[0] for row in connection.execute("SELECT worker FROM yaoki_members WHERE grp = ?", (group,))]
    owned = {part: Owned(owner, until - now) for part, owner, until in connection.execute(
        "SELECT part, owner, lease_until FROM yaoki_cursors WHERE grp = ?", (group,))}
    share = plan(owned, workers, worker, ttl_s=ttl_s, draining=draining)
    connection.execute("UPDATE yaoki_cursors SET lease_until = ? WHERE grp = ? AND owner = ?",
                       (now + ttl_s, group, worker))
    connection.executemany(
        """INSERT INTO yaoki_cursors (grp, part, pos, owner, lease_until, fence)
           SELECT grp, ?, since, ?, ?, 1 FROM yaoki_groups WHERE grp = ?
           ON CONFLICT (grp, part) DO UPDATE SET owner = excluded.owner, lease_until = excluded.lease_until,
               fence = yaoki_cursors.fence + 1, crashes = yaoki_cursors.crashes + (yaoki_cursors.owner <> '')""", [(part, worker, now + ttl_s, group) for part in share.take])
    connection.execute(
        """DELETE FROM yaoki_held WHERE grp = ? AND state = 'done' AND pos <= (
               SELECT pos FROM yaoki_cursors c WHERE c.grp = yaoki_held.grp AND c.part = yaoki_held.part)""", (group,))
    leases = {part: Lease(part, (0, pos), fence, crashes) for part, pos, fence, crashes in connection.execute(
        "SELECT part, pos, fence, crashes FROM yaoki_cursors WHERE grp = ? AND owner = ?", (group, worker))}
    return Share(leases, share.surplus, share.check_in_s)


def release(connection: sqlite3.Connection, group: str, worker: str, parts: Collection[int], *, leaving: bool) -> None:
    connection.executemany("UPDATE yaoki_cursors SET owner = '', lease_until = 0 WHERE grp = ? AND owner = ? AND part = ?",
                           [(group, worker, part) for part in parts])
    if leaving:
        connection.execute("DELETE FROM yaoki_members WHERE grp = ? AND worker = ?", (group, worker))


def wake_orphans(connection: sqlite3.Connection, group: str, parts: Sequence[int]) -> None:
    connection.execute(
        """UPDATE yaoki_held SET state = 'retry', due = 0 WHERE grp = :grp AND state = 'behind'
           AND part IN (SELECT value FROM json_each(:parts)) AND NOT EXISTS (
               SELECT 1 FROM yaoki_held o WHERE o.grp = :grp AND o.part = yaoki_held.part AND o.key = yaoki_held.key
               AND o.pos < yaoki_held.pos AND o.state IN ('retry', 'quarantined', 'behind'))""",
        {"grp": group, "parts": msgspec.json.encode(parts).decode()})
