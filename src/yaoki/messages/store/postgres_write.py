"""How messages get into PostgreSQL through asyncpg: by a statement, or many at once by COPY."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import asyncpg

from yaoki import runtime
from yaoki.messages.envelope import Message
from yaoki.messages.store import postgres_sql as sql


async def append(connection: Any, messages: Sequence[Message], *, notify: bool = False) -> None:
    """Write messages, passing over those that are known by id and source. notify: wake the readers at commit."""
    if len(messages) >= sql.MANY:
        try:
            async with connection.transaction():
                await _copy(connection, messages, notify=notify, perhaps_known=True)
        except (asyncpg.UniqueViolationError, _KnownError):
            pass  # one of them is known: let the statement find out which
        else:
            return
    await connection.execute(sql.noting(sql.APPEND, notify=notify), *sql.columns_of(messages))


async def append_new(connection: Any, messages: Sequence[Message], *, notify: bool = False) -> None:
    """Write messages of which none can be known, because their ids were made for them. In the caller's transaction."""
    if len(messages) >= sql.MANY:
        await _copy(connection, messages, notify=notify)
    else:
        await connection.execute(sql.noting(sql.APPEND, notify=notify), *sql.columns_of(messages))


async def append_made(connection: Any, keys: Sequence[str], make: Callable[[], list[Message]], *, notify: bool = False) -> list[Message]:
    """`append_new` of many messages that are made here while the server locks their keys: both take about as long.

    Args:
        keys: of the messages. make: makes them. What it raises is raised, and the transaction can still be used.
    """
    locking = runtime.spawn(_lock(connection, keys, notify=notify), name="yaoki-messages-lock")
    try:
        await runtime.sleep(0)  # the statement goes out
        messages = make()
        rows = sql.rows_of(messages)
    except BaseException as error:
        if not isinstance(error, Exception):
            locking.cancel()
        # Not before it has ended is the connection the caller's again.
        await asyncio.gather(locking, return_exceptions=True)
        raise
    await _fill(connection, rows, await locking)
    return messages


async def _copy(connection: Any, messages: Sequence[Message], *, notify: bool, perhaps_known: bool = False) -> None:
    """Lock the keys, then COPY. Needs a transaction, or the locks would be gone between the two."""
    place = await _lock(connection, (each.key for each in messages), notify=notify)
    if perhaps_known and place["first"] < place["current"] and await connection.fetchval(  # of one segment its index says it
            sql.KNOWN, [each.id for each in messages], [each.source for each in messages]):
        raise _KnownError
    await _fill(connection, sql.rows_of(messages), place)


async def _lock(connection: Any, keys: Iterable[str], *, notify: bool) -> Any:
    """Lock these keys. Returns the place of their messages."""
    return await connection.fetchrow(sql.noting(sql.LOCK_KEYS, notify=notify), list(dict.fromkeys(keys)))


async def _fill(connection: Any, rows: Iterable[tuple[Any, ...]], place: Any) -> None:
    end = (place["at_x"], place["current"])
    await connection.copy_records_to_table("yaoki_messages", records=[row + end for row in rows], columns=sql.COPIED)


class _KnownError(Exception):
    """An older segment has one of these messages."""
