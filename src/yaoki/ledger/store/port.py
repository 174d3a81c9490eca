"""What a database must offer to keep a ledger.

SQL here is common to SQLite and PostgreSQL, with numbered parameters (`?1`). What differs between the two is a method of
its own: appending, reading what is ready to be sealed, saying who holds sealing back, and the clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from yaoki.ledger.changes import Changes
from yaoki.ledger.epochs import Position, Row, Stretch

SqlRow = Sequence[Any]


class Tx(Protocol):
    """An open transaction."""

    async def fetch(self, sql: str, *args: Any) -> list[SqlRow]: ...

    async def execute(self, sql: str, *args: Any) -> None: ...

    async def fetch_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> list[SqlRow]:
        """The same statement once for each of these arguments, in one round trip; all results in one list."""
        ...

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None: ...

    async def append(self, changes: Changes) -> list[int]:
        """Write changes and give their versions; raises `VersionConflictError` and writes nothing if `expect` fails."""
        ...

    async def ready(self, after: Mapping[int, Position], limit: int) -> dict[int, Stretch]:
        """For each partition, at most `limit` rows after its position that no open transaction can come before."""
        ...

    async def lock_lease(self, name: str, owner: str, fence: int) -> bool:
        """Does the lease still stand? It cannot change hands before this transaction ends."""
        ...

    async def now(self) -> float:
        """Seconds since 1970 by the database's clock, which all its users share."""
        ...

    async def tell(self) -> None:
        """Wake those who wait for something to be sealed, when this transaction commits."""
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

    @property
    def heard(self) -> int:
        """How often news of a sealing was heard: read it before looking, and give it to `wait`."""
        ...

    async def wait(self, heard: int, timeout_s: float) -> None:
        """Wait until something was sealed since `heard`, by any process if the database can tell, at most so long."""
        ...

    async def held(self) -> tuple[float, str]:
        """(seconds for which committed rows have waited because an open transaction came before them, who that is)."""
        ...

    async def prepare_days(self, days: int) -> None:
        """Make room for rows of the next `days` days, where the database is divided by time."""
        ...

    async def remove(self, until: Mapping[int, Position]) -> list[str]:
        """Remove the rows of each partition up to a position; they are marked in `yaoki_ledger_pruned`.

        Returns what could not be removed yet, as sentences.
        """
        ...

    async def lowest(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        """(lowest version that is still there, newest version) of each of these keys that has any, or had."""
        ...
