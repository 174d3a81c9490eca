"""Writing a SQLite journal: what a commit carries, and a step's own transaction. Each statement carries many rows."""

from __future__ import annotations

import functools
import inspect
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from yaoki.errors import UsageError
from yaoki.saga.journal.port import Append, Created, NewRun, StepFailed
from yaoki.saga.journal.queues.one_owner import Turns
from yaoki.saga.journal.schema import HEADER_COLUMNS
from yaoki.saga.journal.sqlite_reading import header_of
from yaoki.saga.journal.sums import header_sum, record_sum
from yaoki.saga.records import Header, RunState

T = TypeVar("T")

# Rows a statement: few sizes, so that SQLite's cache of prepared statements always hits. 256 rows of 11 columns stay far
# below its limit of 32 766 variables.
CHUNKS = (256, 64, 16, 4, 1)

REQUEST = "INSERT INTO request (run, kind, data, at) VALUES (?, ?, ?, ?)"


class SqliteWriting:
    """For a journal that can `_call` something with its connection.

    Attributes:
        _next: the number of the next run. _created: runs that this owner has made, and holds.
    """

    _next: int
    _created: set[int]
    _turns: Turns

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    def _lane_of(self, connection: sqlite3.Connection, run: NewRun) -> int:
        raise NotImplementedError

    # ── commits ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _commit(self, batch: list[NewRun | Append]) -> list[Created | None]:
        answers, created, highest = await self._call(lambda c: self._write(c, batch))
        self._next = max(self._next, highest + 1)
        self._created.update(created)
        for each, answer in zip(batch, answers, strict=True):
            if answer is not None and not each.keep:  # type: ignore[union-attr]
                self._created.discard(answer.header.no)
            elif isinstance(each, Append) and (each.due_at is not None or (each.state is not None and each.state.is_end)):
                self._let_go(each.run)
        return answers

    def _let_go(self, no: int) -> None:
        self._created.discard(no)
        self._turns.placed.pop(no, None)

    def _write(self, connection: sqlite3.Connection, batch: list[NewRun | Append]) -> tuple[list[Created | None], list[int], int]:
        starts = [each for each in batch if isinstance(each, NewRun)]
        appends = [each for each in batch if isinstance(each, Append)]
        connection.execute("BEGIN IMMEDIATE")
        try:
            answers, numbers = self._insert_runs(connection, starts) if starts else ([], [])
            if appends:
                _insert_records(connection, appends)
                _park(connection, appends)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        created = iter(answers)
        return ([next(created) if isinstance(each, NewRun) else None for each in batch], numbers,
                max(numbers, default=0))

    def _insert_runs(self, connection: sqlite3.Connection, runs: list[NewRun]) -> tuple[list[Created], list[int]]:
        values: list[Any] = []
        for no, run in enumerate(runs, self._next):
            values += (no, run.id, run.saga, run.graph, "running", run.input, run.traceparent, run.at, run.at, run.deadline_at,
                       header_sum(run.id, run.saga, run.input))
        fresh: set[int] = set()
        for count, chunk in _chunks(values, 11):
            sql = ("INSERT INTO run (no, id, saga, graph, state, input, traceparent, created_at, updated_at, deadline_at, sum) VALUES "
                   f"{_places(count, 11)} ON CONFLICT DO NOTHING RETURNING no")
            fresh.update(no for (no,) in connection.execute(sql, chunk))
        if special := [(no, run) for no, run in enumerate(runs, self._next) if not run.is_plain and no in fresh]:
            self._insert_special(connection, special)
        answers = []
        for no, run in enumerate(runs, self._next):
            if no in fresh:
                header = Header(no=no, id=run.id, saga=run.saga, graph=run.graph, state=RunState.RUNNING, input=run.input,
                                traceparent=run.traceparent, created_at=run.at, updated_at=run.at, deadline_at=run.deadline_at)
                answers.append(Created(header, new=True))
            else:
                found = connection.execute(f"SELECT {HEADER_COLUMNS} FROM run WHERE id = ?", (run.id,)).fetchone()
                answers.append(Created(header_of(found), new=False))
        return answers, sorted(fresh)

    def _insert_special(self, connection: sqlite3.Connection, runs: list[tuple[int, NewRun]]) -> None:
        """What most runs do not have: a time or a queue to wait in, attributes, a history to begin with."""
        lanes = [(no, run, self._lane_of(connection, run)) for no, run in runs]
        connection.executemany("UPDATE run SET wake_at = ?, lane = ? WHERE no = ?",
                               [(run.due_at or run.at or 1.0, lane, no) for no, run, lane in lanes if lane or run.due_at])
        connection.executemany("INSERT INTO attribute (run, name, value) VALUES (?, ?, ?)",
                               [(no, *pair) for no, run in runs for pair in run.attributes])
        connection.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?)",
                               [(no, seq, each.kind.value, each.step, each.data, each.at, record_sum(no, seq, each.kind.value, each.step, each.data))
                                for no, run in runs for seq, each in enumerate(run.records)])

    # ── a step's own transaction ─────────────────────────────────────────────────────────────────────────────────────────

    async def transact(self, run: int, work: Callable[[Any], Any]) -> Append:
        def job(connection: sqlite3.Connection) -> Append:
            connection.execute("BEGIN IMMEDIATE")
            try:
                entry = _step_entry(connection, work)
                _insert_records(connection, [entry])
                _park(connection, [entry])
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return entry

        entry = await self._call(job)
        if entry.due_at is not None or (entry.state is not None and entry.state.is_end):
            self._let_go(run)
        return entry

    async def move(self, run: int, entry: Append, graph: str) -> None:
        def work(connection: sqlite3.Connection) -> Append:
            connection.execute("UPDATE run SET graph = ? WHERE no = ?", (graph, run))
            return entry

        await self.transact(run, work)


