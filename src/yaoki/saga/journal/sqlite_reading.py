"""Reading a SQLite journal: rows as what the port speaks of, and a query as SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from yaoki.saga.journal.port import Query
from yaoki.saga.journal.schema import HEADER_COLUMNS, SUMMED_COLUMNS
from yaoki.saga.journal.sums import damaged, header_sum, record_sum
from yaoki.saga.records import Header, Kind, Record, RunState, Stored

T = TypeVar("T")

KINDS = {kind.value: kind for kind in Kind}
STATES = {state.value: state for state in RunState}


class SqliteReading:
    """For a journal that can `_call` something with its connection."""

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    async def read(self, run_id: str) -> Stored | None:
        """Raises JournalDamagedError: it is not what was written."""
        stored = await self._found(run_id)
        if stored is not None and stored.damage:
            raise damaged(run_id, stored.damage)
        return stored

    async def _found(self, run_id: str) -> Stored | None:
        """The same, with its damage."""
        sql = f"SELECT {SUMMED_COLUMNS} FROM run WHERE id = ?"
        found = await self._call(lambda c: with_records(c, c.execute(sql, (run_id,)).fetchall()))
        return found[0] if found else None

    async def search(self, query: Query) -> list[Header]:
        condition, values = where(query)
        sql = f"SELECT {HEADER_COLUMNS} FROM run {condition} ORDER BY no DESC LIMIT ?"
        return await self._call(lambda c: [header_of(row) for row in c.execute(sql, (*values, query.limit))])

    async def counts(self, saga: str = "") -> dict[RunState, int]:
        sql = "SELECT state, count(*) FROM run WHERE ? IN ('', saga) GROUP BY state"
        return await self._call(lambda c: {STATES[state]: n for state, n in c.execute(sql, (saga,))})


def unfinished(connection: sqlite3.Connection, after: int, limit: int) -> list[Stored]:
    sql = (f"SELECT {SUMMED_COLUMNS} FROM run WHERE finished_at = 0 AND no > ? AND state != 'blocked' AND wake_at = 0 ORDER BY no LIMIT ?")
    return with_records(connection, connection.execute(sql, (after, limit)).fetchall())


def unfinished_of(connection: sqlite3.Connection, numbers: list[int]) -> list[Stored]:
    sql = f"SELECT {SUMMED_COLUMNS} FROM run WHERE finished_at = 0 AND no IN ({','.join('?' * len(numbers))}) ORDER BY no"
    return with_records(connection, connection.execute(sql, numbers).fetchall())


def with_records(connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> list[Stored]:
    """Runs with their histories. rows: of `SUMMED_COLUMNS`. What does not fit its checksum is said, run by run: the others are whole."""
    if not rows:
        return []
    stored = {row[0]: Stored(header_of(row[:-1]), []) for row in rows}
    for row in rows:
        header = stored[row[0]].header
        if header_sum(header.id, header.saga, header.input) != row[-1]:
            stored[row[0]].damage = "what it was started with does not fit its checksum"
    sql = f"SELECT run, seq, kind, step, data, at, sum FROM record WHERE run IN ({','.join('?' * len(stored))}) ORDER BY run, seq"
    for no, seq, kind, step, data, at, found in connection.execute(sql, list(stored)):
        run = stored[no]
        if run.damage:
            continue
        if seq != len(run.records):
            run.damage = f"record {len(run.records)} is missing"
        elif kind not in KINDS or record_sum(no, seq, kind, step, data) != found:
            run.damage = f"record {seq} ({kind}{f' of {step}' if step else ''}) does not fit its checksum"
        else:
            run.records.append(Record(KINDS[kind], step, data, at))
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
