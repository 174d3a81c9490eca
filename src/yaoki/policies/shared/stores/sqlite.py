"""A store in a SQLite file: for the processes of one machine. SQLite's clock is the machine's."""

from __future__ import annotations

import sqlite3
import threading

from yaoki.policies.shared.stores.port import Entry

# Seconds since 1970 with milliseconds, by SQLite itself. (`unixepoch('subsec')` would need SQLite 3.42.)
NOW = "((julianday('now') - 2440587.5) * 86400.0)"

DDL = """CREATE TABLE IF NOT EXISTS yaoki_breaker (
    service TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, expires_at REAL NOT NULL,
    PRIMARY KEY (service, kind, name)
) WITHOUT ROWID"""


class SqliteStore:
    """Rows in one table of a file of its own, or of yours."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2.0)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(DDL)

    def put(self, service: str, kind: str, name: str, value: bytes, ttl_s: float) -> None:
        self._run(f"INSERT INTO yaoki_breaker VALUES (?, ?, ?, ?, {NOW} + ?) ON CONFLICT DO UPDATE SET"
                  " value = excluded.value, expires_at = excluded.expires_at", service, kind, name, value, ttl_s)

    def remove(self, service: str, kind: str, name: str) -> None:
        self._run("DELETE FROM yaoki_breaker WHERE service = ? AND kind = ? AND name = ?", service, kind, name)

    def acquire(self, service: str, name: str, owner: str, ttl_s: float) -> bool:
        won = self._run(f"INSERT INTO yaoki_breaker VALUES (?, 'lease', ?, ?, {NOW} + ?) ON CONFLICT DO UPDATE SET"
                        " value = excluded.value, expires_at = excluded.expires_at"
                        f" WHERE value = excluded.value OR expires_at <= {NOW} RETURNING 1", service, name, owner.encode(), ttl_s)
        return bool(won)

    def rows(self, service: str = "") -> list[Entry]:
        found = self._run(f"SELECT service, kind, name, value, expires_at - {NOW} AS left_s FROM yaoki_breaker"
                          f" WHERE ? IN ('', service) AND expires_at > {NOW} ORDER BY service, kind, name", service)
        return [Entry(*row) for row in found]

    def _run(self, sql: str, *values: object) -> list[tuple[str, str, str, bytes, float]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def close(self) -> None:
        with self._lock:
            self._db.close()
