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
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import chain
from typing import Any

import asyncpg

from yaoki.errors import ConfigError, LedgerError, UsageError
from yaoki.ledger.changes import Changes
from yaoki.ledger.epochs import Position, Row, Stretch
from yaoki.ledger.store.days import prepare_days, remove_days
from yaoki.ledger.store.port import SqlRow
from yaoki.ledger.store.schema import statements
from yaoki.ledger.store.sqlite import conflict
from yaoki.ledger.store.waking import TELL, Waking

SETUP_LOCK = 0x79616F6B  # "yaok": two processes that set up at once take turns

# Keys are locked in their order, always the same, so that two batches never wait for each other in a circle. The position is
# drawn when all of them are locked: for each key, a later version then has a higher one. A batch's fingerprints come as one
# value of 64 bytes a row, because each element of an array costs as much as the row it is for.
APPEND = """
WITH head AS (
    INSERT INTO yaoki_ledger_head AS h (key, version, eff_xid)
        SELECT key, count(*), (SELECT pg_current_xact_id()::text::bigint) FROM unnest($1::text[]) AS k (key)
        {unless} GROUP BY key ORDER BY key COLLATE "C"
    ON CONFLICT (key) DO UPDATE SET version = h.version + excluded.version,
        eff_xid = greatest(h.eff_xid, excluded.eff_xid) {if}
    RETURNING h.key, h.version, h.eff_xid
), slot AS (SELECT nextval('yaoki_ledger_pos') AS pos FROM (SELECT count(*) FROM head) AS locked
), written AS (
    INSERT INTO yaoki_ledger_version (pos, eff_xid, part, key, version, digest, salt, commitment, content, schema, traceparent)
        SELECT slot.pos + ord, eff_xid, part, key, version - coalesce(later, 0), substr($4::bytea, ord::int * 64 - 63, 16),
            substr($4::bytea, ord::int * 64 - 47, 16), substr($4::bytea, ord::int * 64 - 31, 32), content, $6::int, $7::text
        FROM slot, unnest($1::text[], $2::int[], $3::bytea[], $5::int[]) WITH ORDINALITY AS t (key, part, content, later, ord)
        JOIN head USING (key) ORDER BY ord
    RETURNING version
)
SELECT array_agg(version) FROM written"""

APPEND_ANY = APPEND.format(**{"unless": "", "if": ""})
APPEND_EXPECTED = APPEND.format(**{
    "unless": "WHERE $8::bigint = 0 OR EXISTS (SELECT 1 FROM yaoki_ledger_head o WHERE o.key = k.key)",
    "if": "WHERE h.version = $8"})

# One row with whole columns for each partition: a value of its own for each field of each row takes three times as long.
READY = """SELECT part, keys, versions, digests, commitments, xids[1], places[1], xids[count], places[count]
    FROM unnest($1::int[], $2::bigint[], $3::bigint[]) AS p (part, xid, pos) CROSS JOIN LATERAL (
        SELECT array_agg(key) AS keys, array_agg(version) AS versions, array_agg(coalesce(digest, '')) AS digests,
            array_agg(commitment) AS commitments, array_agg(eff_xid) AS xids, array_agg(pos) AS places, count(*)::int
        FROM (SELECT key, version, digest, commitment, eff_xid, pos FROM yaoki_ledger_version v
            WHERE v.part = p.part AND (eff_xid, v.pos) > (p.xid, p.pos)
                AND eff_xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
            ORDER BY eff_xid, pos LIMIT $4) AS one) AS ready
    WHERE keys IS NOT NULL"""

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

LOWEST = """SELECT key, coalesce((SELECT min(version) FROM yaoki_ledger_version v WHERE v.key = h.key), version + 1), version
    FROM yaoki_ledger_head h WHERE key = ANY($1::text[])"""

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

    async def fetch_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> list[SqlRow]:
        return list(await self._connection.fetchmany(numbered(sql), rows))

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        await self._connection.executemany(numbered(sql), rows)

    async def append(self, changes: Changes) -> list[int]:
        fingerprints = b"".join(chain.from_iterable(zip(changes.digests, changes.salts, changes.commitments, strict=True)))
        args = (changes.keys, changes.parts, changes.contents, fingerprints, _later(changes.keys), changes.schema,
                changes.traceparent)
        if changes.expect is None:
            ((versions,),) = await self.fetch(APPEND_ANY, *args)
        else:
            ((versions,),) = await self.fetch(APPEND_EXPECTED, *args, changes.expect)
        if versions is None:
            assert changes.expect is not None
            actual = await self.fetch("SELECT version FROM yaoki_ledger_head WHERE key = $1", changes.keys[0])
            raise conflict(changes.keys[0], changes.expect, actual[0][0] if actual else 0)
        written: list[int] = versions
        return written

    async def ready(self, after: Mapping[int, Position], limit: int) -> dict[int, Stretch]:
        columns = list(after), [xid for xid, _ in after.values()], [pos for _, pos in after.values()]
        found = {part: Stretch([], [], [], []) for part in after}
        for part, keys, versions, digests, commitments, *ends in await self.fetch(READY, *columns, limit):
            found[part] = Stretch(keys, versions, digests, commitments, (ends[0], ends[1]), (ends[2], ends[3]))
        return found

    async def lock_lease(self, name: str, owner: str, fence: int) -> bool:
        # FOR SHARE conflicts with the UPDATE of whoever takes the lease over: it happens before or after, never beside.
        return bool(await self.fetch("SELECT 1 FROM yaoki_ledger_lease WHERE name = $1 AND owner = $2 AND fence = $3 "
                                     "FOR SHARE", name, owner, fence))

    async def now(self) -> float:
        ((now,),) = await self.fetch(NOW)
        return float(now)

    async def tell(self) -> None:
        await self.fetch(TELL)


