"""Sealing, delivery and pruning by two keepers under every fault at every commit and every put: nothing goes that somebody still needs.

The ledger is the real one on a database that outlives its processes; a commit is a point, where the disk may be full, the answer lost,
the power cut before or after it.
"""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from simulation.test_ledger_explored import StoreSink
from yaoki import runtime
from yaoki.chaos.faults import At
from yaoki.errors import FencedError, LedgerError
from yaoki.explore import Scenario, World, explore
from yaoki.explore.databases import database
from yaoki.explore.dialect import OurDialect
from yaoki.ledger import Deliverer, Ledger, prune, retention
from yaoki.ledger.retention import Holder, Mark
from yaoki.ledger.store.port import SqlRow
from yaoki.ledger.store.schema import statements
from yaoki.ledger.store.sqlite import SqliteStore, SqliteTx

WRITES = [[("a", b"a1"), ("b", b"b1")], [("a", b"a2")], [("b", b"b2"), ("a", b"a3")]]
WANTED = {"a-1", "a-2", "a-3", "b-1", "b-2"}
DURABLE = ("SELECT key, version FROM yaoki_ledger_version ORDER BY pos", "SELECT part, epoch FROM yaoki_ledger_epoch",
           "SELECT * FROM yaoki_ledger_cursor", "SELECT part, epoch FROM yaoki_ledger_pruned", "SELECT seq, reason FROM yaoki_ledger_quarantine")
KINDS = ["crash.before_effect", "call.lost_ack", "disk.full"]


def prepare(connection: sqlite3.Connection) -> None:
    connection.executescript(statements("sqlite"))


class _Disk(OurDialect):
    """What the database says of its disk."""

    def _said(self, site: str) -> Any:
        return LedgerError(f"{site}: failed", do="simulated by the explorer")

    refused = in_doubt = throttled = failed = conflict = exhausted = _said

    def timed_out(self, site: str, after_s: float) -> Any:
        return self._said(site)


class LedgerStore(SqliteStore):
    """The real statements on a database in memory; a commit that changed something is a point."""

    def __init__(self, world: World) -> None:
        super().__init__(":memory:")
        self._world = world
        self._box = database(world, "ledger", prepare=prepare, digest=DURABLE)

    async def open(self) -> None:
        self._connection = self._box.connection

    async def close(self) -> None:
        self._connection = None

    @asynccontextmanager
    async def transaction(self, connection: Any = None) -> AsyncIterator[SqliteTx]:
        assert connection is None
        async with self._box.locked(object()) as own:
            own.execute("BEGIN IMMEDIATE")
            before = self._box.digest()
            try:
                yield SqliteTx(own)
                if self._box.digest() == before:
                    own.commit()  # leases, and notes of nothing new
                else:
                    await self._world.call("ledger", "commit", own.commit, kind=At.COMMIT, dialect=_Disk(), timeout_s=None)
            finally:
                if own.in_transaction:
                    own.rollback()

    async def fetch(self, sql: str, *args: Any) -> list[SqlRow]:
        async with self._box.locked(object()) as own:
            return own.execute(sql, args).fetchall()


async def keep(world: World, owner: str) -> None:
    """Seal, deliver and prune, for ever; a supervisor starts it again when its disk fails."""
    async with Ledger(LedgerStore(world), partitions=1) as ledger:
        deliverer = Deliverer(ledger, StoreSink(), owner=owner, at_once=1)
        while True:
            try:
                await ledger.seal(owner)
                await deliverer.deliver()
                await prune(ledger, runtime.unix_time() + 1)  # everything is old enough
            except (LedgerError, FencedError) as error:
                world.note(owner, f"begins again: {error}")
            await world.sleep(1000.0 if is_over(world) else 1.0)


def is_over(world: World) -> bool:
    """Is everything written, and nothing left? Then keepers are spared the ten minutes until all is looked at."""
    return rows(world, "SELECT sum(version), (SELECT count(*) FROM yaoki_ledger_version) FROM yaoki_ledger_head") == [(len(WANTED), 0)]


def program() -> Scenario:
    async def main(world: World) -> None:
        for owner in ("one", "two"):
            world.start(owner, keep, world, owner, daemon=True)
        async with Ledger(LedgerStore(world), partitions=1) as ledger:
            for changes in WRITES:
                await write(world, ledger, changes)
                await world.sleep(0.7)
            while not is_over(world):
                await world.sleep(1.0)

    async def write(world: World, ledger: Ledger, changes: list[tuple[str, bytes]]) -> None:
        """Again, until it is written: a content says the version that it becomes."""
        while True:
            newest = dict(await ledger.keys())
            if all(newest.get(key, 0) >= int(content[1:]) for key, content in changes):
                return
            try:
                async with ledger.tx() as tx:
                    await tx.append_many(changes)
            except LedgerError:
                await world.sleep(0.3)

    def nothing_goes_that_is_needed(world: World) -> str:
        if "ledger" not in world.services:
            return ""
        kept = {f"{key}-{version}" for key, version in rows(world, "SELECT key, version FROM yaoki_ledger_version")}
        written = {f"{key}-{n}" for key, newest in rows(world, "SELECT key, version FROM yaoki_ledger_head") for n in range(1, newest + 1)}
        at_rest = world.services["archive"].rows.keys() if "archive" in world.services else set()
        gone = sorted(written - kept - at_rest)
        return f"{', '.join(gone)} went before the archive had it" if gone else ""

    def all_is_at_rest(world: World) -> str:
        found = {name: base64.b64decode(value) for name, value in world.services["archive"].rows.items()}
        return "" if found.keys() == WANTED else f"the archive holds {sorted(found)}"

    async def steady(world: World) -> None:
        async with Ledger(LedgerStore(world), partitions=1) as ledger:
            assert await ledger.verify() == []

    return Scenario(main, name="pruning", always=[nothing_goes_that_is_needed], invariants=[all_is_at_rest], steady=steady, same_answer=False,
                    timed=True, faults=KINDS)


def rows(world: World, statement: str) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = world.services["ledger"].connection.execute(statement).fetchall()
    return found


def test_whatever_fails_nothing_is_pruned_that_is_unsealed_or_not_delivered() -> None:
    report = explore(program(), faults=1, reduce=False)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted
    assert report.executions > 25


@pytest.mark.long
def test_and_under_pairs_of_faults() -> None:
    report = explore(program(), faults=2, budget=120.0, reduce=False)
    assert report.ok, report.text(matrix=False)


async def nobody(*_: object) -> list[Holder]:
    return []


async def everything(*_: object) -> Mark:
    return Mark(10_000, 10_000, (0, 10_000))


@pytest.mark.parametrize(("what", "broken"), [("_holders", nobody), ("_end", everything)], ids=["not delivered", "not sealed"])
def test_a_pruning_that_asks_too_little_is_found(monkeypatch: pytest.MonkeyPatch, what: str, broken: Any) -> None:
    monkeypatch.setattr(retention, what, broken)
    report = explore(program(), faults=1, reduce=False, most_broken=1)
    assert any("nothing_goes_that_is_needed" in signature for signature in report.signatures), report.text(matrix=False)
