"""Publish with the data, or not at all: the event is written in the caller's own transaction.

    async with connection.transaction():
        await connection.execute("INSERT INTO orders ...")
        await outbox.publish(OrderPlaced(...), key="order-42", connection=connection)

Takes connections of sqlite3, asyncpg and psycopg (sync and async), and SQLAlchemy's connections and sessions over them.
The tables must be there: opening `Messages` on the database makes them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Any

from yaoki.messages.compose import Key, compose_all
from yaoki.messages.drivers import driver_of, is_async, kind_of, no_transaction, unknown
from yaoki.messages.envelope import Message
from yaoki.messages.store import postgres_sql, sqlite_sql


class Outbox:
    """Writes events into the transactions of its callers.

    Args:
        service: the name under which they are published.
        notify: wake readers on PostgreSQL at commit. Its NOTIFY takes a lock that all databases of the server share
            while it commits, so a server with thousands of commits a second may prefer False: readers then look once
            a second.
    """

    def __init__(self, service: str, *, notify: bool = True) -> None:
        self.service = service
        self.notify = notify

    async def publish(self, *payloads: object, connection: Any, key: Key = "", **options: Any) -> list[Message]:
        """Write `payloads` in the transaction that is open on `connection`, in this order.

        Args:
            key: they are handled in order with others of this key; or a function from the payload to its key.
            options: `due` (seconds since 1970), `headers`, `correlation`, `id` (of a single one).

        Raises:
            NoTransactionError: the connection commits every statement by itself.
            InputError: a payload cannot be written as JSON.
        """
        driver, new = driver_of(connection), not options.get("id")
        if new and len(payloads) >= postgres_sql.MANY and kind_of(driver) == "asyncpg":
            return await self._make_and_write(payloads, driver, key, options)
        messages = compose_all(payloads, source=self.service, key=key, **options)
        await self.write(messages, connection=connection, new=new)
        return messages

    async def _make_and_write(self, payloads: Sequence[object], driver: Any, key: Key, options: dict[str, Any]) -> list[Message]:
        """Many messages through asyncpg: made while the server locks their keys."""
        from yaoki.messages.store import postgres_write  # noqa: PLC0415 (needs asyncpg, which whoever gives its connection has)

        _check_asyncpg(driver)
        keys = [key] * len(payloads) if isinstance(key, str) else [key(each) for each in payloads]
        given = iter(keys)
        make = partial(compose_all, payloads, source=self.service, key=lambda _: next(given), **options)
        return await postgres_write.append_made(driver, keys, make, notify=self.notify)

    def publish_now(self, *payloads: object, connection: Any, key: Key = "", **options: Any) -> list[Message]:
        """`publish` for programs without a loop: a connection of sqlite3 or psycopg, or SQLAlchemy's over them."""
        messages = compose_all(payloads, source=self.service, key=key, **options)
        driver = driver_of(connection)
        if isinstance(driver, sqlite3.Connection):
            _into_sqlite(driver, messages)
        elif kind_of(driver) == "psycopg" and not is_async(driver):
            _check_psycopg(driver)
            driver.execute(*postgres_sql.append_for_psycopg(messages, notify=self.notify))
        else:
            raise unknown(driver)
        return messages

    async def write(self, messages: list[Message], *, connection: Any, new: bool = False) -> None:
        """Write finished messages in the open transaction. See `publish`. new: none of them can be known already."""
        driver = driver_of(connection)
        if isinstance(driver, sqlite3.Connection):
            _into_sqlite(driver, messages)
            return
        if kind_of(driver) == "asyncpg":
            _check_asyncpg(driver)
            await _into_asyncpg(driver, messages, notify=self.notify, new=new)
        elif kind_of(driver) == "psycopg":
            _check_psycopg(driver)
            done = driver.execute(*postgres_sql.append_for_psycopg(messages, notify=self.notify))
            if is_async(driver):
                await done
        else:
            raise unknown(driver)


async def _into_asyncpg(connection: Any, messages: list[Message], *, notify: bool, new: bool) -> None:
    from yaoki.messages.store import postgres_write  # noqa: PLC0415 (needs asyncpg, which whoever gives its connection has)

    await (postgres_write.append_new if new else postgres_write.append)(connection, messages, notify=notify)


def _into_sqlite(connection: sqlite3.Connection, messages: list[Message]) -> None:
    if connection.isolation_level is None and not connection.in_transaction:
        raise no_transaction('connection.execute("BEGIN IMMEDIATE")')
    sqlite_sql.insert(connection, messages)


def _check_asyncpg(driver: Any) -> None:
    if not driver.is_in_transaction():
        raise no_transaction("async with connection.transaction():")


def _check_psycopg(driver: Any) -> None:
    # 0 is IDLE: with autocommit nothing would be open after the first statement.
    if driver.autocommit and driver.info.transaction_status == 0:
        raise no_transaction("with connection.transaction():")
