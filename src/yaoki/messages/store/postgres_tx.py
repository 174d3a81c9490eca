"""A transaction in which a handler works, and the statements of a settlement, through asyncpg."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

import msgspec

from yaoki import runtime
from yaoki.errors import FencedError
from yaoki.messages.store import postgres_sql as sql
from yaoki.messages.store import postgres_write as write
from yaoki.messages.store.port import Settlement, ended_by_handler
from yaoki.messages.store.postgres_errors import FAILURES, as_store_errors, is_refusal


class PostgresTx:
    """A transaction on a connection of its own (asyncpg's)."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.published = False

    async def settle(self, group: str, settlement: Settlement) -> None:
        if not self.connection.is_in_transaction():
            raise ended_by_handler(group)
        self.published = self.published or bool(settlement.publish)
        with as_store_errors():
            await settle(self.connection, group, settlement)


async def settle(connection: Any, group: str, settlement: Settlement) -> None:
    """Write what was done: one statement by itself, or in the transaction that is open. Raises `FencedError`."""
    if settlement.fences:
        parts = sorted(settlement.fences)
        cursors = [settlement.cursors.get(part) for part in parts]
        moved = await connection.fetch(
            sql.SETTLE, group, parts, [settlement.fences[part] for part in parts],
            [None if at is None else at[0] for at in cursors], [None if at is None else at[1] for at in cursors])
        if not moved:
            raise FencedError(
                f"a partition of {group} is another worker's now; nothing of this batch was written",
                do="nothing: the other worker goes on; if it happens often, raise `lease_s` or look for a blocked event "
                   "loop", group=group)
    if settlement.hold:
        await connection.executemany(sql.HOLD, [
            (group, row.part, row.position[1], row.position[0], row.key, row.state, row.attempts, row.due_at,
             row.error, row.first_at, msgspec.json.encode(row.history), row.replays, row.data) for row in settlement.hold])
    for part, position in settlement.drop:
        await connection.execute(sql.DROP, group, part, position[1], runtime.unix_time())
    if settlement.publish:
        await write.append(connection, settlement.publish)


@asynccontextmanager
async def transaction(pool: Any) -> AsyncIterator[PostgresTx]:
    """A transaction on a connection of the pool. What the block raises passes, unless the connection is lost.

    Raises:
        StoreError: there is no connection, or it was lost, perhaps during the commit.
        asyncpg.PostgresError: the commit was refused.
    """
    with _Verdict() as verdict:
        async with pool.acquire() as connection:
            try:
                async with connection.transaction():
                    tx = PostgresTx(connection)
                    with verdict.of_the_block():
                        yield tx
                    verdict.commits = True
                verdict.commits = False
                if tx.published:
                    await connection.execute(sql.NOTIFY)
            finally:
                verdict.lost = connection.is_closed()
                await _reset(connection)


class _Verdict:
    """Whose fault it is when a transaction fails."""

    def __init__(self) -> None:
        self.commits = False
        self.lost = False
        self._theirs: BaseException | None = None

    @contextmanager
    def of_the_block(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._theirs = error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        theirs = error is self._theirs and not self.lost
        if not theirs and not (self.commits and error is not None and is_refusal(error)):
            as_store_errors().__exit__(kind, error, trace)


async def _reset(connection: Any) -> None:
    """Undo what the handler may have set for its session. A connection that cannot is not used again."""
    try:
        await connection.reset()
    except FAILURES:
        connection.terminate()
