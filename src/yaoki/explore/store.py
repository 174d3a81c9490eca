"""A small database for scenarios: durable, reached over the network, each operation a point.

It is what many programs lean on: a key-value table with conditional writes, transactions, and batches that may be taken in part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from yaoki.chaos.faults import At
from yaoki.errors import DeclinedError, FencedError, UsageError
from yaoki.explore import world as worlds
from yaoki.explore.dialect import OurDialect


class ConflictError(DeclinedError):
    """A conditional write found another value than it expected. `found` is that value."""

    code = "YK-1392"
    why = "Somebody else wrote in between; read again and decide again."


class Table:
    """What a store keeps: the newest value of each key, and the one before it."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.before: dict[str, Any] = {}
        self.writes = 0
        self.fence = 0

    def write(self, rows: Mapping[str, Any]) -> None:
        for key, value in rows.items():
            self.before[key] = self.rows.get(key)
            self.rows[key] = value
        self.writes += 1

    def lose_memory(self) -> None:
        """A database keeps what it acknowledged."""

    def digest(self) -> Any:
        return msgspec.json.encode((self.rows, self.before, self.fence), order="sorted", enc_hook=repr)


class FakeStore:
    """A key-value table that several processes share. Values are JSON-able and copied in and out.

    Args:
        name: its name in sites and timelines.
        timeout: seconds after which its client gives up on an answer; None: never.
    """

    def __init__(self, name: str, *, timeout: float | None = 5.0) -> None:
        self.name = name
        self.timeout = timeout

    @property
    def table(self) -> Table:
        world = universe()
        table = world.services.get(self.name)
        if table is None:
            table = world.services[self.name] = Table()
        return table

    @property
    def rows(self) -> dict[str, Any]:
        """Everything in it, without a call: for invariants."""
        return self.table.rows

    async def get(self, key: str, default: Any = None) -> Any:
        table = self.table
        return await self._ask("get", lambda: copied(table.rows.get(key, default)), kind=At.READ, keys=[key],
                               variants={"read.stale": lambda: copied(table.before.get(key, table.rows.get(key, default)))})

    async def put(self, key: str, value: Any) -> None:
        await self.put_all({key: value})

    async def put_all(self, rows: Mapping[str, Any], *, fence: int | None = None) -> None:
        """Write several keys, all or none.

        Args:
            fence: the writer's epoch. The store remembers the highest that it has seen, and refuses lower ones.

        Raises:
            FencedError: somebody with a higher epoch was here; nothing was written.
        """
        table, rows = self.table, copied(dict(rows))

        def write() -> None:
            if fence is not None:
                if fence < table.fence:
                    raise FencedError(f"{self.name}: epoch {fence} is over, {table.fence} was here", do="stop: somebody took over")
                table.fence = fence
            table.write(rows)

        await self._ask("put", write, keys=rows if fence is None else ())

    async def put_if(self, key: str, expected: Any, value: Any) -> None:
        """Write if the value is still `expected`.

        Raises:
            ConflictError: it is not; nothing was written.
        """
        table, value = self.table, copied(value)

        def write() -> None:
            found = table.rows.get(key)
            if found != expected:
                raise ConflictError(f"{self.name}: {key} is {found!r}, not {expected!r}", do="read again", found=found)
            table.write({key: value})

        await self._ask("put_if", write, keys=[key])

    async def add(self, key: str, amount: float) -> float:
        """Add to a number, atomically; a lost answer leaves it unknown whether it was added."""
        table = self.table

        def write() -> float:
            table.write({key: table.rows.get(key, 0) + amount})
            return table.rows[key]  # type: ignore[no-any-return]

        return await self._ask("add", write, keys=[key])  # type: ignore[no-any-return]

    async def put_many(self, rows: Mapping[str, Any]) -> list[str]:
        """Write several keys, each for itself, as batch requests of databases do. Returns the keys that were *not* taken: send them again."""
        table, rows = self.table, copied(dict(rows))

        def write(most: int) -> list[str]:
            taken = dict(list(rows.items())[:most])
            if taken:
                table.write(taken)
            return list(rows)[most:]

        return await self._ask("put_many", lambda: write(len(rows)), kind=At.BATCH,  # type: ignore[no-any-return]
                               variants={"call.partial": lambda: write(len(rows) // 2)})

    async def transact(self, work: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Read and write in one serializable transaction.

        Args:
            work: gets all rows, and returns those to write; raises to write nothing. It may be run again: on a retry.

        Raises:
            ConflictError: another transaction was there first; nothing was written. Do it again.
        """
        table = self.table
        await self._ask("transact", lambda: table.write(copied(dict(work(copied(table.rows))))), kind=At.SWAP)

    async def _ask(self, op: str, effect: Callable[[], Any], *, kind: At = At.CALL, variants: worlds.Variants | None = None,
                   keys: Iterable[str] = ()) -> Any:
        return await universe().call(self.name, op, effect, kind=kind, dialect=_STORE, timeout_s=self.timeout, variants=variants, keys=keys)


class _StoreDialect(OurDialect):
    def conflict(self, site: str) -> Any:
        return ConflictError(f"{site}: another transaction was there first", do="do it again", found=None)


_STORE = _StoreDialect()


def universe() -> worlds.World:
    """The universe that is running."""
    world = worlds.active()
    if world is None:
        raise UsageError("fake stores, queues, streams and files live in a universe", do="use them inside a scenario")
    return world


def copied(value: Any) -> Any:
    """What goes over a network is a copy: a change made later on one side is not seen on the other."""
    return value if isinstance(value, (str, int, float, bool, type(None))) else msgspec.json.decode(msgspec.json.encode(value))
