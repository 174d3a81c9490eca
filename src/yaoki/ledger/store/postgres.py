"""A ledger in PostgreSQL, in the caller's own transaction, read in an order that loses nothing.

Reading "everything after the last id" loses rows: ids are drawn before commits, so a smaller one may appear later. Here

    eff_xid = greatest(own transaction id, eff_xid of the key's version before)      kept in the key's head row, under its lock
    ready   = eff_xid < pg_snapshot_xmin(pg_current_snapshot())      order by eff_xid, pos

*No loss*: below that watermark every writer has finished, and eff_xid is at least the writer's id, so nothing can appear
there any more. *Order for each key*: under the head's lock eff_xid never falls as versions rise, and pos rises; ordering
by the transaction's own id breaks that for a transaction that began early and touched the key late.

Any transaction that has written, even in another database of the same cluster, holds the watermark; `held` names it.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg

from yaoki.errors import LedgerError, UsageError
from yaoki.ledger.epochs import Position, Row
from yaoki.ledger.store.port import NewRow, SqlRow
from yaoki.ledger.store.schema import statements
from yaoki.ledger.store.sqlite import conflict

SETUP_LOCK = 0x79616F6B  # "yaok": two processes that set up at once take turns

# The keys come sorted, always in the same order, so that two batches never wait for each other in a circle.
APPEND = """
WITH head AS (
    INSERT INTO yaoki_ledger_head AS h (key, version, eff_xid)
        SELECT key, n, pg_current_xact_id()::text::bigint FROM unnest($1::text[], $2::bigint[]) AS k (key, n)
        WHERE $3::bigint IS NULL OR $3 = 0 OR EXISTS (SELECT 1 FROM yaoki_ledger_head o WHERE o.key = k.key)
    ON CONFLICT (key) DO UPDATE SET version = h.version + excluded.version,
        eff_xid = greatest(h.eff_xid, excluded.eff_xid) WHERE $3::bigint IS NULL OR h.version = $3
    RETURNING h.key, h.version, h.eff_xid
)
INSERT INTO yaoki_ledger_version (eff_xid, part, key, version, digest, salt, commitment, content, schema, traceparent)
    SELECT head.eff_xid, part, key, head.version - later, digest, salt, commitment, content, schema, traceparent
    FROM unnest($4::bigint[], $5::text[], $6::int[], $7::bytea[], $8::bytea[], $9::bytea[], $10::bytea[], $11::int[],
                $12::text[]) WITH ORDINALITY
        AS t (later, key, part, digest, salt, commitment, content, schema, traceparent, ord)
    JOIN head USING (key) ORDER BY ord
