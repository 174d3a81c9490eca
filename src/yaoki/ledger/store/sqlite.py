"""A ledger in one SQLite file: one writer at a time, so the order of row ids is the order of commits.

WAL with `synchronous=FULL`: a commit returns after its fsync. Statements take microseconds and run where they are called;
what may wait, `BEGIN IMMEDIATE` for another process and `COMMIT` for the disk, waits on a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import count, repeat
from pathlib import Path
from typing import Any

import msgspec

from yaoki import runtime
from yaoki.errors import LedgerError, UsageError, VersionConflictError
from yaoki.ledger.changes import Changes
from yaoki.ledger.epochs import Position, Row, Stretch
from yaoki.ledger.store.port import SqlRow
from yaoki.ledger.store.schema import statements

BUSY_S = 10.0
"""How long to wait for another process that is writing."""

# One statement for a whole batch: each call into SQLite costs more than another row in it. `WHERE true` is there because
# SQLite would else read ON CONFLICT as a join's ON (sqlite.org/lang_upsert.html, section 2.2).
HEADS = """INSERT INTO yaoki_ledger_head (key, version) SELECT key, value FROM json_each(?1) WHERE true
    ON CONFLICT (key) DO UPDATE SET version = version + excluded.version RETURNING key, version"""

VERSION = """INSERT INTO yaoki_ledger_version
    (part, key, version, digest, salt, commitment, content, schema, written_at, traceparent) VALUES (?,?,?,?,?,?,?,?,?,?)"""

READY = """SELECT key, version, coalesce(digest, x''), commitment, pos FROM yaoki_ledger_version
    WHERE part = ?1 AND pos > ?2 ORDER BY pos LIMIT ?3"""

BETWEEN = """SELECT pos, key, version, digest, commitment, written_at, CASE WHEN ?4 THEN content END, schema
    FROM yaoki_ledger_version WHERE part = ?1 AND pos > ?2 AND pos <= ?3 ORDER BY pos"""

VERSIONS = """SELECT key, version, content, schema, written_at, traceparent FROM yaoki_ledger_version
    WHERE key = ?1 AND version >= ?2 AND version <= ?3 ORDER BY version"""


REMOVE = """DELETE FROM yaoki_ledger_version WHERE pos IN (
    SELECT pos FROM yaoki_ledger_version WHERE part = ?1 AND pos <= ?2 ORDER BY pos LIMIT ?3) RETURNING 1"""
REMOVED_AT_ONCE = 2000
"""Rows deleted in one transaction: writers wait for some milliseconds only."""

LOWEST = """SELECT key, coalesce((SELECT min(version) FROM yaoki_ledger_version v WHERE v.key = h.key), version + 1), version
    FROM yaoki_ledger_head h WHERE key IN (SELECT value FROM json_each(?1))"""


class SqliteTx:
    """Statements inside a transaction of one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *args: Any) -> list[SqlRow]:
        return self._connection.execute(sql, args).fetchall()

    async def execute(self, sql: str, *args: Any) -> None:
        self._connection.execute(sql, args)

    async def fetch_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> list[SqlRow]:
        return [found for args in rows for found in self._connection.execute(sql, args)]

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self._connection.executemany(sql, rows)

    async def append(self, changes: Changes) -> list[int]:
        if changes.expect is not None:
            self._check(changes.keys[0], changes.expect)
        counts = Counter(changes.keys)
        heads: dict[str, int] = dict(self._connection.execute(HEADS, (msgspec.json.encode(counts).decode(),)).fetchall())
        if len(counts) == len(changes):
            versions = [heads[key] for key in changes.keys]
        else:
            following = {key: count(heads[key] - its + 1) for key, its in counts.items()}
            versions = [next(following[key]) for key in changes.keys]
        self._connection.executemany(VERSION, zip(
            changes.parts, changes.keys, versions, changes.digests, changes.salts, changes.commitments, changes.contents,
            repeat(changes.schema), repeat(runtime.unix_time()), repeat(changes.traceparent)))
        return versions

    def _check(self, key: str, expect: int) -> None:
        """Raise `VersionConflictError` unless the key is at this version. Nobody else can write before we do."""
        head = self._connection.execute("SELECT version FROM yaoki_ledger_head WHERE key = ?", (key,)).fetchone()
        actual = head[0] if head else 0
        if actual != expect:
            raise conflict(key, expect, actual)

    async def ready(self, after: Mapping[int, Position], limit: int) -> dict[int, Stretch]:
        return {part: _stretch(self._connection.execute(READY, (part, pos, limit)).fetchall())
                for part, (_, pos) in after.items()}

    async def lock_lease(self, name: str, owner: str, fence: int) -> bool:
        # The transaction holds the file's only write lock: nobody else can change the lease before it ends.
        return bool(await self.fetch(
            "SELECT 1 FROM yaoki_ledger_lease WHERE name = ?1 AND owner = ?2 AND fence = ?3", name, owner, fence))

    async def now(self) -> float:
        return runtime.unix_time()

    async def tell(self) -> None:
        """A file tells nobody."""


