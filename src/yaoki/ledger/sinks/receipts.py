"""What a consumer was given, remembered in a SQLite file: for sinks that cannot be asked what they hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from yaoki.ledger.records import Batch, Naming, Record
from yaoki.ledger.store.sqlite import SqliteStore

PAGE = 2000

# The digest is part of the name: a second content under one name is a second row, and shows as corrupt. The same content
# given again, which every broker may do, is the same row.
SCHEMA = """CREATE TABLE IF NOT EXISTS yaoki_receipt (
    key TEXT NOT NULL, version INTEGER NOT NULL, digest BLOB NOT NULL, at REAL NOT NULL, PRIMARY KEY (key, version, digest))
    WITHOUT ROWID"""


class Receipts:
    """Kept in `path`; `:memory:` for a test."""

    def __init__(self, path: str) -> None:
        self._store = SqliteStore(path)

    async def open(self) -> None:
        await self._store.open()
        async with self._store.transaction() as tx:
            await tx.execute(SCHEMA)

    async def close(self) -> None:
        await self._store.close()

    async def note(self, records: Sequence[Record]) -> None:
        """Remember, durably."""
        async with self._store.transaction() as tx:
            await tx.execute_many("INSERT INTO yaoki_receipt VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING", [
                (each.key, each.version, each.digest, each.at) for each in records])

    async def listing(self) -> AsyncIterator[Batch]:
        after: tuple[str, int, bytes] = "", -1, b""
        while rows := await self._store.fetch(
                "SELECT key, version, digest, at FROM yaoki_receipt WHERE (key, version, digest) > (?1, ?2, ?3) "
                "ORDER BY key, version, digest LIMIT ?4", *after, PAGE):
            yield Batch(*(list(column) for column in zip(*rows, strict=True)))
            after = rows[-1][0], rows[-1][1], rows[-1][2]

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        return [Record(*row) for name in names for row in await self._store.fetch(
            "SELECT key, version, digest, at FROM yaoki_receipt WHERE key = ?1 AND version = ?2 ORDER BY at", *name)]

    async def forget(self, names: Sequence[Naming]) -> None:
        async with self._store.transaction() as tx:
            await tx.execute_many("DELETE FROM yaoki_receipt WHERE key = ?1 AND version = ?2", names)
