"""Queues of a journal on PostgreSQL, over all workers, by the server's clock.

A claim from limited queues is one transaction: the fence, the queues' rows locked in the order of their names, then, with a
snapshot that is younger than those locks, who has a place, and the runs themselves. So two workers never both see the last
place free, and a claim whose answer was lost is found by its number as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import msgspec

from yaoki.saga.journal.operations import PAUSED_UNTIL, set_by_hand
from yaoki.saga.journal.operations.postgres import LOG, row_of
from yaoki.saga.journal.postgres.gates import ALONE, GATE_AGAIN
from yaoki.saga.journal.postgres.lanes import DUE, HAS_DUE, candidates, may_take
from yaoki.saga.journal.postgres.link import Connection, Link
from yaoki.saga.journal.postgres.statements import HEADER, NOW
from yaoki.saga.journal.queues import QueueState
from yaoki.saga.queue import Queue, Usage, admit, taken_up

_FENCE = f"""
UPDATE yaoki.worker SET claim = $2, lease_until = {NOW} + lease_s
WHERE no = $1 AND claim = $2 - 1 AND state IN ('alive', 'draining') RETURNING no"""

_LOCKED = f"""
WITH {candidates(f"l.gate = 1 AND {may_take('$1', '$2')}", "$3")}
SELECT name, concurrency, per_worker, rate, burst, tat, {NOW} AS now FROM yaoki.queue WHERE name IN (
    SELECT l.queue FROM candidate l {HAS_DUE}
) ORDER BY name FOR UPDATE"""
# A place stands as long as its run is under way with the worker that took it.
_STALE = """
DELETE FROM yaoki.place p WHERE p.queue = ANY($1) AND NOT EXISTS (
    SELECT FROM yaoki.run r WHERE r.no = p.run AND r.owner = p.owner AND r.finished_at = 0 AND r.state <> 'blocked')"""
_USED = "SELECT queue, count(*) AS placed, count(*) FILTER (WHERE owner = $2) AS here FROM yaoki.place WHERE queue = ANY($1) GROUP BY 1"

# Urgent ones first; among equals each tenant that has any gives its share, in random order.
_TAKE = f"""
WITH {candidates("l.queue = $3 AND l.gate = 1 AND ($5::text[] IS NULL OR l.graph = ANY($5))", "$6")}, lanes AS MATERIALIZED (
    SELECT l.no, l.priority, count(*) OVER (PARTITION BY l.priority) AS peers FROM candidate l {HAS_DUE}
    ORDER BY l.priority, random()
), picked AS MATERIALIZED (
    SELECT found.no FROM lanes CROSS JOIN LATERAL (
        SELECT r.no FROM yaoki.run r WHERE r.lane = lanes.no AND {DUE}
        ORDER BY r.due_at, r.no LIMIT ceil($4::float8 / lanes.peers)::bigint FOR UPDATE SKIP LOCKED
    ) AS found LIMIT $4::bigint
), claimed AS (
    UPDATE yaoki.run SET owner = $1, claim = $2, fence = run.fence + 1, due_at = least(due_at, {NOW}) FROM picked WHERE run.no = picked.no
    RETURNING {", ".join(f"run.{each.strip()}" for each in HEADER.split(","))}, run.lane
), placed AS (
    INSERT INTO yaoki.place (run, queue, owner) SELECT no, $3, $1 FROM claimed ON CONFLICT (run) DO UPDATE SET owner = excluded.owner
)
SELECT * FROM claimed"""

_DECLARE = """
INSERT INTO yaoki.queue (name, concurrency, per_worker, rate, burst, declared) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (name) DO UPDATE SET concurrency = $2, per_worker = $3, rate = $4, burst = $5, declared = $6, by_hand = false
WHERE queue.declared <> $6"""
_NEWS = "SELECT name, declared FROM yaoki.queue WHERE name = ANY($1)"
_SET = """
INSERT INTO yaoki.queue (name, concurrency, per_worker, rate, burst, by_hand) VALUES ($1, $2, $3, $4, $5, true)
ON CONFLICT (name) DO UPDATE SET concurrency = $2, per_worker = $3, rate = $4, burst = $5, by_hand = true"""

_STATES = f"""
WITH names AS (
    SELECT name FROM yaoki.queue UNION SELECT name FROM yaoki.pause WHERE kind = 'queue' UNION SELECT queue FROM yaoki.lane
)
SELECT names.name, q.concurrency, q.per_worker, q.rate, q.burst, coalesce(q.by_hand, false) AS by_hand,
    EXISTS (SELECT FROM yaoki.pause p WHERE p.kind = 'queue' AND p.name = names.name) AS paused,
    (SELECT count(*) FROM yaoki.place p JOIN yaoki.run r ON r.no = p.run
        WHERE p.queue = names.name AND r.owner = p.owner AND r.finished_at = 0 AND r.state <> 'blocked') AS placed,
    (SELECT coalesce(sum(due.runs), 0)::bigint FROM yaoki.lane l CROSS JOIN LATERAL (
        SELECT count(*) AS runs FROM (
            (SELECT FROM yaoki.run r WHERE r.lane = l.no AND {DUE} LIMIT 1000)
            UNION ALL (SELECT FROM yaoki.run r WHERE r.lane = l.no AND r.owner IS NULL AND r.due_at = {PAUSED_UNTIL!r} LIMIT 1000)) AS few
        ) AS due WHERE l.queue = names.name) AS waiting