def _insert_records(connection: sqlite3.Connection, appends: list[Append]) -> None:
    values: list[Any] = []
    for entry in appends:
        seq = entry.seq
        for record in entry.records:
            kind, step, data = record.kind._value_, record.step, record.data
            values += (entry.run, seq, kind, step, data, record.at, record_sum(entry.run, seq, kind, step, data))
            seq += 1
    for count, chunk in _chunks(values, 7):
        connection.execute(f"INSERT INTO record VALUES {_places(count, 7)}", chunk)
    values = []
    for entry in appends:
        if (state := entry.state) is not None:
            values += (entry.run, state._value_, entry.result, entry.reason, entry.at, entry.at if state.is_end else 0.0)
    for count, chunk in _chunks(values, 6):
        connection.execute(
            "UPDATE run SET state = new.column2, result = new.column3, reason = new.column4, updated_at = new.column5,"
            f" finished_at = new.column6 FROM (VALUES {_places(count, 6)}) AS new WHERE no = new.column1", chunk)


def _park(connection: sqlite3.Connection, appends: list[Append]) -> None:
    parked = [(entry.due_at, entry.at, entry.run) for entry in appends if entry.due_at is not None]
    if parked:
        connection.executemany("UPDATE run SET wake_at = ?, updated_at = ? WHERE no = ?", parked)
    if asked := [(ask.run, ask.kind, ask.data, entry.at) for entry in appends if entry.asks for ask in entry.asks]:
        connection.executemany(REQUEST, asked)


def _step_entry(connection: sqlite3.Connection, work: Callable[[Any], Any]) -> Append:
    """What the step's function has written is in the transaction now. Raises StepFailed."""
    made = work(connection)
    if inspect.iscoroutine(made):
        made.close()
        raise StepFailed(UsageError("a step with tx=True on SQLite is a plain function, not an async one", do="write def, not async def"))
    entry: Append = made
    return entry


def _chunks(values: list[Any], columns: int) -> Iterable[tuple[int, list[Any]]]:
    """The values of many rows, as (how many rows, their values) of the sizes in `CHUNKS`."""
    begin = 0
    for size in CHUNKS:
        while len(values) - begin >= size * columns:
            yield size, values[begin:begin + size * columns]
            begin += size * columns


@functools.cache  # as many as there are sizes and tables
def _places(rows: int, columns: int) -> str:
    return ",".join(["(" + ",".join("?" * columns) + ")"] * rows)
