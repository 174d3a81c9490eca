"""Locks of a journal on PostgreSQL.

Whoever changes a key's queue holds that key's advisory lock until the commit. Without it a claim could get its number,
another with a higher one could be committed first and take itself for the first, and both would hold the key; or a run's end
could look for the next one in the moment before that one's claim is seen, and nobody would ever wake it.
"""

from __future__ import annotations

from yaoki.saga.journal.locks import Claim
from yaoki.saga.journal.locks.sqlite import marked
from yaoki.saga.journal.postgres.link import Connection, Link
from yaoki.saga.journal.postgres.statements import NOW, REQUEST

# "LOCK" in ASCII, so that these keys do not meet other advisory locks.
_ALONE = "SELECT pg_advisory_xact_lock(x'4c4f434b'::int, hashtext($1))"
_UNFINISHED = "SELECT FROM yaoki.run WHERE run.id = lock.run AND run.finished_at = 0"
_GONE = f"DELETE FROM yaoki.lock WHERE key = $1 AND NOT EXISTS ({_UNFINISHED})"
_CLAIM = f"INSERT INTO yaoki.lock (key, run, at) VALUES ($1, $2, {NOW}) ON CONFLICT DO NOTHING"
_FIRST = "SELECT run FROM yaoki.lock WHERE key = $1 ORDER BY no LIMIT 1"
_KEYS_OF = """SELECT key FROM yaoki.lock WHERE run COLLATE "C" = $1 ORDER BY key"""
_STALE = f"SELECT DISTINCT key FROM yaoki.lock WHERE NOT EXISTS ({_UNFINISHED}) ORDER BY key"
_CLAIMS_OF = f"""
SELECT key, run, at FROM yaoki.lock WHERE key IN (SELECT key FROM yaoki.lock WHERE run COLLATE "C" = $1)
    AND EXISTS ({_UNFINISHED}) ORDER BY key, no"""
# Byte by byte "0" comes after "/": what lies between are the names of all runs that it has started.
_CLAIMS_OF_FAMILY = f"""
SELECT key, run, at FROM yaoki.lock WHERE key IN (SELECT key FROM yaoki.lock WHERE run COLLATE "C" = $1
    UNION SELECT key FROM yaoki.lock WHERE run COLLATE "C" > $1 || '/' AND run COLLATE "C" < $1 || '0')
    AND EXISTS ({_UNFINISHED}) ORDER BY key, no"""
_CLAIMS = f"SELECT key, run, at FROM yaoki.lock WHERE EXISTS ({_UNFINISHED}) ORDER BY key, no"


class PostgresLocks:
    """For a journal with a `_side` link."""

    _side: Link

    async def ring(self) -> None:
        raise NotImplementedError

    async def claim_lock(self, run_id: str, key: str) -> str:
        async def work(connection: Connection) -> tuple[str, bool]:
            async with connection.transaction():
                await connection.execute(_ALONE, key)
                woken = await _sweep(connection, key, but=run_id)
                await connection.execute(_CLAIM, key, run_id)
                return str(await connection.fetchval(_FIRST, key)), woken

        holder, woken = await self._side.run(work)
        if woken:
            await self.ring()
        return holder

    async def settle_locks(self, run_id: str = "") -> bool:
        rows = await self._side.fetch(_KEYS_OF, run_id) if run_id else await self._side.fetch(_STALE)
        woken = False
        for (key,) in rows:  # one transaction a key: nobody waits for one lock while it has another
            woken |= await self._side.run(lambda c, key=key: _settle(c, key))  # type: ignore[misc]
        if woken:
            await self.ring()
        return bool(rows)

    async def claims(self, run_id: str = "", *, family: bool = False) -> list[Claim]:
        rows = await self._side.fetch(_CLAIMS_OF_FAMILY if family else _CLAIMS_OF, run_id) if run_id else await self._side.fetch(_CLAIMS)
        return marked([(row[0], row[1], row[2]) for row in rows])


async def _settle(connection: Connection, key: str) -> bool:
    async with connection.transaction():
        await connection.execute(_ALONE, key)
        return await _sweep(connection, key)


async def _sweep(connection: Connection, key: str, *, but: str = "") -> bool:
    """Remove what has ended; ask whoever is first now to wake, in the same transaction. Was somebody asked?"""
    if await connection.execute(_GONE, key) == "DELETE 0":
        return False
    first = await connection.fetchval(_FIRST, key)
    if first is None or first == but:
        return False
    await connection.execute(REQUEST, first, "wake", b"{}", await connection.fetchval(f"SELECT {NOW}"))
    return True
