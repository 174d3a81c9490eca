"""What runs do to each other: requests that are durable together with a batch, and ended runs that are taken up again.

A batch that asks something of other runs is a transaction of two statements; all other batches are one, and do not pay for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from yaoki.saga.journal.port import Append
from yaoki.saga.journal.postgres import statements as sql
from yaoki.saga.journal.postgres.link import Connection

Asked = list[tuple[str, str, bytes, float]]

ASK = "INSERT INTO yaoki.request (run, kind, data, at) VALUES ($1, $2, $3, $4)"

# From here on it counts as running: of two workers that want to undo it, one gets it; and should that one die, it is found.
CLAIM_ENDED = f"""{sql.CLAIM_FENCE}, claimed AS (
    UPDATE yaoki.run SET owner = $1, claim = $2, fence = run.fence + 1, due_at = {sql.NOW}, finished_at = 0, state = 'running' FROM fence
    WHERE run.id = $3 AND run.finished_at > 0 AND run.state = 'completed'
    RETURNING {", ".join(f"run.{each.strip()}" for each in sql.HEADER.split(","))}
)
SELECT fence.no AS fenced, claimed.* FROM fence LEFT JOIN claimed ON true"""

# Back from the past, as the run that it was when it ended.
_RECALL = f"""
WITH back AS (
    DELETE FROM yaoki.past WHERE id = $1 AND state = 'completed' RETURNING *
), records AS (
    INSERT INTO yaoki.record (run, seq, kind, step, data, at)
    SELECT back.no, each.seq - 1, each.r ->> 0, each.r ->> 1, decode(each.r ->> 2, 'base64'), (each.r ->> 3)::float8
    FROM back, jsonb_array_elements(back.records) WITH ORDINALITY AS each(r, seq)
)
INSERT INTO yaoki.run ({sql.HEADER}, lane, owner, due_at) OVERRIDING SYSTEM VALUE
SELECT {sql.HEADER}, (SELECT l.no FROM yaoki.lane l WHERE l.saga = back.saga AND l.graph = back.graph
    ORDER BY l.queue <> 'default', l.no LIMIT 1), $2, finished_at FROM back"""


def asks_of(entries: Iterable[Append]) -> Asked:
    """What they ask of other runs, as rows."""
    return [(ask.run, ask.kind, ask.data, each.at) for each in entries for ask in each.asks]


async def send_asking(connection: Connection, statement: str, values: list[Any], asks: Asked) -> list[Any]:
    """Write a batch and what it asks; nothing of both when the fence does not let it through."""
    async with connection.transaction():
        rows: list[Any] = await connection.fetch(statement, *values)
        if rows:
            await connection.executemany(ASK, asks)
    return rows


async def recall(connection: Connection, run_id: str, worker: int) -> None:
    """Bring a completed run back from the past, if it is there."""
    await connection.execute(_RECALL, run_id, worker)
