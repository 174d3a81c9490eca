"""Start a run in a transaction of the caller's own: it is started if, and only if, the caller commits."""

from __future__ import annotations

from typing import Any

import msgspec

from yaoki.errors import NoTransactionError, UsageError
from yaoki.saga.journal.port import NewRun

# A function in the database (`functions.py`), so that it costs the caller's transaction one round trip.
_START = """SELECT yaoki.start_run({id}::text, {saga}::text, {graph}::text, {input}::bytea, {traceparent}::text, {deadline_at}::float8,
{due_at}::float8, {queue}::text, {priority}::smallint, {tenant}::text, {attributes}::text::jsonb, {named}::boolean)"""
_FIELDS = ("id", "saga", "graph", "input", "traceparent", "deadline_at", "due_at", "queue", "priority", "tenant", "attributes", "named")
_ASYNCPG = _START.format(**{name: f"${number}" for number, name in enumerate(_FIELDS, 1)})
_PSYCOPG = _START.format(**{name: f"%({name})s" for name in _FIELDS})


async def start_with(connection: Any, run: NewRun) -> None:
    """Insert the run by an asyncpg or an async psycopg connection.

    Raises NoTransactionError without a transaction under way, UsageError for a connection of another kind.
    """
    kind = type(connection).__module__.partition(".")[0]
    if kind == "asyncpg":
        if not connection.is_in_transaction():
            raise _no_transaction()
        await connection.execute(_ASYNCPG, *_values(run).values())
    elif kind == "psycopg" and hasattr(connection, "__aenter__"):
        if connection.autocommit and connection.info.transaction_status == 0:
            raise _no_transaction()
        await connection.execute(_PSYCOPG, _values(run))
    else:
        raise UsageError(f"connection= is of asyncpg or psycopg, and here an async one, not {type(connection).__name__}",
                         do="pass the driver's own connection, on the database that holds the journal")


def start_with_blocking(connection: Any, run: NewRun) -> None:
    """The same by a psycopg connection, as Django's `connection.connection` is. Raises as `start_with`."""
    if type(connection).__module__.partition(".")[0] != "psycopg" or hasattr(connection, "__aenter__"):
        raise UsageError(f"connection= is one of psycopg 3, not {type(connection).__module__}.{type(connection).__name__}",
                         do="pass the driver's own connection (in Django: django.db.connection.connection), or call SELECT yaoki.start(...)")
    if connection.autocommit and connection.info.transaction_status == 0:
        raise _no_transaction()
    connection.execute(_PSYCOPG, _values(run))


def _values(run: NewRun) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(run, name) for name in _FIELDS[:10]}
    return {**values, "attributes": msgspec.json.encode(dict(run.attributes)).decode() if run.attributes else None, "named": not run.fresh}


def _no_transaction() -> NoTransactionError:
    return NoTransactionError("connection= has no transaction under way, so the run would not be one with your data",
                              do="async with connection.transaction(): ...")
