"""A ledger in one SQLite file: one writer at a time, so the order of row ids is the order of commits.

WAL with `synchronous=FULL`: a commit returns after its fsync. Statements take microseconds and run where they are called;
what may wait, `BEGIN IMMEDIATE` for another process and `COMMIT` for the disk, waits on a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from yaoki import runtime
from yaoki.errors import LedgerError, UsageError, VersionConflictError
from yaoki.ledger.epochs import Position, Row
from yaoki.ledger.store.port import NewRow, SqlRow
from yaoki.ledger.store.schema import statements

BUSY_S = 10.0
"""How long to wait for another process that is writing."""

# One statement for a whole batch: each call into SQLite costs more than another row in it. `WHERE true` is there because
# SQLite would else read ON CONFLICT as a join's ON (sqlite.org/lang_upsert.html, section 2.2).
HEADS = """INSERT INTO yaoki_ledger_head (key, version)
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?1) WHERE true
    ON CONFLICT (key) DO UPDATE SET version = version + excluded.version RETURNING key, version"""

VERSION = """INSERT INTO yaoki_ledger_version
    (part, key, version, digest, salt, commitment, content, schema, written_at, traceparent) VALUES (?,?,?,?,?,?,?,?,?,?)"""

READY = """SELECT pos, key, version, digest, commitment, written_at, schema FROM yaoki_ledger_version
    WHERE part = ?1 AND pos > ?2 ORDER BY pos LIMIT ?3"""

BETWEEN = """SELECT pos, key, version, digest, commitment, written_at, CASE WHEN ?4 THEN content END, schema
    FROM yaoki_ledger_version WHERE part = ?1 AND pos > ?2 AND pos <= ?3 ORDER BY pos"""

VERSIONS = """SELECT key, version, content, schema, written_at, traceparent FROM yaoki_ledger_version
    WHERE key = ?1 AND version >= ?2 AND version <= ?3 ORDER BY version"""


class SqliteTx:
    """Statements inside a transaction of one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *args: Any) -> list[SqlRow]:
        return self._connection.execute(sql, args).fetchall()

    async def execute(self, sql: str, *args: Any) -> None:
        self._connection.execute(sql, args)

    async def append(self, rows: Sequence[NewRow]) -> list[int]:
        checked = any(row.expect is not None for row in rows)
        if checked:
            self._connection.execute("SAVEPOINT yaoki_append")
        try:
            versions = self._append(rows)
        except BaseException:
            if checked:
                self._connection.execute("ROLLBACK TO yaoki_append")
            raise
        finally:
            if checked:
                self._connection.execute("RELEASE yaoki_append")
        return versions

    def _append(self, rows: Sequence[NewRow]) -> list[int]:
        now = runtime.unix_time()
        counts = Counter(row.key for row in rows)
        heads = self._connection.execute(HEADS, (json.dumps(list(counts.items())),)).fetchall()
        following = {key: version - counts[key] + 1 for key, version in heads}
        versions: list[int] = []
        for row in rows:
            version = following[row.key]
            if row.expect is not None and version != row.expect + 1:
                raise conflict(row, version - 1)
            following[row.key] = version + 1
            versions.append(version)
        self._connection.executemany(VERSION, [
            (row.part, row.key, version, row.digest, row.salt, row.commitment, row.content, row.schema, now, row.traceparent)
            for row, version in zip(rows, versions, strict=True)])
        return versions

    async def ready(self, part: int, after: Position, limit: int) -> list[Row]:
        found = self._connection.execute(READY, (part, after[1], limit)).fetchall()
        return [Row((0, pos), key, version, digest or b"", commitment, at, None, schema)
                for pos, key, version, digest, commitment, at, schema in found]

    async def lock_lease(self, name: str, owner: str, fence: int) -> bool:
        # The transaction holds the file's only write lock: nobody else can change the lease before it ends.
        return bool(await self.fetch(
            "SELECT 1 FROM yaoki_ledger_lease WHERE name = ?1 AND owner = ?2 AND fence = ?3", name, owner, fence))

    async def now(self) -> float:
        return runtime.unix_time()


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
            if worker is None or not _began_at_once(connection):
                await _execute(worker, connection, "BEGIN IMMEDIATE")
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

    async def held(self) -> tuple[float, str]:
        return 0.0, ""  # what is committed is ready: there is one writer

    async def prepare_days(self, days: int) -> None:
        """One file is not divided by time."""

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LedgerError(f"the ledger {self.path} is not open", do="use it inside `async with`")
        return self._connection


def _began_at_once(connection: sqlite3.Connection) -> bool:
    """Begin without waiting for another writer; False if there is one. Saves two switches of threads, nearly always."""
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # the low byte is the primary code
            raise
        return False
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")
    return True


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


def conflict(row: NewRow, actual: int) -> VersionConflictError:
    """The error for a change whose `expect` does not hold."""
    return VersionConflictError(
        f"{row.key} is at version {actual}, not {row.expect}", do="read its newest version, and decide again",
        key=row.key, expected=row.expect, actual=actual)
