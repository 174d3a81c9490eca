"""A PostgreSQL table with one row for each version; the digest is computed by the server from what is at rest."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg

from yaoki.errors import AuditError, ConfigError, ContentConflictError
from yaoki.ledger.records import Batch, Naming, Record
from yaoki.ledger.sinks.port import Foreign

PAGE = 5000


class PostgresSink:
    """Rows of `table` (key, version, content, arrived_at), made when missing.

    Args:
        url: as libpq takes it.
        table: a name, with its schema if need be; letters, digits and underscores.
    """

    def __init__(self, url: str, table: str = "received") -> None:
        if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", table):
            raise ConfigError(f"{table!r} is not a plain name of a table", do="use letters, digits and underscores")
        self._url = url
        self._table = table
        self._pool: Any = None
        self.name = f"postgres:{re.sub(r'//[^@/]*@', '//', url)}#{table}"
        self.knows_digests = True
        self.foreign = Foreign()
        # The table's name was checked above; everything else is a parameter.
        columns = "key, version, decode(md5(content), 'hex'), extract(epoch FROM arrived_at)::float8"
        self._page = f"SELECT {columns} FROM {table} WHERE (key, version) > ($1, $2) ORDER BY key, version LIMIT {PAGE}"  # noqa: S608
        self._some = (f"SELECT {columns} FROM {table} "  # noqa: S608
                      "WHERE (key, version) IN (SELECT * FROM unnest($1::text[], $2::bigint[]))")
        self._delete = f"DELETE FROM {table} WHERE (key, version) IN (SELECT * FROM unnest($1::text[], $2::bigint[]))"  # noqa: S608
        self._insert = f"INSERT INTO {table} (key, version, content) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING 1"  # noqa: S608

    async def open(self) -> None:
        try:
            self._pool = await asyncpg.create_pool(self._url, min_size=1, max_size=8)
            await self._pool.execute(
                f'CREATE TABLE IF NOT EXISTS {self._table} (key TEXT COLLATE "C", version BIGINT, content BYTEA NOT NULL, '
                "arrived_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (key, version))")
        except (OSError, asyncpg.PostgresError) as error:
            await self.close()
            raise AuditError(f"{self.name} cannot be used: {error}", do="check the address and the role's rights") from error

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()
        self._pool = None

    async def put(self, key: str, version: int, content: bytes, digest: bytes) -> bool:
        if await self._pool.fetchval(self._insert, key, version, content):
            return True
        (there,) = await self.read([(key, version)])
        if there.digest != digest:
            raise ContentConflictError(f"{self._table} holds another content for {key} version {version}",
                                       name=f"{key}-{version}", do="compare it with the ledger's, and correct the wrong one")
        return False

    async def listing(self) -> AsyncIterator[Batch]:
        after = ("", -1)
        while rows := await self._pool.fetch(self._page, *after):
            columns = [list(column) for column in zip(*rows, strict=True)]
            yield Batch(*columns)
            after = rows[-1][0], rows[-1][1]

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        rows = await self._pool.fetch(self._some, [key for key, _ in names], [version for _, version in names])
        return [Record(*row) for row in rows]

    async def forget(self, names: Sequence[Naming]) -> None:
        await self._pool.execute(self._delete, [key for key, _ in names], [version for _, version in names])
