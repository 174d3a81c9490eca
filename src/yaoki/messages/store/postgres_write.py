"""How messages get into PostgreSQL through asyncpg: by a statement, or many at once by COPY."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from yaoki.messages.envelope import Message
from yaoki.messages.store import postgres_sql as sql

MANY = 32
"""From here on COPY is worth its second round trip: it writes a message for a third of what INSERT takes."""


async def append(connection: Any, messages: Sequence[Message], *, notify: bool = False) -> None:
    """Write messages, passing over those that are known by id and source. notify: wake the readers at commit."""
    if len(messages) >= MANY:
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
    if len(messages) >= MANY:
        await _copy(connection, messages, notify=notify)
    else:
        await connection.execute(sql.noting(sql.APPEND, notify=notify), *sql.columns_of(messages))


async def _copy(connection: Any, messages: Sequence[Message], *, notify: bool, perhaps_known: bool = False) -> None:
    """Lock the keys, then COPY. Needs a transaction, or the locks would be gone between the two."""
    place = await connection.fetchrow(sql.noting(sql.LOCK_KEYS, notify=notify), [each.key for each in messages])
    if perhaps_known and place["first"] < place["current"] and await connection.fetchval(  # of one segment its index says it
            sql.KNOWN, [each.id for each in messages], [each.source for each in messages]):
        raise _KnownError
    await connection.copy_records_to_table(
        "yaoki_messages", records=sql.records_of(messages, place["at_x"], place["current"]), columns=sql.COPIED)


class _KnownError(Exception):
    """An older segment has one of these messages."""
