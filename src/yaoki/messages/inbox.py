"""Marks foreign messages as done, in the transaction of their effect: for consumers that are not handlers of Yaoki.

    with connection:                                     # sqlite3; with psycopg: connection.transaction()
        if inbox.once("stripe", event["id"], connection=connection):
            ...                                          # the effect, in this transaction

    async with connection.transaction():                 # asyncpg, psycopg
        if await inbox.once_async("stripe", event["id"], connection=connection): ...

Two who have the same message at once: the second waits for the first to commit, and is told that it was done.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from yaoki import runtime
from yaoki.messages.drivers import driver_of, is_async, kind_of, no_transaction, unknown

CREATE = """CREATE TABLE IF NOT EXISTS yaoki_inbox (
    reader TEXT NOT NULL, source TEXT NOT NULL, id TEXT NOT NULL, at REAL NOT NULL, UNIQUE (reader, source, id))"""
MARK_SQLITE = "INSERT INTO yaoki_inbox (reader, source, id, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
# Ten for each new one, so that a table that is in use gets no longer than it must; on PostgreSQL those that nobody else forgets
# just now, or each transaction would wait for the one before it.
FORGET_SQLITE = "DELETE FROM yaoki_inbox WHERE rowid IN (SELECT rowid FROM yaoki_inbox WHERE reader = ? AND at < ? LIMIT 10)"
MARK = "INSERT INTO yaoki_inbox (reader, source, id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING true"
FORGET = """DELETE FROM yaoki_inbox WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM yaoki_inbox WHERE reader = $1 AND at < now() - make_interval(secs => $2) LIMIT 10 FOR UPDATE SKIP LOCKED))"""


class Inbox:
    """The marks of one reader. On PostgreSQL the table must be there: opening `Messages` on the database makes it.

    Args:
        reader: each reader has its own marks.
        keep_s: how long a mark is kept; a repetition after that is taken for new. Declare more than the sender's.
    """

    def __init__(self, reader: str, *, keep_s: float = 30 * 86_400) -> None:
        self.reader = reader
        self.keep_s = keep_s

    def once(self, source: str, id: str, *, connection: Any) -> bool:  # noqa: A002
        """True the first time; False when this message was done in an earlier transaction.

        Args:
            connection: of sqlite3 or psycopg, or SQLAlchemy's over them, in a transaction.

        Raises:
            NoTransactionError: it commits every statement by itself.
        """
        driver = driver_of(connection)
        if isinstance(driver, sqlite3.Connection):
            return self._in_sqlite(driver, source, id)
        if kind_of(driver) != "psycopg" or is_async(driver):
            raise unknown(driver)
        _check(driver)
        new = driver.execute(_for_psycopg(MARK), (self.reader, source, id)).fetchone()
        driver.execute(_for_psycopg(FORGET), (self.reader, self.keep_s))
        return new is not None

    async def once_async(self, source: str, id: str, *, connection: Any) -> bool:  # noqa: A002
        """The same for connections of asyncpg and async psycopg, SQLAlchemy's over them, and those that `once` takes."""
        driver = driver_of(connection)
        if kind_of(driver) == "asyncpg":
            if not driver.is_in_transaction():
                raise no_transaction("async with connection.transaction():")
            row = await driver.fetchval(MARK, self.reader, source, id)
            await driver.execute(FORGET, self.reader, self.keep_s)
            return bool(row)
        if kind_of(driver) != "psycopg" or not is_async(driver):
            return self.once(source, id, connection=driver)
        _check(driver)
        found = await (await driver.execute(_for_psycopg(MARK), (self.reader, source, id))).fetchone()
        await driver.execute(_for_psycopg(FORGET), (self.reader, self.keep_s))
        return found is not None

    def _in_sqlite(self, connection: sqlite3.Connection, source: str, id_: str) -> bool:
        if connection.isolation_level is None and not connection.in_transaction:
            raise no_transaction('connection.execute("BEGIN IMMEDIATE")')
        now = runtime.unix_time()
        connection.execute(CREATE)
        done = connection.execute(MARK_SQLITE, (self.reader, source, id_, now))
        connection.execute(FORGET_SQLITE, (self.reader, now - self.keep_s))
        return done.rowcount == 1


def _check(driver: Any) -> None:
    if driver.autocommit and driver.info.transaction_status == 0:  # IDLE: nothing would be open after the first statement
        raise no_transaction("with connection.transaction():")


def _for_psycopg(statement: str) -> str:
    return statement.replace("$1", "%s").replace("$2", "%s").replace("$3", "%s")
