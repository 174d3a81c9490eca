"""A service's own database: one SQLite file, one connection, one writer.

WAL with synchronous=FULL: what was answered is on the disk. A commit takes some 0.2 ms on an SSD, less than it costs to
wake a thread, so the services make them on their event loop.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from yaoki.errors import ConfigError


def path_of(url: str) -> Path:
    """The file of `sqlite:///relative.db` or `sqlite:////absolute.db`.

    Raises:
        ConfigError: another kind of URL.
    """
    parts = urlsplit(url)
    if parts.scheme != "sqlite" or parts.netloc or not parts.path.strip("/"):
        raise ConfigError(f"the store of a service is a URL like sqlite:///hotel.db, not {url!r}", do="give it with --store")
    return Path(unquote(parts.path[1:]))


class Store:
    """One connection to one file. Not thread-safe: it belongs to the event loop.

    Attributes:
        at_commit: called before each commit; the demo's faults put a `kill -9` there.
    """

    def __init__(self, url: str, schema: str) -> None:
        path = path_of(url)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.db = sqlite3.connect(path, isolation_level=None, timeout=10)
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.execute("PRAGMA synchronous=FULL")
            self.db.executescript(schema)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"{path} cannot be used as a database: {error}", do="name another file or folder") from error
        path.chmod(0o600)
        self.at_commit: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
            self.at_commit()
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def fill(self, table: str, columns: str, rows: Callable[[], Iterable[tuple[Any, ...]]]) -> None:
        """Fill an empty table; one that has rows is left alone."""
        if self.db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():  # noqa: S608  names from our own source
            return
        marks = ", ".join("?" * len(columns.split(",")))
        with self.transaction() as db:
            db.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows())  # noqa: S608

    def close(self) -> None:
        self.db.close()
