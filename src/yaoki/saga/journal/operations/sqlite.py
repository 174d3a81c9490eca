"""Pauses, attributes and the operators' log of a journal in a SQLite file; each may be written beside the owner, by another process."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from yaoki import runtime
from yaoki.saga.journal.operations import PAUSED_UNTIL, Operation, Pause, told

if TYPE_CHECKING:
    from yaoki.saga.journal.port import Ask

T = TypeVar("T")

LOG = "INSERT INTO operation (at, action, kind, name, who, why, data) VALUES (?, ?, ?, ?, ?, ?, ?)"
_HELD = "id IN (SELECT name FROM pause WHERE kind = 'run') OR saga IN (SELECT name FROM pause WHERE kind = 'saga')"
# Two, so that each goes by an index: plain runs, and those that wait in queues.
_FREE = (
    f"UPDATE run SET wake_at = ?1 WHERE wake_at > 0 AND lane = 0 AND wake_at = ?2 AND NOT ({_HELD})",
    ("UPDATE run SET wake_at = ?1 WHERE wake_at > 0 AND lane > 0 AND wake_at = ?2 AND lane IN (SELECT no FROM lane WHERE queue NOT IN "
     f"(SELECT name FROM pause WHERE kind = 'queue')) AND NOT ({_HELD})"),
)


class SqliteOperations:
    """For a journal that can `_call` something with its connection."""

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    async def request_many(self, asked: Sequence[Ask], at: float) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT INTO request (run, kind, data, at) VALUES (?, ?, ?, ?)",
                                   [(each.run, each.kind, each.data, at) for each in asked])
            connection.executemany(LOG, [row_of(line, at) for each in asked if (line := told(each, at)) is not None])

        await self._in_one(work)

    async def log_operation(self, operation: Operation) -> None:
        await self._call(lambda c: c.execute(LOG, row_of(operation, runtime.unix_time())))

    async def operations(self, *, kind: str = "", name: str = "", before_no: int = 0, limit: int = 50) -> list[Operation]:
        sql = ("SELECT action, kind, name, who, why, data, at, no FROM operation WHERE ? IN ('', kind) AND ? IN ('', name) "
               "AND (? = 0 OR no < ?) ORDER BY no DESC LIMIT ?")
        rows = await self._call(lambda c: c.execute(sql, (kind, name, before_no, before_no, limit)).fetchall())
        return [Operation(row[0], row[1], row[2], row[3], row[4], msgspec.Raw(row[5]), row[6], row[7]) for row in rows]

    async def news(self) -> int:
        return await self._call(lambda c: int(c.execute("SELECT ifnull(max(no), 0) FROM operation").fetchone()[0]))

    async def pause(self, kind: str, name: str, *, who: str = "", why: str = "") -> bool:
        now = runtime.unix_time()

        def work(connection: sqlite3.Connection) -> bool:
            done = connection.execute("INSERT INTO pause (kind, name, at, who, why) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                                      (kind, name, now, who, why)).rowcount > 0
            if done:
                connection.execute(LOG, row_of(Operation("pause", kind, name, who, why), now))
            return done

        return await self._in_one(work)

    async def resume(self, kind: str, name: str, *, who: str = "", why: str = "") -> bool:
        now = runtime.unix_time()

        def work(connection: sqlite3.Connection) -> bool:
            done = connection.execute("DELETE FROM pause WHERE kind = ? AND name = ?", (kind, name)).rowcount > 0
            if done:
                _free(connection, now)
                connection.execute(LOG, row_of(Operation("resume", kind, name, who, why), now))
            return done

        return await self._in_one(work)

    async def pauses(self) -> list[Pause]:
        sql = "SELECT kind, name, at, who, why FROM pause ORDER BY kind, name"
        return await self._call(lambda c: [Pause(*row) for row in c.execute(sql)])

    async def free_paused(self) -> int:
        now = runtime.unix_time()
        return await self._call(lambda c: _free(c, now))

    async def attributes(self, numbers: Sequence[int]) -> dict[int, dict[str, str]]:
        sql = f"SELECT run, name, value FROM attribute WHERE run IN ({','.join('?' * len(numbers))}) ORDER BY run, name"
        found: dict[int, dict[str, str]] = {}
        for no, name, value in await self._call(lambda c: c.execute(sql, list(numbers)).fetchall()):
            found.setdefault(no, {})[name] = value
        return found

    async def blocked(self) -> list[tuple[str, int, float]]:
        sql = "SELECT saga, count(*), min(updated_at) FROM run WHERE state = 'blocked' GROUP BY saga ORDER BY saga"
        return await self._call(lambda c: c.execute(sql).fetchall())

    async def _in_one(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """In one transaction."""
        def job(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                done = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            return done

        return await self._call(job)


def _free(connection: sqlite3.Connection, now: float) -> int:
    return sum(connection.execute(sql, (now, PAUSED_UNTIL)).rowcount for sql in _FREE)


def row_of(line: Operation, at: float) -> tuple[object, ...]:
    return line.at or at, line.action, line.kind, line.name, line.who, line.why, bytes(line.data)
