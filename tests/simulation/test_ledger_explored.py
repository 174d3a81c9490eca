"""Delivery and audit under every fault at every point, and every pair, in the explorer's virtual time.

The ledger is a real SQLite database that survives power cuts; the sink is a store over the network whose answers get lost,
come late, or say no, and the program dies between any two of its calls.
"""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import AsyncIterator, Sequence
from weakref import WeakKeyDictionary

from yaoki import runtime
from yaoki.errors import ContentConflictError
from yaoki.explore import ConflictError, FakeStore, Scenario, World, explore
from yaoki.ledger import Deliverer, Ledger, Rules, Watch
from yaoki.ledger.fingerprint import content_digest
from yaoki.ledger.records import Batch, Naming, Record
from yaoki.ledger.sinks.port import Foreign
from yaoki.ledger.sources.ledger import LedgerSource
from yaoki.ledger.store.schema import statements
from yaoki.ledger.store.sqlite import SqliteStore

CHANGES = [("a", b"a1"), ("b", b"b1"), ("a", b"a2"), ("a", b"a3")]
WANTED = {"a-1": b"a1", "b-1": b"b1", "a-2": b"a2", "a-3": b"a3"}
RULES = Rules(slo_s=5, beat_every_s=5, seal_every_s=1, hold_s=0, audit_every_s=5, listing_s=1, clock_error_s=0)

databases: WeakKeyDictionary[World, sqlite3.Connection] = WeakKeyDictionary()


class Durable(SqliteStore):
    """A database that outlives the process: a power cut takes only what was not committed."""

    def __init__(self, world: World) -> None:
        super().__init__(":memory:")
        self._world = world

    async def open(self) -> None:
        connection = databases.get(self._world)
        if connection is None:
            connection = databases[self._world] = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            connection.executescript(statements("sqlite"))
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        self._connection = connection
        self._worker = runtime.worker("ledger")

    async def close(self) -> None:
        self._connection = self._worker = None


class StoreSink:
    """A sink over a `FakeStore`, which takes a name once by a conditional write."""

    name = "store"
    knows_digests = True

    def __init__(self, *, careless: bool = False) -> None:
        self.foreign = Foreign()
        self.store = FakeStore("archive")
        self._careless = careless

    async def put(self, key: str, version: int, content: bytes, digest: bytes) -> bool:
        name, value = f"{key}-{version}", base64.b64encode(content).decode()
        try:
            await self.store.put_if(name, None, value)
        except ConflictError as error:
            if error.found != value:
                raise ContentConflictError(f"{name} holds another content", name=name) from error
            return False
        except Exception:
            if not self._careless:
                raise  # nobody knows: it goes again
        return True

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        rows = self.store.rows
        return [Record(key, version, content_digest(base64.b64decode(rows[f"{key}-{version}"])), 0.0) for key, version in names
                if f"{key}-{version}" in rows]

    async def listing(self) -> AsyncIterator[Batch]:
        names = [(key, int(version)) for key, _, version in (name.rpartition("-") for name in self.store.rows)]
        yield Batch.of(await self.read(names))

    async def forget(self, names: Sequence[Naming]) -> None: ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...


def program(*, careless: bool = False) -> Scenario:
    async def main(world: World) -> None:
        async with Ledger(Durable(world), partitions=1) as ledger:
            if not await ledger.keys():
                async with ledger.tx() as tx:
                    await tx.append_many(CHANGES)
            await ledger.seal("worker")
            deliverer = Deliverer(ledger, StoreSink(careless=careless), owner="worker", at_once=1)
            while await deliverer.backlog() or await ledger.store.fetch("SELECT 1 FROM yaoki_ledger_quarantine"):
                await deliverer.deliver()
                await runtime.sleep(1)

    def in_order(world: World) -> str:
        rows = world.services["archive"].rows if "archive" in world.services else {}
        versions = [n for n in (1, 2, 3) if f"a-{n}" in rows]
        return "" if versions == list(range(1, len(versions) + 1)) else f"versions of a arrived out of order: {versions}"

    def nothing_lost(world: World) -> str:
        rows = {name: base64.b64decode(value) for name, value in world.services["archive"].rows.items()}
        return "" if rows == WANTED else f"the archive holds {sorted(rows)}"

    async def steady(world: World) -> None:
        """The audit, run when all is over, agrees with the truth: it names what is missing, and only that."""
        async with Ledger(Durable(world), partitions=1) as ledger:
            watch = Watch(ledger.store, LedgerSource(ledger), StoreSink(), RULES)
            await watch.look(whole=True)
            named = {f"{each.key}-{each.version}" for each in watch.auditor.book.open_ones() if each.version >= 0}
            assert named == WANTED.keys() - world.services["archive"].rows.keys()

    return Scenario(main, name="delivery", invariants=[nothing_lost], always=[in_order], steady=steady, same_answer=False)


def test_every_fault_and_every_pair_of_delivery_ends_with_everything_at_rest() -> None:
    report = explore(program(), faults=2, most=250)
    assert report.ok, report.text(matrix=False)
    assert report.executions > 50


def test_a_sink_that_takes_every_answer_for_a_yes_is_caught() -> None:
    report = explore(program(careless=True), faults=1)
    assert not report.ok
    assert "the archive holds" in report.text(matrix=False)
    assert "named ==" not in report.text(matrix=False), "and the audit named exactly what it lost"
