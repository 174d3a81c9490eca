"""Somebody else's table as a feed: an outbox, a history table, or a table with the newest version of each thing.

    a row for each version       every (key, version) of it is expected in the sink; with a content column also repaired
    a row for each key           its version says that all versions before it existed too

Which of the two it is is read off the table: the key alone is unique, or it is not. For PostgreSQL the logical replication
slots are looked at as well: a slot that is inactive or lost is how changes are lost there.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from yaoki import runtime
from yaoki.errors import AuditError, ConfigError
from yaoki.ledger.lint import Danger
from yaoki.ledger.records import check_version
from yaoki.ledger.sources.feeds import seen
from yaoki.ledger.sources.shadow import Seen
from yaoki.text import without_password

if TYPE_CHECKING:
    from yaoki.ledger.pipelines import Pipeline
    from yaoki.ledger.sources.slot import SlotFeed

PAGE = 2000
CONTENTS = ("payload", "content", "data", "body", "event")
"""Columns taken for the content of a version, the first that is there."""


class Reader(Protocol):
    """The little that is needed of a database."""

    async def fetch(self, sql: str, *args: Any) -> list[Sequence[Any]]: ...

    async def columns(self, table: str) -> list[str]: ...

    async def dangers(self) -> list[Danger]: ...


class TableFeed:
    """A table, read by key and version."""

    def __init__(self, reader: Reader, name: str, table: str, key: str, version: str) -> None:
        self._reader = reader
        self.name = name
        self.heads = False
        self.vouches = True
        self._table = table
        self._shown = table.replace('"', "")
        self._names = key, version
        self._content = "NULL"

    async def open(self) -> None:
        """Check the table and its columns, and see which kind it is."""
        columns = await self._reader.columns(self._table)
        if not columns:
            raise AuditError(f"there is no table {self._shown} at {self.name}", do="check its name and schema, and the role's rights")
        for name in self._names:
            if name not in columns:
                raise AuditError(f"{self._shown} has no column {name}; it has {', '.join(columns)}",
                                 do="name the columns that name a version: --key and --version")
        self._content = next((f'"{name}"' for name in CONTENTS if name in columns), "NULL")
        key = self._quoted(0)
        twice = await self._reader.fetch(f"SELECT 1 FROM {self._table} GROUP BY {key} HAVING count(*) > 1 LIMIT 1")  # noqa: S608
        self.heads = not twice and self._content == "NULL"
        self.vouches = not self.heads

    def _quoted(self, which: int) -> str:
        return f'"{self._names[which]}"'

    async def read(self, place: str) -> AsyncIterator[tuple[list[Seen], str]]:
        del place  # rows may be inserted anywhere: all of them are read, a page at a time
        key, version = self._quoted(0), self._quoted(1)
        after: tuple[Any, ...] = ()
        while True:
            where = f"WHERE ({key}, {version}) > (?1, ?2)" if after else ""
            rows = await self._reader.fetch(
                f"SELECT {key}, {version}, {self._content} FROM {self._table} {where} ORDER BY {key}, {version} LIMIT {PAGE}",  # noqa: S608
                *after)
            if not rows:
                return
            now = runtime.unix_time()
            yield [seen(str(row[0]), check_version(row[1], f"column {self._names[1]} of {row[0]!r} in {self._shown}"), now,
                        _as_bytes(row[2])) for row in rows], ""
            after = rows[-1][0], rows[-1][1]

    async def settle(self, place: str) -> None:
        """A table forgets nothing."""

    async def dangers(self) -> list[Danger]:
        return await self._reader.dangers()


class SqliteReader:
    """A SQLite file, opened for reading only."""

    def __init__(self, path: str) -> None:
        try:
            self._connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        except sqlite3.OperationalError as error:
            raise AuditError(f"{path} cannot be opened: {error}", do="check the path") from error

    async def fetch(self, sql: str, *args: Any) -> list[Sequence[Any]]:
        return self._connection.execute(sql, args).fetchall()

    async def columns(self, table: str) -> list[str]:
        return [row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")]

    async def dangers(self) -> list[Danger]:
        return []

    async def close(self) -> None:
        self._connection.close()


class PostgresReader:
    """A PostgreSQL database, read with one connection."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None

    async def open(self) -> None:
        import asyncpg  # noqa: PLC0415  an extra

        try:
            self._connection = await asyncpg.connect(self._url)
        except (OSError, asyncpg.PostgresError) as error:
            shown, away = without_password(self._url), isinstance(error, OSError)
            raise AuditError(f"{shown} does not answer: {error}" if away else f"PostgreSQL does not let us in at {shown}: {error}",
                             do="start the server, or check the address" if away else "check the address and the role's rights") from error
        except ValueError as error:  # how the driver says that it cannot read the address
            raise ConfigError(f"{without_password(self._url)!r} cannot be read as an address: {error}", do="write postgresql://user@host:5432/database") from error

    async def fetch(self, sql: str, *args: Any) -> list[Sequence[Any]]:
        from yaoki.ledger.store.postgres import numbered  # noqa: PLC0415

        return [tuple(row) for row in await self._connection.fetch(numbered(sql), *args)]

    async def columns(self, table: str) -> list[str]:
        rows = await self.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(?1) AND attnum > 0 AND NOT attisdropped "
            "ORDER BY attnum", table)
        return [name for (name,) in rows]

    async def dangers(self) -> list[Danger]:
        rows = await self.fetch(
            "SELECT slot_name, active, coalesce(wal_status, ''), "
            "coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint "
            "FROM pg_replication_slots WHERE slot_type = 'logical' AND database = current_database()")
        return [danger for row in rows for danger in slot_dangers(*row)]

    async def close(self) -> None:
        await self._connection.close()