RETURNING version"""

READY = """SELECT eff_xid, pos, key, version, digest, commitment, extract(epoch FROM written_at)::float8, schema
    FROM yaoki_ledger_version
    WHERE part = $1 AND (eff_xid, pos) > ($2, $3) AND eff_xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
    ORDER BY eff_xid, pos LIMIT $4"""

BETWEEN = """SELECT eff_xid, pos, key, version, digest, commitment, extract(epoch FROM written_at)::float8,
        CASE WHEN $6 THEN content END, schema
    FROM yaoki_ledger_version WHERE part = $1 AND (eff_xid, pos) > ($2, $3) AND (eff_xid, pos) <= ($4, $5)
    ORDER BY eff_xid, pos"""

VERSIONS = """SELECT key, version, content, schema, extract(epoch FROM written_at)::float8, traceparent
    FROM yaoki_ledger_version WHERE key = $1 AND version >= $2 AND version <= $3 ORDER BY version"""

# For each partition the first row above the watermark, by its index: never a scan of the table.
HELD = """SELECT coalesce(extract(epoch FROM clock_timestamp() - min(first.written_at)), 0)::float8
    FROM generate_series(0, (SELECT body::int - 1 FROM yaoki_ledger_note WHERE name = 'partitions')) AS part
    CROSS JOIN LATERAL (SELECT written_at FROM yaoki_ledger_version v
        WHERE v.part = part.part AND eff_xid >= pg_snapshot_xmin(pg_current_snapshot())::text::bigint
        ORDER BY eff_xid, pos LIMIT 1) AS first"""

HOLDER = """SELECT format('process %s (%s), open for %s s: %s', pid, datname,
        round(extract(epoch FROM clock_timestamp() - xact_start)), left(query, 200))
    FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
    UNION ALL SELECT format('prepared transaction %s (%s), since %s', gid, database, prepared) FROM pg_prepared_xacts
    LIMIT 1"""

NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"


class AsyncpgTx:
    """Statements inside a transaction of one asyncpg connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *args: Any) -> list[SqlRow]:
        return [tuple(row) for row in await self._connection.fetch(numbered(sql), *args)]

    async def execute(self, sql: str, *args: Any) -> None:
        await self._connection.execute(numbered(sql), *args)

    async def append(self, rows: Sequence[NewRow]) -> list[int]:
        if any(row.expect is not None for row in rows) and len(rows) > 1:
            async with self._connection.transaction():  # a savepoint: all of them or none
                return [version for row in rows for version in await self._append([row])]
        return await self._append(rows)

    async def _append(self, rows: Sequence[NewRow]) -> list[int]:
        counts = Counter(row.key for row in rows)
        keys = sorted(counts)
        left = dict(counts)
        later = []  # how many versions of its key come after each row in this batch
        for row in rows:
            left[row.key] -= 1
            later.append(left[row.key])
        columns = [[getattr(row, name) for row in rows] for name in
                   ("key", "part", "digest", "salt", "commitment", "content", "schema", "traceparent")]
        written = await self.fetch(APPEND, keys, [counts[key] for key in keys], rows[0].expect, later, *columns)
        if len(written) != len(rows):
            actual = await self.fetch("SELECT version FROM yaoki_ledger_head WHERE key = $1", rows[0].key)
            raise conflict(rows[0], actual[0][0] if actual else 0)
        return [version for (version,) in written]

    async def ready(self, part: int, after: Position, limit: int) -> list[Row]:
        return [Row((xid, pos), key, version, digest or b"", commitment, at, None, schema)
                for xid, pos, key, version, digest, commitment, at, schema in
                await self.fetch(READY, part, *after, limit)]

    async def lock_lease(self, name: str, owner: str, fence: int) -> bool:
        # FOR SHARE conflicts with the UPDATE of whoever takes the lease over: it happens before or after, never beside.
        return bool(await self.fetch("SELECT 1 FROM yaoki_ledger_lease WHERE name = $1 AND owner = $2 AND fence = $3 "
                                     "FOR SHARE", name, owner, fence))

    async def now(self) -> float:
        ((now,),) = await self.fetch(NOW)
        return float(now)


class PsycopgTx(AsyncpgTx):
    """The same on a `psycopg.AsyncConnection`."""

    async def fetch(self, sql: str, *args: Any) -> list[SqlRow]:
        text, values = for_psycopg(sql, args)
        return list(await (await self._connection.execute(text, values)).fetchall())

    async def execute(self, sql: str, *args: Any) -> None:
        text, values = for_psycopg(sql, args)
        await self._connection.execute(text, values)


