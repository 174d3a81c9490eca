"""The one table, and its statements in the three ways that drivers write parameters."""

from __future__ import annotations

import re
from typing import Any

from yaoki.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
COLUMNS = "key, state, request, answer, undo_answer, at"


class Statements:
    """The SQL for one table and one way to write parameters.

    Args:
        table: its name, with a schema or without; letters, digits and underscores.
        style: `qmark` (sqlite3), `format` (psycopg) or `numeric` (asyncpg).
    """

    def __init__(self, table: str, style: str) -> None:
        if not _NAME.fullmatch(table):
            raise ConfigError(f"table must be letters, digits and underscores, and is {table!r}", do="name it like yaoki_effects")
        # The name is checked above and cannot be a parameter; every value is one.
        lock = "" if style == "qmark" else " FOR UPDATE"
        at = "REAL" if style == "qmark" else "DOUBLE PRECISION"
        self.create = (
            f"CREATE TABLE IF NOT EXISTS {table} (key TEXT PRIMARY KEY, state TEXT NOT NULL, request TEXT NOT NULL, "
            f"answer TEXT NOT NULL, undo_answer TEXT NOT NULL, at {at} NOT NULL)"
            + (" WITHOUT ROWID" if style == "qmark" else ""))
        self.claim = _with_parameters(style, f"INSERT INTO {table} ({COLUMNS}) VALUES (?, ?, ?, 'null', 'null', ?) "  # noqa: S608
                                             "ON CONFLICT (key) DO NOTHING RETURNING key")
        self.select = _with_parameters(style, f"SELECT {COLUMNS} FROM {table} WHERE key = ?{lock}")  # noqa: S608
        self.peek = _with_parameters(style, f"SELECT {COLUMNS} FROM {table} WHERE key = ?")  # noqa: S608
        self.done = _with_parameters(style, f"UPDATE {table} SET state = ?, answer = ?, at = ? WHERE key = ?")  # noqa: S608
        self.undone = _with_parameters(style, f"UPDATE {table} SET state = 'undone', undo_answer = ?, at = ? WHERE key = ?")  # noqa: S608
        self.purge = _with_parameters(style, f"DELETE FROM {table} WHERE key IN (SELECT key FROM {table} WHERE at < ? LIMIT ?)")  # noqa: S608
        self.try_lock = _with_parameters(style, "SELECT pg_try_advisory_xact_lock(hashtextextended(?, 0))")


def style_of(connection: Any) -> str:
    """How this connection's driver writes parameters.

    Raises:
        ConfigError: the driver is not known.
    """
    driver = type(connection).__module__.partition(".")[0]
    styles = {"sqlite3": "qmark", "psycopg": "format", "asyncpg": "numeric"}
    # A pool's connection is a proxy of the driver's own; a user's subclass names another module.
    for kind in type(connection).__mro__:
        found = styles.get(kind.__module__.partition(".")[0])
        if found:
            return found
    raise ConfigError(f"connections of {driver!r} are not known", do="name the way it writes parameters: "
                      "style='qmark' (SQLite), 'format' (psycopg and other DB-API drivers of PostgreSQL) or 'numeric' (asyncpg)")


def _with_parameters(style: str, sql: str) -> str:
    if style == "qmark":
        return sql
    parts = sql.split("?")
    if style == "format":
        return "%s".join(parts)
    if style == "numeric":
        return parts[0] + "".join(f"${number}{part}" for number, part in enumerate(parts[1:], start=1))
    raise ConfigError(f"style must be qmark, format or numeric, and is {style!r}", do="leave it out for sqlite3, psycopg and asyncpg")