class SqliteStore:
    """Fills the port with one SQLite file, made when missing. `:memory:` keeps nothing."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.name = f"sqlite:///{self.path}"
        self._connection: sqlite3.Connection | None = None
        self._worker: runtime.Worker | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
        except sqlite3.OperationalError as error:
            raise LedgerError(f"the ledger {self.path} cannot be opened: {error}", do="check the path") from error
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(statements("sqlite"))
            connection.execute("PRAGMA busy_timeout = 0")  # never wait on the loop's thread (see `_begin`)
        except sqlite3.DatabaseError as error:
            connection.close()
            raise LedgerError(f"{self.path} is not a ledger: {error}", do="name a SQLite file, or one not there yet") from error
        self._connection = connection
        self._worker = runtime.worker("yaoki-ledger")

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._worker is not None:
            self._worker.close()
        self._connection = self._worker = None

    @contextlib.asynccontextmanager
    async def transaction(self, connection: Any = None) -> AsyncIterator[SqliteTx]:
        if connection is None:
            async with self._turn, self._began(self._open()) as tx:  # one connection has one transaction
                yield tx
        elif not isinstance(connection, sqlite3.Connection):
            raise UsageError(f"this ledger is kept in SQLite, and the connection is a {type(connection).__name__}",
                             do="pass a sqlite3.Connection to the ledger's own file")
        elif connection.in_transaction:
            yield SqliteTx(connection)
        else:
            async with self._began(connection) as tx:
                yield tx

    @contextlib.asynccontextmanager
    async def _began(self, connection: sqlite3.Connection) -> AsyncIterator[SqliteTx]:
        assert self._worker is not None, "open the ledger first"
        # A caller's connection may be bound to the caller's thread, and has settings of its own.
        worker = self._worker if connection is self._connection else None
        try:
            await _begin(worker, connection)
            yield SqliteTx(connection)
            await _execute(worker, connection, "COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    async def fetch(self, sql: str, *args: Any) -> list[SqlRow]:
        async with self._turn:
            return self._open().execute(sql, args).fetchall()

    async def between(self, part: int, since: Position, until: Position, *, content: bool) -> list[Row]:
        rows = await self.fetch(BETWEEN, part, since[1], until[1], content)
        return [Row((0, pos), key, version, digest or b"", *rest) for pos, key, version, digest, *rest in rows]

    async def versions(self, key: str, first: int, last: int) -> list[SqlRow]:
        return await self.fetch(VERSIONS, key, first, last)

    async def position(self, key: str, version: int) -> Position:
        rows = await self.fetch(
            "SELECT 0, pos FROM yaoki_ledger_version WHERE key = ?1 AND version = ?2", key, version)
        return (rows[0][0], rows[0][1]) if rows else (0, 0)

    async def now(self) -> float:
        return runtime.unix_time()

    @property
    def heard(self) -> int:
        return 0

    async def wait(self, heard: int, timeout_s: float) -> None:
        del heard
        await runtime.sleep(timeout_s)

    async def held(self) -> tuple[float, str]:
        return 0.0, ""  # what is committed is ready: there is one writer

    async def prepare_days(self, days: int) -> None:
        """One file is not divided by time."""

    async def remove(self, until: Mapping[int, Position]) -> list[str]:
        for part, (_, pos) in until.items():
            removed = REMOVED_AT_ONCE
            while removed == REMOVED_AT_ONCE:
                async with self.transaction() as tx:
                    removed = len(await tx.fetch(REMOVE, part, pos, REMOVED_AT_ONCE))
        return []

    async def lowest(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        return {key: (low, high) for key, low, high in await self.fetch(LOWEST, msgspec.json.encode(list(set(keys))).decode())}

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LedgerError(f"the ledger {self.path} is not open", do="use it inside `async with`")
        return self._connection


def _stretch(rows: list[SqlRow]) -> Stretch:
    if not rows:
        return Stretch([], [], [], [])
    keys, versions, digests, commitments, places = map(list, zip(*rows, strict=True))
    return Stretch(keys, versions, digests, commitments, (0, places[0]), (0, places[-1]))


async def _begin(worker: runtime.Worker | None, connection: sqlite3.Connection) -> None:
    """Begin at once where nobody else is writing, which is nearly always; else wait, on a thread of its own."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if worker is None or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # the low byte is the primary code
            raise
        connection.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")
        try:
            await _execute(worker, connection, "BEGIN IMMEDIATE")
        finally:
            connection.execute("PRAGMA busy_timeout = 0")


async def _execute(worker: runtime.Worker | None, connection: sqlite3.Connection, sql: str) -> None:
    """Run a statement that may wait. Cancelling is heard after it: a thread inside SQLite cannot be called off, and a
    connection that two threads use at once would commit what the other just rolled back.
    """
    if worker is None:
        connection.execute(sql)
        return
    work = runtime.spawn(worker.run(connection.execute, sql), name=f"ledger {sql}")
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError as error:
            cancelled = error
        except sqlite3.Error:
            break  # told by `result` below
    work.result()
    if cancelled is not None:
        raise cancelled


def conflict(key: str, expected: int, actual: int) -> VersionConflictError:
    """The error for a change whose `expect` does not hold."""
    return VersionConflictError(f"{key} is at version {actual}, not {expected}", do="read its newest version, and decide again",
                                key=key, expected=expected, actual=actual)
