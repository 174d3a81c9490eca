"""What a database must offer to keep a ledger.

SQL here is common to SQLite and PostgreSQL, with numbered parameters (`?1`). What differs between the two is a method of
its own: appending, reading what is ready to be sealed, saying who holds sealing back, and the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec

from yaoki.ledger.epochs import Position, Row

SqlRow = Sequence[Any]


class NewRow(msgspec.Struct, frozen=True, gc=False):
    """One change on its way into the ledger. `expect`: the version it was made for; None: any."""

    key: str
    part: int
    content: bytes
    digest: bytes
    salt: bytes
    commitment: bytes
    schema: int = 0
    expect: int | None = None
    traceparent: str = ""


class Tx(Protocol):
    """An open transaction."""

    async def fetch(self, sql: str, *args: Any) -> list[SqlRow]: ...

    async def execute(self, sql: str, *args: Any) -> None: ...

    async def append(self, rows: Sequence[NewRow]) -> list[int]:
        """Write `rows` and give their versions; raises `VersionConflictError` and writes nothing if an `expect` fails."""
        ...

    async def ready(self, part: int, after: Position, limit: int) -> list[Row]:
        """Rows after `after` that no open transaction can come before, in commit order, without their content."""
        ...

    async def lock_lease(self, name: str, owner: str, fence: int) -> bool:
        """Does the lease still stand? It cannot change hands before this transaction ends."""
        ...

    async def now(self) -> float:
        """Seconds since 1970 by the database's clock, which all its users share."""
        ...


class Store(Protocol):
    """A database with the ledger's tables."""

    name: str

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def transaction(self, connection: Any = None) -> AbstractAsyncContextManager[Tx]:
        """A transaction of our own, or a part of the caller's: then committing is the caller's business if it began it."""
        ...

    async def fetch(self, sql: str, *args: Any) -> list[SqlRow]:
        """Read outside of any transaction."""
        ...

    async def between(self, part: int, since: Position, until: Position, *, content: bool) -> list[Row]:
        """The rows after `since` up to `until`, in commit order; with their content or without."""
        ...

    async def versions(self, key: str, first: int, last: int) -> list[SqlRow]:
        """(key, version, content, schema, written_at, traceparent) of these versions, oldest first."""
        ...

    async def position(self, key: str, version: int) -> Position:
        """Where this version stands in commit order; (0, 0) if there is none."""
        ...

    async def now(self) -> float: ...

    async def held(self) -> tuple[float, str]:
        """(seconds for which committed rows have waited because an open transaction came before them, who that is)."""
        ...

    async def prepare_days(self, days: int) -> None:
        """Make room for rows of the next `days` days, where the database is divided by time."""
        ...