FROM names LEFT JOIN yaoki.queue q ON q.name = names.name ORDER BY 1"""


class PostgresQueues:
    """For a journal with a `_side` link."""

    _side: Link
    _graphs: list[str] | None
    _queues: list[str] | None
    _hints: list[int]
    look_at: float = inf

    async def _take_limited(self, connection: Connection, worker: int, number: int, limit: int) -> list[Any]:
        """Take up to `limit` runs from the queues that have limits, by the claim of this number. Empty: the fence refuses it."""
        async with connection.transaction():
            if await connection.fetchval(_FENCE, worker, number) is None:
                return []  # dead, or sent before
            return await self._take_fenced(connection, worker, number, limit)

    async def _take_fenced(self, connection: Connection, worker: int, number: int, limit: int) -> list[Any]:
        found: list[Any] = [{"no": None}]  # so that "nothing" is told from "dead"
        self.look_at = inf
        rows = await connection.fetch(_LOCKED, self._graphs, self._queues, self._hints)
        names = [row["name"] for row in rows]
        if not names:
            return found
        await connection.execute(_STALE, names)
        used = {row["queue"]: row for row in await connection.fetch(_USED, names, worker)}
        for row in rows:
            queue, of = _queue(row), used.get(row["name"], {"placed": 0, "here": 0})
            admission = admit(queue, Usage(of["placed"], of["here"], row["tat"]), row["now"], limit)
            self.look_at = min(self.look_at, admission.again_at)
            if admission.count:
                taken = await connection.fetch(_TAKE, worker, number, queue.name, admission.count, self._graphs, self._hints)
                if taken and queue.rate is not None:
                    await connection.execute("UPDATE yaoki.queue SET tat = $2 WHERE name = $1", queue.name,
                                             taken_up(queue, row["tat"], row["now"], len(taken)))
                found += taken
                limit -= len(taken)
        return found

    # ── what the code, and people, say about them ────────────────────────────────────────────────────────────────────

    async def declare(self, queues: Sequence[Queue]) -> None:
        said = {queue.name: (queue, msgspec.json.encode(queue.limits()).decode()) for queue in queues}

        async def work(connection: Connection) -> None:
            known = {row[0]: row[1] for row in await connection.fetch(_NEWS, list(said))}
            news = [(queue, text) for queue, text in said.values() if known.get(queue.name) != text]
            if not news:  # so that a worker's start does not stop the others for a moment
                return
            async with connection.transaction():
                await connection.execute(ALONE)
                for queue, text in sorted(news, key=lambda each: each[0].name):
                    await connection.execute(_DECLARE, queue.name, *queue.limits().values(), text)
                await connection.execute(GATE_AGAIN)

        if said:
            await self._side.run(work)

    async def limited(self) -> set[str]:
        return {row[0] for row in await self._side.fetch("SELECT DISTINCT queue FROM yaoki.lane WHERE gate = 1 UNION SELECT name FROM yaoki.queue")}

    async def set_queue(self, queue: Queue, *, who: str = "", why: str = "") -> None:
        async def work(connection: Connection) -> None:
            async with connection.transaction():
                await connection.execute(ALONE)
                await connection.execute(_SET, queue.name, *queue.limits().values())
                await connection.execute(GATE_AGAIN)
                await connection.execute(LOG, *row_of(set_by_hand(queue, who, why)))

        await self._side.run(work)

    async def queue_states(self) -> list[QueueState]:
        return [QueueState(_queue(row), row["placed"], row["waiting"], row["paused"], row["by_hand"])
                for row in await self._side.fetch(_STATES)]


def _queue(row: Any) -> Queue:
    return Queue(row["name"], row["concurrency"], row["per_worker"], row["rate"], row["burst"] if row["rate"] is not None else None)
