"""Pauses, attributes and the operators' log of a journal on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki.saga.journal.operations import BLOCKED_UNTIL, PAUSED_UNTIL, Operation, Pause, told
from yaoki.saga.journal.postgres.gates import ALONE, GATE_AGAIN
from yaoki.saga.journal.postgres.link import Connection, Link
from yaoki.saga.journal.postgres.statements import NOW, REQUEST

if TYPE_CHECKING:
    from yaoki.saga.journal.port import Append, Ask

LOG = f"INSERT INTO yaoki.operation (at, action, kind, name, who, why, data) VALUES ({NOW}, $1, $2, $3, $4, $5, $6)"
_READ = """
SELECT action, kind, name, who, why, data, at, no FROM yaoki.operation
WHERE $1 IN ('', kind) AND ($2 = '' OR name = $2) AND ($3::bigint = 0 OR no < $3::bigint) ORDER BY no DESC LIMIT $4"""

_PAUSE = f"INSERT INTO yaoki.pause (kind, name, at, who, why) VALUES ($1, $2, {NOW}, $3, $4) ON CONFLICT DO NOTHING RETURNING kind"
_RESUME = "DELETE FROM yaoki.pause WHERE kind = $1 AND name = $2 RETURNING kind"

# What waits for its turn or for a time is kept by this; what is in memory is given back by whoever drives it.
_PARK_RUN = f"UPDATE yaoki.run SET due_at = {PAUSED_UNTIL!r} WHERE id = $1 AND owner IS NULL AND finished_at = 0 AND due_at < {PAUSED_UNTIL!r}"
# A lane's gate says that neither its saga nor its queue is paused.
_FREE = f"""
UPDATE yaoki.run SET due_at = {NOW} FROM yaoki.lane l WHERE l.gate <> 2 AND run.lane = l.no AND run.owner IS NULL
    AND run.due_at = {PAUSED_UNTIL!r} AND NOT EXISTS (SELECT FROM yaoki.pause p WHERE p.kind = 'run' AND p.name = run.id)"""

# A run of another graph waits in another lane.
_NEW_LANE = """
INSERT INTO yaoki.lane (saga, graph, queue, priority, tenant) SELECT l.saga, $2, l.queue, l.priority, l.tenant
FROM yaoki.run r JOIN yaoki.lane l ON l.no = r.lane WHERE r.no = $1 ON CONFLICT DO NOTHING"""
_MOVE = """
UPDATE yaoki.run SET graph = $2, lane = t.no FROM yaoki.lane l JOIN yaoki.lane t
    ON (t.saga, t.graph, t.queue, t.priority, t.tenant) = (l.saga, $2, l.queue, l.priority, l.tenant)
WHERE run.no = $1 AND l.no = run.lane"""

_ATTRIBUTES = "SELECT run, name, value FROM yaoki.attribute WHERE run = ANY($1) ORDER BY run, name"
_BLOCKED = f"""
SELECT l.saga, sum(few.runs)::bigint, min(few.since) FROM yaoki.lane l CROSS JOIN LATERAL (
    SELECT count(*) AS runs, min(updated_at) AS since FROM (
        SELECT r.updated_at FROM yaoki.run r WHERE r.owner IS NULL AND r.lane = l.no AND r.due_at = {BLOCKED_UNTIL!r} LIMIT 1000) AS few_of
) AS few WHERE few.runs > 0 GROUP BY 1 ORDER BY 1"""


class PostgresOperations:
    """For a journal with a `_side` link."""

    _side: Link
    _news = 0

    async def ring(self) -> None:
        raise NotImplementedError

    async def request_many(self, asked: Sequence[Ask], at: float) -> None:
        async def work(connection: Connection) -> None:
            async with connection.transaction():
                await connection.executemany(REQUEST, [(each.run, each.kind, each.data, at) for each in asked])
                await connection.executemany(LOG, [row_of(line) for each in asked if (line := told(each, at)) is not None])

        await self._side.run(work)
        await self.ring()

    if TYPE_CHECKING:

        async def transact(self, run: int, work: Callable[[Any], Any]) -> Append: ...

    async def move(self, run: int, entry: Append, graph: str) -> None:
        async def work(connection: Connection) -> Append:
            await connection.execute(_NEW_LANE, run, graph)
            await connection.execute(_MOVE, run, graph)
            return entry

        await self.transact(run, work)

    async def log_operation(self, operation: Operation) -> None:
        await self._side.execute(LOG, *row_of(operation))
        await self.ring()

    async def operations(self, *, kind: str = "", name: str = "", before_no: int = 0, limit: int = 50) -> list[Operation]:
        rows = await self._side.fetch(_READ, kind, name, before_no, limit)
        return [Operation(row[0], row[1], row[2], row[3], row[4], msgspec.Raw(row[5]), row[6], row[7]) for row in rows]

    async def news(self) -> int:
        """Of the last look: a query of its own would cost more than all else that an idle worker does."""
        return self._news

    async def pause(self, kind: str, name: str, *, who: str = "", why: str = "") -> bool:
        async def work(connection: Connection) -> bool:
            async with connection.transaction():
                await connection.execute(ALONE)
                if await connection.fetchval(_PAUSE, kind, name, who, why) is None:
                    return False
                await connection.execute(_PARK_RUN if kind == "run" else GATE_AGAIN, *([name] if kind == "run" else []))
                await connection.execute(LOG, *row_of(Operation("pause", kind, name, who, why)))
                return True

        return await self._and_ring(await self._side.run(work))

    async def resume(self, kind: str, name: str, *, who: str = "", why: str = "") -> bool:
        async def work(connection: Connection) -> bool:
            async with connection.transaction():
                await connection.execute(ALONE)
                if await connection.fetchval(_RESUME, kind, name) is None:
                    return False
                if kind != "run":
                    await connection.execute(GATE_AGAIN)
                await connection.execute(_FREE)
                await connection.execute(LOG, *row_of(Operation("resume", kind, name, who, why)))
                return True

        return await self._and_ring(await self._side.run(work))

    async def free_paused(self) -> int:
        return int((await self._side.execute(_FREE)).rpartition(" ")[2])

    async def _and_ring(self, changed: bool) -> bool:  # noqa: FBT001
        if changed:
            await self.ring()
        return changed

    async def pauses(self) -> list[Pause]:
        return [Pause(*row) for row in await self._side.fetch("SELECT kind, name, at, who, why FROM yaoki.pause ORDER BY kind, name")]

    async def attributes(self, numbers: Sequence[int]) -> dict[int, dict[str, str]]:
        found: dict[int, dict[str, str]] = {}
        for no, name, value in await self._side.fetch(_ATTRIBUTES, list(numbers)):
            found.setdefault(no, {})[name] = value
        return found

    async def blocked(self) -> list[tuple[str, int, float]]:
        return [(row[0], row[1], row[2]) for row in await self._side.fetch(_BLOCKED)]


def row_of(line: Operation) -> tuple[str, str, str, str, str, bytes]:
    return line.action, line.kind, line.name, line.who, line.why, bytes(line.data)
