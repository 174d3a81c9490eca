"""A step's own transaction: the user's writes, then the fence, the records and the run's row, then the commit."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from yaoki.errors import FencedError, UsageError
from yaoki.saga.journal.port import Append, StepFailed, TransactionLost
from yaoki.saga.journal.postgres import statements as sql
from yaoki.saga.journal.postgres.kin import ASK, asks_of
from yaoki.saga.journal.postgres.link import Connection, is_lost


class CommitLost(Exception):
    """The connection broke at the commit: whether it went through is to be read back."""

    def __init__(self, entry: Append) -> None:
        super().__init__()
        self.entry = entry


async def transacted(connection: Connection, worker: int, work: Callable[[Any], Any], refused: Callable[[], FencedError],
                     idle_for: str) -> Append:
    """`idle_for`: how long the server waits for the commit once all is written. Raises StepFailed, FencedError, CommitLost, TransactionLost."""
    transaction = connection.transaction()
    try:
        await transaction.start()
        entry = await _worked(connection, work)
    except Exception as error:
        if _is_gone(connection, error.error if isinstance(error, StepFailed) else error):
            raise TransactionLost from error  # the connection's failure, not the step's
        raise
    try:
        if not await _write(connection, worker, entry, idle_for):
            refused_by = refused()
        else:
            await transaction.commit()
            return entry
    except Exception as error:
        if not is_lost(error):
            raise
        raise CommitLost(entry) from error
    raise refused_by


def _is_gone(connection: Connection, error: BaseException | None) -> bool:
    """Did the step fail for the connection is lost? It may have made an error of its own of what the connection told it."""
    while error is not None and not is_lost(error):
        error = error.__cause__ or error.__context__
    # The server says that it goes before it does.
    return error is not None and (connection.is_closed() or str(getattr(error, "sqlstate", "")).startswith(("57P", "08")))


async def _worked(connection: Connection, work: Callable[[Any], Any]) -> Append:
    made = work(connection)
    if not inspect.isawaitable(made):
        raise StepFailed(UsageError("a step with tx=True on PostgreSQL is an async function", do="write async def"))
    entry: Append = await made
    return entry


async def _write(connection: Connection, worker: int, entry: Append, idle_for: str) -> bool:
    """False when the worker is dead, or the run is not its own any more."""
    records, state = entry.records, entry.state
    ended = entry.at if state is not None and state.is_end else 0.0
    written = await connection.fetchval(
        sql.STEP_END, worker, entry.run, state.value if state else None, entry.result, entry.reason, entry.at, ended, entry.due_at,
        [entry.seq + i for i in range(len(records))], [record.kind for record in records], [record.step for record in records],
        [record.data for record in records], [record.at for record in records], idle_for)
    if written is not None and entry.asks:
        await connection.executemany(ASK, asks_of([entry]))
    return written is not None