def slot_dangers(name: str, active: bool, wal_status: str, behind_bytes: int) -> list[Danger]:  # noqa: FBT001  a row of the catalogue
    """What is dangerous about a logical replication slot. Pure. Source: PostgreSQL documentation, view pg_replication_slots."""
    found: list[Danger] = []
    if wal_status in {"lost", "unreserved"}:
        found.append((f"slot_{wal_status}:{name}", (
            f"the slot {name} is {wal_status}: changes that its reader has not seen "
            f"{'are gone from the log' if wal_status == 'lost' else 'are about to be removed from the log'}")))
    if not active:
        found.append((f"slot_inactive:{name}", f"nobody reads the slot {name}, {behind_bytes} bytes of changes wait in it"))
    return found


async def open_table(pipeline: Pipeline, stack: contextlib.AsyncExitStack) -> TableFeed | SlotFeed:
    """The table that a URL names after its #, read directly, or by a replication slot if one is named."""
    address, _, table = pipeline.source.partition("#")
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", table):
        raise ConfigError(f"{table!r} is not a plain name of a table", do="write it after #: postgresql://HOST/DB#outbox")
    for name in (pipeline.key, pipeline.version):
        if '"' in name:
            raise ConfigError(f"{name!r} is not a plain name of a column", do="use the name without quotes")
    reader: SqliteReader | PostgresReader
    if address.startswith("sqlite:///"):
        reader = SqliteReader(address.removeprefix("sqlite:///"))
    else:
        reader = PostgresReader(address)
        await reader.open()
    stack.push_async_callback(reader.close)
    if pipeline.slot:
        from yaoki.ledger.sources.slot import SlotFeed  # noqa: PLC0415  it builds on this module
        if not isinstance(reader, PostgresReader):
            raise ConfigError("only PostgreSQL has replication slots", do="leave --slot out")
        by_slot = SlotFeed(reader, re.sub(r"//[^@/]*@", "//", pipeline.source), table, slot=pipeline.slot,
                           key=pipeline.key, version=pipeline.version)
        await by_slot.open()
        return by_slot
    shown = re.sub(r"//[^@/]*@", "//", pipeline.source)
    quoted = ".".join(f'"{part}"' for part in table.split("."))  # a table may be called `order`
    feed = TableFeed(reader, shown, quoted, pipeline.key, pipeline.version)
    await feed.open()
    return feed


def _as_bytes(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return str(value).encode()
