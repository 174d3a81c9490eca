"""Connections that callers bring along: whose they are, and whether a transaction is open on them."""

from __future__ import annotations

from typing import Any

from yaoki.errors import ConfigError, NoTransactionError


def driver_of(connection: Any) -> Any:
    """The driver's own connection inside what SQLAlchemy wraps around it."""
    if kind_of(connection) == "sqlalchemy":
        connection = getattr(connection, "sync_session", connection)
        connection = connection.connection() if hasattr(connection, "connection") and callable(connection.connection) else connection
        connection = getattr(connection, "sync_connection", connection)
        pooled = connection.connection
        return getattr(pooled, "driver_connection", pooled)
    return connection


def kind_of(connection: Any) -> str:
    """The package that a connection comes from: `sqlite3`, `asyncpg`, `psycopg`, `sqlalchemy`, or another's."""
    kind = type(connection)
    return "asyncpg" if kind.__name__ == "PoolConnectionProxy" else kind.__module__.partition(".")[0]


def is_async(driver: Any) -> bool:
    """Of psycopg: is it the async one?"""
    return type(driver).__name__.startswith("Async")


def no_transaction(how: str) -> NoTransactionError:
    return NoTransactionError("no transaction is open on this connection, so the message would count even if the data is not "
                              "written", do=f"write both inside one: {how}")


def unknown(driver: Any) -> ConfigError:
    kind = type(driver)
    return ConfigError(f"{kind.__module__}.{kind.__qualname__} is not a connection that messages can be written to",
                       do="give one of sqlite3, asyncpg or psycopg, or SQLAlchemy's over them; in a program without a "
                          "loop, publish_now and once take sqlite3 and psycopg")
