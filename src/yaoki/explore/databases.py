"""A SQLite database in memory that outlives its processes: what was committed is there after a power cut, and nothing else is.

    process one ──┐                    ┌── holder dies in a transaction: rolled back by whoever comes next
    process two ──┴── one connection ──┘

The real statements of the real stores run on it; only the file and its threads are left out. Sharing a connection needs a lock that
a power cut frees, as the operating system frees a dead process's lock on a file.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from weakref import finalize

from yaoki.explore.process import Life, owner
from yaoki.explore.world import World
from yaoki.messages.store.bell import Bell

# How often one who waits for the lock looks whether its holder has died, in seconds.
LOOK_S = 0.01

_templates: dict[str, bytes] = {}


class Database:
    """One database of one universe.

    Args:
        name: in sites and timelines.
        prepare: makes the tables, in a fresh database; called once a program, not once a universe.
        digest: statements whose rows say what is durable, without times and leases: what a later run could depend on.
    """

    def __init__(self, world: World, name: str, *, prepare: Callable[[sqlite3.Connection], object], digest: Sequence[str]) -> None:
        self.world = world
        self.name = name
        self.connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)
        self.connection.deserialize(_template(prepare))
        finalize(self, self.connection.close)
        self.bell = Bell()
        self._digest = tuple(digest)
        self._holder: tuple[object, Life | None] | None = None
        self._state = (-1, b"")

    def lose_memory(self) -> None:
        """A database keeps what it committed."""

    def digest(self) -> bytes:
        """What is durable. Asked at every point, so it is only made again when something has been written."""
        changes = self.connection.total_changes
        if self._state[0] != changes:
            rows = [self.connection.execute(statement).fetchall() for statement in self._digest]
            self._state = changes, hashlib.blake2b(repr(rows).encode(), digest_size=16).digest()
        return self._state[1]

    @asynccontextmanager
    async def locked(self, who: object) -> AsyncIterator[sqlite3.Connection]:
        """The connection, for one at a time. A holder without power does not count."""
        while self._holder is not None and (self._holder[1] is None or self._holder[1].alive):  # noqa: ASYNC110  a dead holder rings no bell
            await asyncio.sleep(LOOK_S)
        if self.connection.in_transaction:
            self.connection.rollback()
        self._holder = (who, owner.get())
        try:
            yield self.connection
        finally:
            if self._holder is not None and self._holder[0] is who:
                self._holder = None


def _template(prepare: Callable[[sqlite3.Connection], object]) -> bytes:
    """A database with its tables, as bytes: copying them is ten times quicker than making them."""
    name = f"{prepare.__module__}.{prepare.__qualname__}"
    if name not in _templates:
        fresh = sqlite3.connect(":memory:", isolation_level=None)
        prepare(fresh)
        _templates[name] = fresh.serialize()
        fresh.close()
    return _templates[name]


def database(world: World, name: str, **settings: Any) -> Database:
    """The database of that name in this universe, made when it is first asked for."""
    found: Database | None = world.services.get(name)
    if found is None:
        found = world.services[name] = Database(world, name, **settings)
    return found
