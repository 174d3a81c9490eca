"""Reading a SQLite journal: rows as what the port speaks of, and a query as SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from yaoki.saga.journal.port import Query
from yaoki.saga.journal.schema import HEADER_COLUMNS
from yaoki.saga.records import Header, Kind, Record, RunState, Stored

T = TypeVar("T")

KINDS = {kind.value: kind for kind in Kind}
STATES = {state.value: state for state in RunState}


class SqliteReading:
    """For a journal that can `_call` something with its connection."""

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    async def read(self, run_id: str) -> Stored | None:
        def work(connection: sqlite3.Connection) -> Stored | None:
            row = connection.execute(f"SELECT {HEADER_COLUMNS} FROM run WHERE id = ?", (run_id,)).fetchone()
            return None if row is None else with_records(connection, [header_of(row)])[0]

        return await self._call(work)

    async def search(self, query: Query) -> list[Header]:
        condition, values = where(query)
        sql = f"SELECT {HEADER_COLUMNS} FROM run {condition} ORDER BY no DESC LIMIT ?"
        return await self._call(lambda c: [header_of(row) for row in c.execute(sql, (*values, query.limit))])

    async def counts(self, saga: str = "") -> dict[RunState, int]:
        sql = "SELECT state, count(*) FROM run WHERE ? IN ('', saga) GROUP BY state"
        return await self._call(lambda c: {STATES[state]: n for state, n in c.execute(sql, (saga,))})


def unfinished(connection: sqlite3.Connection, after: int, limit: int) -> list[Stored]:
    sql = (f"SELECT {HEADER_COLUMNS} FROM run WHERE finished_at = 0 AND no > ? AND state != 'blocked' AND wake_at = 0 ORDER BY no LIMIT ?")
    return with_records(connection, [header_of(row) for row in connection.execute(sql, (after, limit))])


def unfinished_of(connection: sqlite3.Connection, numbers: list[int]) -> list[Stored]:
    sql = f"SELECT {HEADER_COLUMNS} FROM run WHERE finished_at = 0 AND no IN ({','.join('?' * len(numbers))}) ORDER BY no"
    return with_records(connection, [header_of(row) for row in connection.execute(sql, numbers)])


def with_records(connection: sqlite3.Connection, headers: list[Header]) -> list[Stored]:
    if not headers:
        return []
    stored = {header.no: Stored(header, []) for header in headers}
    sql = f"SELECT run, kind, step, data, at FROM record WHERE run IN ({','.join('?' * len(stored))}) ORDER BY run, seq"
    for no, kind, step, data, at in connection.execute(sql, list(stored)):
        stored[no].records.append(Record(KINDS[kind], step, data, at))
    return list(stored.values())


def header_of(row: tuple[Any, ...]) -> Header:
    header = Header(*row)
    header.state = STATES[row[4]]
    return header


def where(query: Query) -> tuple[str, tuple[Any, ...]]:
    tests: list[tuple[str, Any]] = []
    if query.saga:
        tests.append(("saga = ?", query.saga))
    if query.id_prefix:
        tests.append(("id >= ?", query.id_prefix))
        tests.append(("id < ?", query.id_prefix + "\U0010ffff"))
    if query.since:
        tests.append(("created_at >= ?", query.since))
    if query.until:
        tests.append(("created_at < ?", query.until))
    if query.before_no:
        tests.append(("no < ?", query.before_no))
    if query.idle_since:
        tests.append(("updated_at < ?", query.idle_since))
    words = [words for words, _ in tests]
    values = [value for _, value in tests]
    if query.states:
        words.append(f"state IN ({','.join('?' * len(query.states))})")
        values += [state.value for state in query.states]
    for pair in query.where:
        words.append("no IN (SELECT run FROM attribute WHERE name = ? AND value = ?)")
        values += pair
    return (f"WHERE {' AND '.join(words)}" if words else ""), tuple(values)
