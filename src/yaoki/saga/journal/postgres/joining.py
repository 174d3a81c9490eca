"""Start a run in a transaction of the caller's own: it is started if, and only if, the caller commits."""

from __future__ import annotations

from typing import Any

from yaoki.errors import NoTransactionError, UsageError
from yaoki.saga.journal.port import NewRun
from yaoki.saga.journal.postgres.statements import NOW

# One statement, so that it costs the caller's transaction one round trip. The lane is there already but for the first time.
_START = f"""
WITH made AS (
    INSERT INTO yaoki.lane (saga, graph, queue, priority, tenant)
    SELECT {{saga}}::text, {{graph}}::text, {{queue}}::text, {{priority}}::smallint, {{tenant}}::text
    WHERE NOT EXISTS (SELECT FROM yaoki.lane l WHERE (l.saga, l.graph, l.queue, l.priority, l.tenant) =
        ({{saga}}::text, {{graph}}::text, {{queue}}::text, {{priority}}::smallint, {{tenant}}::text))
    ON CONFLICT DO NOTHING RETURNING no
), lane AS (
    SELECT no FROM made UNION ALL SELECT no FROM yaoki.lane l WHERE (l.saga, l.graph, l.queue, l.priority, l.tenant) =
        ({{saga}}::text, {{graph}}::text, {{queue}}::text, {{priority}}::smallint, {{tenant}}::text)
)
INSERT INTO yaoki.run (id, saga, graph, state, input, traceparent, created_at, updated_at, deadline_at, lane, due_at)
SELECT {{id}}::text, {{saga}}::text, {{graph}}::text, 'running', {{input}}::bytea, {{traceparent}}::text, {NOW}, {NOW},
    {{deadline_at}}::float8, lane.no, coalesce(nullif({{due_at}}::float8, 0), {NOW})
FROM lane LIMIT 1 ON CONFLICT (id) DO NOTHING"""
_FIELDS = ("id", "saga", "graph", "input", "traceparent", "deadline_at", "due_at", "queue", "priority", "tenant")
_ASYNCPG = _START.format(**{name: f"${number}" for number, name in enumerate(_FIELDS, 1)})
_PSYCOPG = _START.format(**{name: f"%({name})s" for name in _FIELDS})


async def start_with(connection: Any, run: NewRun) -> None:
    """Insert the run by an asyncpg or an async psycopg connection.

    Raises NoTransactionError without a transaction under way, UsageError for a connection of another kind.
    """
    kind = type(connection).__module__.partition(".")[0]
    values = {name: getattr(run, name) for name in _FIELDS}
    if kind == "asyncpg":
        if not connection.is_in_transaction():
            raise _no_transaction()
        await connection.execute(_ASYNCPG, *values.values())
        await connection.execute("SELECT pg_notify('yaoki', '')")
    elif kind == "psycopg":
        if connection.autocommit and connection.info.transaction_status == 0:
            raise _no_transaction()
        await connection.execute(_PSYCOPG, values)
        await connection.execute("SELECT pg_notify('yaoki', '')")
    else:
        raise UsageError(f"connection= is of asyncpg or an async one of psycopg, not {type(connection).__name__}",
                         do="pass the driver's own connection, on the database that holds the journal")


def _no_transaction() -> NoTransactionError:
    return NoTransactionError("connection= has no transaction under way, so the run would not be one with your data",
                              do="async with connection.transaction(): ...")