class PsycopgTx(AsyncpgTx):
    """The same on a `psycopg.AsyncConnection`."""

    async def fetch(self, sql: str, *args: Any) -> list[SqlRow]:
        text, values = for_psycopg(sql, args)
        return list(await (await self._connection.execute(text, values)).fetchall())

    async def execute(self, sql: str, *args: Any) -> None:
        text, values = for_psycopg(sql, args)
        await self._connection.execute(text, values)

    async def fetch_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> list[SqlRow]:
        return [found for args in rows for found in await self.fetch(sql, *args)]

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        for args in rows:
            await self.execute(sql, *args)


class PostgresStore:
    """Fills the port with a PostgreSQL database. `url`: as libpq takes it. `pool_size`: connections at most."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        self._url = url
        self.name = re.sub(r"//[^@/]*@", "//", url)  # no password in names, logs and events
        self._pool_size = pool_size
        self._pool: Any = None
        self._waking = Waking(url)

    async def open(self) -> None:
        try:
            self._pool = await asyncpg.create_pool(self._url, min_size=1, max_size=self._pool_size, reset=_nothing_to_reset)
        except (OSError, asyncpg.PostgresError) as error:
            away = isinstance(error, OSError)
            raise LedgerError(f"{self.name} does not answer: {error}" if away else f"PostgreSQL does not let us in at {self.name}: {error}",
                              do="start the server, or check the address" if away else "check the address, the database's name and the role's rights") from error
        except ValueError as error:  # how the driver says that it cannot read the address
            raise ConfigError(f"{self.name!r} cannot be read as an address: {error}", do="write postgresql://user@host:5432/database") from error
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(f"SELECT pg_advisory_xact_lock({SETUP_LOCK})")
            await connection.execute("SET LOCAL client_min_messages = warning")
            await connection.execute(statements("postgres"))

    async def close(self) -> None:
        await self._waking.close()
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

    @property
    def heard(self) -> int:
        return self._waking.heard

    async def wait(self, heard: int, timeout_s: float) -> None:
        await self._waking.wait(heard, timeout_s)

    async def held(self) -> tuple[float, str]:
        seconds = float(await self._open().fetchval(HELD))
        return (seconds, await self._open().fetchval(HOLDER) or "") if seconds else (0.0, "")

    async def prepare_days(self, days: int) -> None:
        await prepare_days(self._open(), days)

    async def remove(self, until: Mapping[int, Position]) -> list[str]:
        return await remove_days(self._open(), until)

    async def lowest(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        return {key: (low, high) for key, low, high in await self.fetch(LOWEST, list(set(keys)))}

    def _open(self) -> Any:
        if self._pool is None:
            raise LedgerError(f"the ledger at {self.name} is not open", do="use it inside `async with`")
        return self._pool


async def _nothing_to_reset(_connection: Any) -> None:
    """Our transactions leave no session state behind, so the round trip that would clear it is saved."""


def _later(keys: Sequence[str]) -> list[int] | None:
    """How many rows of its key come after each row of a batch; None for none, anywhere: as a rule."""
    if len(set(keys)) == len(keys):
        return None
    seen: Counter[str] = Counter()
    later = []
    for key in reversed(keys):
        later.append(seen[key])
        seen[key] += 1
    return later[::-1]


def numbered(sql: str) -> str:
    """`?1` as PostgreSQL writes it: `$1`."""
    return re.sub(r"\?(\d+)", r"$\1", sql) if "?" in sql else sql


def for_psycopg(sql: str, args: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """The statement with psycopg's named parameters, which are sent once however often they appear."""
    return re.sub(r"[?$](\d+)", r"%(p\1)s", sql.replace("%", "%%")), {f"p{at}": value for at, value in enumerate(args, 1)}
