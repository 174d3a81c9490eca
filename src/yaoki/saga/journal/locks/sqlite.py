"""Locks of a journal in a SQLite file. There is one writer at a time, so that a queue is read and changed as one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from yaoki import runtime
from yaoki.saga.journal.locks import Claim

T = TypeVar("T")

_UNFINISHED = "SELECT 1 FROM run WHERE run.id = lock.run AND run.finished_at = 0"


class SqliteLocks:
    """For a journal that can `_call` something with its connection."""

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    async def claim_lock(self, run_id: str, key: str) -> str:
        now = runtime.unix_time()

        def work(connection: sqlite3.Connection) -> str:
            _sweep(connection, key, now, but=run_id)
            connection.execute("INSERT INTO lock (key, run, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (key, run_id, now))
            return str(_first(connection, key))

        return await self._call(lambda c: _one(c, lambda: work(c)))

    async def settle_locks(self, run_id: str = "") -> bool:
        now = runtime.unix_time()

        def work(connection: sqlite3.Connection) -> bool:
            sql = "SELECT DISTINCT key FROM lock WHERE run = ?1" if run_id else \
                f"SELECT DISTINCT key FROM lock WHERE ?1 = '' AND NOT EXISTS ({_UNFINISHED})"
            keys = [key for (key,) in connection.execute(sql, (run_id,)).fetchall()]
            return any([_sweep(connection, key, now) for key in keys])  # noqa: C419  all of them

        return await self._call(lambda c: _one(c, lambda: work(c)))

    async def claims(self, run_id: str = "", *, family: bool = False) -> list[Claim]:
        # "0" comes after "/": what lies between are the names of all runs that it has started.
        of = "" if not run_id else "key IN (SELECT key FROM lock WHERE run = ?1 OR (?2 AND run > ?1 || '/' AND run < ?1 || '0')) AND"
        sql = f"SELECT key, run, at FROM lock WHERE {of} EXISTS ({_UNFINISHED}) ORDER BY key, no"
        rows = await self._call(lambda c: c.execute(sql, (run_id, family) if run_id else ()).fetchall())
        return marked(rows)


def marked(rows: list[tuple[str, str, float]]) -> list[Claim]:
    """(key, run, at) of those that count, in order: the first one of each key holds it."""
    return [Claim(key, run, at, holds=not place or rows[place - 1][0] != key) for place, (key, run, at) in enumerate(rows)]


def _first(connection: sqlite3.Connection, key: str) -> str | None:
    row = connection.execute("SELECT run FROM lock WHERE key = ? ORDER BY no LIMIT 1", (key,)).fetchone()
    return None if row is None else row[0]


def _sweep(connection: sqlite3.Connection, key: str, now: float, *, but: str = "") -> bool:
    gone = connection.execute(f"DELETE FROM lock WHERE key = ? AND NOT EXISTS ({_UNFINISHED})", (key,)).rowcount
    first = _first(connection, key)
    if gone and first is not None and first != but:
        connection.execute("INSERT INTO request (run, kind, data, at) VALUES (?, 'wake', x'7b7d', ?)", (first, now))
    return gone > 0


def _one(connection: sqlite3.Connection, work: Callable[[], T]) -> T:
    """In one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = work()
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return done
