"""Queues of a journal in a SQLite file.

A run that waits in a queue has a lane, and counts as parked until somebody takes it. Its lane stays when it is parked again, so it
comes back through its queue. Plain runs have lane 0 and never come here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from yaoki.saga.journal.operations import PAUSED_UNTIL, Pause, set_by_hand
from yaoki.saga.journal.operations.sqlite import LOG, row_of
from yaoki.saga.journal.port import NORMAL, NewRun
from yaoki.saga.journal.queues import QueueState
from yaoki.saga.journal.queues.one_owner import Kept, Lane, Turns, said
from yaoki.saga.queue import Due, Queue

T = TypeVar("T")

_DUE = "lane > 0 AND wake_at > 0 AND wake_at <= ?"
_SAVE = """
INSERT INTO queue (name, concurrency, per_worker, rate, burst, tat, declared, by_hand) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET concurrency = excluded.concurrency, per_worker = excluded.per_worker, rate = excluded.rate,
    burst = excluded.burst, tat = excluded.tat, declared = excluded.declared, by_hand = excluded.by_hand"""
_PLAIN = ("default", NORMAL, "")


class SqliteQueues:
    """For a journal that can `_call` something with its connection."""

    _turns: Turns
    _lanes: dict[Lane, int]

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    if TYPE_CHECKING:

        def now(self) -> float: ...

    @property
    def look_at(self) -> float:
        return self._turns.look_at

    # ── in the connection's thread, while the owner waits for it ─────────────────────────────────────────────────────

    def _know_queues(self, connection: sqlite3.Connection) -> None:
        """What is kept of queues, pauses and lanes; read again when an operator has changed something."""
        self._turns.queues = {row[0]: Kept(_queue(row), row[5], row[6], bool(row[7])) for row in connection.execute(
            "SELECT name, concurrency, per_worker, rate, burst, tat, declared, by_hand FROM queue")}
        self._turns.pauses = [Pause(*row) for row in connection.execute("SELECT kind, name, at, who, why FROM pause")]
        self._lanes = {(row[1], row[2], row[3], row[4]): row[0] for row in connection.execute("SELECT no, saga, queue, priority, tenant FROM lane")}

    def _know_turns(self, connection: sqlite3.Connection) -> None:
        """What an owner has to know that comes after another: who was under way then has his place still."""
        self._know_queues(connection)
        names = {no: lane[1] for lane, no in self._lanes.items()}
        self._turns.placed = {no: names[lane] for no, lane in connection.execute(
            "SELECT no, lane FROM run WHERE lane > 0 AND wake_at = 0 AND finished_at = 0 AND state != 'blocked'")}

    def _lane_of(self, connection: sqlite3.Connection, run: NewRun) -> int:
        placing = (run.queue, run.priority, run.tenant)
        if placing == _PLAIN and (run.keep or "default" not in self._turns.queues):
            return 0
        lane = (run.saga, *placing)
        if lane not in self._lanes:
            connection.execute("INSERT INTO lane (saga, queue, priority, tenant) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", lane)
            self._know_queues(connection)
        return self._lanes[lane]

    def _wake_lanes(self, connection: sqlite3.Connection, wanted: int, now: float) -> list[int]:
        """Take runs that wait in queues, as their limits allow."""
        if not self._lanes or wanted <= 0:
            return []
        lanes = {no: lane for lane, no in self._lanes.items() if not self._turns.is_paused(lane)}
        due = [Due(no, lane[1], lane[2], count) for no, lane in lanes.items() if (count := _count(connection, no, now, wanted))]
        found: list[int] = []
        for no, count in self._turns.deal(due, wanted, now).items():
            sql = f"SELECT no FROM run WHERE lane = ? AND {_DUE} ORDER BY wake_at, no LIMIT ?"
            numbers = [row[0] for row in connection.execute(sql, (no, now, count))]
            connection.executemany("UPDATE run SET wake_at = 0 WHERE no = ?", [(number,) for number in numbers])
            self._turns.take(numbers, lanes[no][1], now)
            found += numbers
            if (kept := self._turns.queues.get(lanes[no][1])) is not None:
                connection.execute("UPDATE queue SET tat = ? WHERE name = ?", (kept.tat, kept.queue.name))
        return found

    def _name_queues(self, connection: sqlite3.Connection, numbers: list[int]) -> dict[int, str]:
        """The queue of each of these runs that has a lane; each of them has its place from now on."""
        if not self._lanes or not numbers:
            return {}
        names = {no: lane[1] for lane, no in self._lanes.items()}
        rows = connection.execute(f"SELECT no, lane FROM run WHERE lane > 0 AND no IN ({','.join('?' * len(numbers))})", numbers)
        found = {no: names[lane] for no, lane in rows}
        self._turns.placed.update(found)
        return found

    # ── what the code, and people, say about them ────────────────────────────────────────────────────────────────────

    async def declare(self, queues: Sequence[Queue]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            self._know_queues(connection)
            news = [queue for queue in queues if queue.name not in self._turns.queues or self._turns.queues[queue.name].declared != said(queue)]
            for queue in news:
                connection.execute(_SAVE, (*_values(queue), 0.0, said(queue), 0))
            if news:
                self._know_queues(connection)

        await self._call(work)

    async def limited(self) -> set[str]:
        await self._call(self._know_queues)
        return {name for name, kept in self._turns.queues.items() if kept.queue.is_limited}

    async def set_queue(self, queue: Queue, *, who: str = "", why: str = "") -> None:
        now = self.now()

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute("SELECT tat, declared FROM queue WHERE name = ?", (queue.name,)).fetchone() or (0.0, "")
            connection.execute(_SAVE, (*_values(queue), *row, 1))
            connection.execute(LOG, row_of(set_by_hand(queue, who, why), now))

        await self._call(work)

    async def queue_states(self) -> list[QueueState]:
        return await self._call(lambda c: _states(c, self.now()))


def _states(connection: sqlite3.Connection, now: float) -> list[QueueState]:
    kept = {row[0]: row for row in connection.execute("SELECT name, concurrency, per_worker, rate, burst, by_hand FROM queue")}
    paused = {row[0] for row in connection.execute("SELECT name FROM pause WHERE kind = 'queue'")}
    lanes = connection.execute("SELECT no, queue FROM lane").fetchall()
    found = []
    for name in sorted({*kept, *paused, *(lane[1] for lane in lanes)}):
        waiting = sum(_count(connection, no, now, 1000) + _held(connection, no) for no, queue in lanes if queue == name)
        row = kept.get(name, (name, None, None, None, None, 0))
        placed = connection.execute("SELECT count(*) FROM run WHERE finished_at = 0 AND wake_at = 0 AND state != 'blocked' AND lane IN "
                                    "(SELECT no FROM lane WHERE queue = ?)", (name,)).fetchone()[0]
        found.append(QueueState(_queue(row), placed, waiting, name in paused, bool(row[5])))
    return found


def _count(connection: sqlite3.Connection, lane: int, now: float, limit: int) -> int:
    sql = f"SELECT count(*) FROM (SELECT 1 FROM run WHERE lane = ? AND {_DUE} LIMIT ?)"
    return int(connection.execute(sql, (lane, now, limit)).fetchone()[0])


def _held(connection: sqlite3.Connection, lane: int) -> int:
    sql = "SELECT count(*) FROM (SELECT 1 FROM run WHERE lane = ? AND lane > 0 AND wake_at > 0 AND wake_at = ? LIMIT 1000)"
    return int(connection.execute(sql, (lane, PAUSED_UNTIL)).fetchone()[0])


def _queue(row: Sequence[object]) -> Queue:
    return Queue(row[0], row[1], row[2], row[3], row[4] if row[3] is not None else None)  # type: ignore[arg-type]


def _values(queue: Queue) -> tuple[object, ...]:
    return (queue.name, *queue.limits().values())


