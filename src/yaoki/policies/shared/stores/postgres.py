"""A store in PostgreSQL: one table, the server's clock, one statement a method."""

from __future__ import annotations

import threading
from typing import Any

import psycopg

from yaoki.policies.shared.stores.port import Entry

# CREATE TABLE IF NOT EXISTS is not safe against itself: two who start at once can both find nothing, and one fails.
LOCK = "SELECT pg_advisory_xact_lock(hashtext('yaoki_breaker'))"
DDL = """CREATE TABLE IF NOT EXISTS yaoki_breaker (
    service text NOT NULL, kind text NOT NULL, name text NOT NULL, value bytea NOT NULL, expires_at timestamptz NOT NULL,
    PRIMARY KEY (service, kind, name))"""

PUT = """INSERT INTO yaoki_breaker VALUES (%s, %s, %s, %s, clock_timestamp() + %s * interval '1 second')
    ON CONFLICT (service, kind, name) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at"""

ACQUIRE = PUT + " WHERE yaoki_breaker.value = excluded.value OR yaoki_breaker.expires_at <= clock_timestamp() RETURNING 1"

ROWS = """SELECT service, kind, name, value, extract(epoch FROM expires_at - clock_timestamp())::float8 FROM yaoki_breaker
    WHERE %s IN ('', service) AND expires_at > clock_timestamp() ORDER BY service, kind, name"""


class PostgresStore:
    """Rows in `yaoki_breaker`, made when it is missing. The connection is made again when it was lost."""

    def __init__(self, url: str, *, timeout_s: int = 2) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None

    def put(self, service: str, kind: str, name: str, value: bytes, ttl_s: float) -> None:
        self._run(PUT, service, kind, name, value, ttl_s)

    def remove(self, service: str, kind: str, name: str) -> None:
        self._run("DELETE FROM yaoki_breaker WHERE service = %s AND kind = %s AND name = %s", service, kind, name)

    def acquire(self, service: str, name: str, owner: str, ttl_s: float) -> bool:
        return bool(self._run(ACQUIRE, service, "lease", name, owner.encode(), ttl_s))

    def rows(self, service: str = "") -> list[Entry]:
        return [Entry(row[0], row[1], row[2], bytes(row[3]), row[4]) for row in self._run(ROWS, service)]

    def _run(self, sql: str, *values: Any) -> list[Any]:
        with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(self._url, autocommit=True, connect_timeout=self._timeout_s,
                                                   options=f"-c statement_timeout={self._timeout_s * 1000}")
                with self._connection.transaction():
                    self._connection.execute(LOCK)
                    self._connection.execute(DDL)
            try:
                cursor = self._connection.execute(sql.encode(), values)
                return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                self._connection.close()  # the next call makes a new one
                raise

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
