"""Publish with the data, or not at all: the event is written in the caller's own transaction.

    async with connection.transaction():
        await connection.execute("INSERT INTO orders ...")
        await outbox.publish(OrderPlaced(...), key="order-42", connection=connection)

Takes connections of sqlite3, asyncpg and psycopg (sync and async), and SQLAlchemy's connections and sessions over them.
The tables must be there: opening `Messages` on the database makes them.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from yaoki.errors import ConfigError, NoTransactionError
from yaoki.messages.compose import Key, compose_all
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
        messages = compose_all(payloads, source=self.service, key=key, **options)
        await self.write(messages, connection=connection, new=not options.get("id"))
        return messages

    def publish_now(self, *payloads: object, connection: Any, key: Key = "", **options: Any) -> list[Message]:
        """`publish` for programs without a loop: a connection of sqlite3 or psycopg, or SQLAlchemy's over them."""
        messages = compose_all(payloads, source=self.service, key=key, **options)
        driver = _driver_of(connection)
        if isinstance(driver, sqlite3.Connection):
            _into_sqlite(driver, messages)
        elif _module(driver) == "psycopg" and not _is_async(driver):
            _check_psycopg(driver)
            driver.execute(*postgres_sql.append_for_psycopg(messages, notify=self.notify))
        else:
            raise _unknown(driver)
        return messages

    async def write(self, messages: list[Message], *, connection: Any, new: bool = False) -> None:
        """Write finished messages in the open transaction. See `publish`. new: none of them can be known already."""
        driver = _driver_of(connection)
        if isinstance(driver, sqlite3.Connection):
            _into_sqlite(driver, messages)
            return
        if _module(driver) == "asyncpg":
            if not driver.is_in_transaction():
                raise _no_transaction("async with connection.transaction():")
            await _into_asyncpg(driver, messages, notify=self.notify, new=new)
        elif _module(driver) == "psycopg":
            _check_psycopg(driver)
            done = driver.execute(*postgres_sql.append_for_psycopg(messages, notify=self.notify))
            if _is_async(driver):
                await done
        else:
            raise _unknown(driver)


def _driver_of(connection: Any) -> Any:
    """The driver's own connection inside what SQLAlchemy wraps around it."""
    if _module(connection) == "sqlalchemy":
        connection = getattr(connection, "sync_session", connection)
        connection = connection.connection() if hasattr(connection, "connection") and callable(connection.connection) else connection
        connection = getattr(connection, "sync_connection", connection)
        pooled = connection.connection
        return getattr(pooled, "driver_connection", pooled)
    return connection


def _module(connection: Any) -> str:
    kind = type(connection)
    return "asyncpg" if kind.__name__ == "PoolConnectionProxy" else kind.__module__.partition(".")[0]


def _is_async(driver: Any) -> bool:
    return type(driver).__name__.startswith("Async")


async def _into_asyncpg(connection: Any, messages: list[Message], *, notify: bool, new: bool) -> None:
    from yaoki.messages.store import postgres_write  # noqa: PLC0415 (needs asyncpg, which whoever gives its connection has)

    await (postgres_write.append_new if new else postgres_write.append)(connection, messages, notify=notify)


def _into_sqlite(connection: sqlite3.Connection, messages: list[Message]) -> None:
    if connection.isolation_level is None and not connection.in_transaction:
        raise _no_transaction('connection.execute("BEGIN IMMEDIATE")')
    sqlite_sql.insert(connection, messages)


def _check_psycopg(driver: Any) -> None:
    # 0 is IDLE: with autocommit nothing would be open after the first statement.
    if driver.autocommit and driver.info.transaction_status == 0:
        raise _no_transaction("with connection.transaction():")


def _no_transaction(how: str) -> NoTransactionError:
    return NoTransactionError("no transaction is open on this connection, so the event would be published even if the "
                              "data is not written", do=f"write the data and publish inside one: {how}")


def _unknown(driver: Any) -> ConfigError:
    kind = type(driver)
    return ConfigError(f"{kind.__module__}.{kind.__qualname__} is not a connection that events can be written to",
                       do="give one of sqlite3, asyncpg or psycopg, or SQLAlchemy's over them; in a program without a "
                          "loop, publish_now takes sqlite3 and psycopg")