class PostgresStore:
    """Fills the port with a PostgreSQL database. `url`: as libpq takes it. `pool_size`: connections at most."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        self._url = url
        self.name = re.sub(r"//[^@/]*@", "//", url)  # no password in names, logs and events
        self._pool_size = pool_size
        self._pool: Any = None

    async def open(self) -> None:
        try:
            self._pool = await asyncpg.create_pool(self._url, min_size=1, max_size=self._pool_size, reset=_nothing_to_reset)
        except (OSError, asyncpg.PostgresError) as error:
            raise LedgerError(f"PostgreSQL does not let us in at {self.name}: {error}",
                              do="check the address, the database's name and the role's rights") from error
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(f"SELECT pg_advisory_xact_lock({SETUP_LOCK})")
            await connection.execute("SET LOCAL client_min_messages = warning")
            await connection.execute(statements("postgres"))

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()
        self._pool = None

    @contextlib.asynccontextmanager
    async def transaction(self, connection: Any = None) -> AsyncIterator[AsyncpgTx]:
        if connection is None:
            async with self._open().acquire() as own, own.transaction():
                yield AsyncpgTx(own)
            return
        kind = type(connection).__module__.split(".")[0]
        if kind == "asyncpg":
            async with contextlib.nullcontext() if connection.is_in_transaction() else connection.transaction():
                yield AsyncpgTx(connection)
        elif kind == "psycopg" and hasattr(connection, "__aenter__"):
            async with connection.transaction():  # a savepoint inside the caller's transaction, if there is one
                yield PsycopgTx(connection)
        else:
            raise UsageError(f"this ledger is kept in PostgreSQL, and the connection is a {type(connection).__name__}",
                             do="pass an asyncpg connection or a psycopg.AsyncConnection to the same database")

    async def fetch(self, sql: str, *args: Any) -> list[SqlRow]:
        return [tuple(row) for row in await self._open().fetch(numbered(sql), *args)]

    async def between(self, part: int, since: Position, until: Position, *, content: bool) -> list[Row]:
        rows = await self.fetch(BETWEEN, part, *since, *until, content)
        return [Row((xid, pos), key, version, digest or b"", *rest) for xid, pos, key, version, digest, *rest in rows]

    async def versions(self, key: str, first: int, last: int) -> list[SqlRow]:
        return await self.fetch(VERSIONS, key, first, last)

    async def position(self, key: str, version: int) -> Position:
        rows = await self.fetch(
            "SELECT eff_xid, pos FROM yaoki_ledger_version WHERE key = ?1 AND version = ?2", key, version)
        return (rows[0][0], rows[0][1]) if rows else (0, 0)

    async def now(self) -> float:
        return float(await self._open().fetchval(NOW))

    async def held(self) -> tuple[float, str]:
        seconds = float(await self._open().fetchval(HELD))
        return (seconds, await self._open().fetchval(HOLDER) or "") if seconds else (0.0, "")

    async def prepare_days(self, days: int) -> None:
        for ahead in range(days):
            day, following = await self._open().fetchrow(
                "SELECT d::text, (d + 1)::text FROM (SELECT current_date + $1::int AS d) AS t", ahead)
            name = "yaoki_ledger_version_" + day.replace("-", "")
            if await self._open().fetchval("SELECT to_regclass($1)", name) is None:
                await self._make_day(name, day, following)

    async def _make_day(self, name: str, day: str, following: str) -> None:
        try:
            await self._open().execute(
                f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF yaoki_ledger_version "
                f"FOR VALUES FROM ('{day}') TO ('{following}')")
        except asyncpg.CheckViolationError:
            # Rows of that day are in the default partition already: they stay there, and the next days get their own.
            return

    def _open(self) -> Any:
        if self._pool is None:
            raise LedgerError(f"the ledger at {self.name} is not open", do="use it inside `async with`")
        return self._pool


async def _nothing_to_reset(_connection: Any) -> None:
    """Our transactions leave no session state behind, so the round trip that would clear it is saved."""


def numbered(sql: str) -> str:
    """`?1` as PostgreSQL writes it: `$1`."""
    return re.sub(r"\?(\d+)", r"$\1", sql) if "?" in sql else sql


def for_psycopg(sql: str, args: Sequence[Any]) -> tuple[str, list[Any]]:
    """The statement with psycopg's unnumbered parameters, and the arguments in the order in which they appear."""
    order = [int(number) - 1 for number in re.findall(r"[?$](\d+)", sql)]
    return re.sub(r"[?$]\d+", "%s", sql.replace("%", "%%")), [args[at] for at in order]
