"""The ledger in PostgreSQL under torture: twelve writers, transactions of any length, rollbacks, prepared transactions.

Three readers follow the same table while it is written: the sealer; the naive one (`pos > last`), which must be seen losing
rows; and one that orders by the writer's own transaction id, which must be seen turning the versions of a key around.
Otherwise the torture is too mild to prove anything.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from yaoki.ledger import Ledger
from yaoki.ledger.records import Naming

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]
WRITERS, KEYS = 12, 16


@pytest.fixture(scope="module")
def prepared_postgres() -> Iterator[Any]:
    from servers import running_postgres

    with running_postgres(settings="-c max_prepared_transactions=64") as server:
        yield server


class Torture:
    """Writers, and what they committed."""

    def __init__(self, url: str, ledger: Ledger, seconds: float) -> None:
        self.seconds = seconds
        self.writing = True
        self.url = url
        self.ledger = ledger
        self.until = 0.0
        self.committed: set[Naming] = set()
        self.ends = {"COMMIT": 0, "ROLLBACK": 0, "PREPARE": 0}
        self.rng = random.Random(11)
        self.naive: list[Naming] = []
        self.rounds = 0  # of the naive reader
        self.by_own_id: list[Naming] = []

    async def run(self) -> None:
        connection = await asyncpg.connect(self.url)
        await connection.execute("CREATE TABLE unrelated (n INT)")
        await connection.close()
        readers = [asyncio.ensure_future(each) for each in (self.seal(), self.read_naively(), self.read_by_own_id())]
        for turn in range(20):  # until the mild readers were seen failing, and there was everything that is to be borne
            self.until = time.monotonic() + self.seconds
            await asyncio.gather(*(self.write(f"{turn}-{number}") for number in range(WRITERS)))
            rounds = self.rounds
            while self.rounds < rounds + 2 and not readers[1].done():  # noqa: ASYNC110  a plain number
                await asyncio.sleep(0.01)
            if min(self.ends.values()) and self.committed - set(self.naive) and turned_around(self.by_own_id):
                break
        self.writing = False
        for each in readers:
            await each
        for _ in range(200):
            await self.ledger.seal()
            if (await self.ledger.store.held())[1] == "":  # else somebody is under way yet: the server itself, tidying up
                break
            await asyncio.sleep(0.1)
        await self.ledger.seal()

    async def write(self, writer: str) -> None:
        connection = await asyncpg.connect(self.url)
        count = 0
        while time.monotonic() < self.until:
            count += 1
            await self.one(connection, f"t{writer}-{count}")
        await connection.close()

    async def one(self, connection: Any, name: str) -> None:
        rng = self.rng
        end = rng.choices(list(self.ends), [90, 5, 5])[0]
        self.ends[end] += 1
        await connection.execute("BEGIN")
        if rng.random() < 0.5:  # the transaction's id is drawn here, and the keys are touched later
            await connection.execute("INSERT INTO unrelated VALUES (1)")
            await asyncio.sleep(rng.random() * 0.01)
        keys = sorted(f"k{rng.randrange(KEYS)}" for _ in range(rng.choice((1, 1, 2, 5))))  # in order: writers never lock in circles
        written: list[Naming] = []
        for half in (keys[:2], keys[2:]):
            async with self.ledger.tx(connection) as tx:
                written += zip(half, await tx.append_many([(key, name) for key in half]), strict=True)
            await asyncio.sleep(rng.random() * 0.005)
        if end == "PREPARE":
            await connection.execute(f"PREPARE TRANSACTION '{name}'")
            await asyncio.sleep(rng.random() * 0.03)
            await connection.execute(f"COMMIT PREPARED '{name}'")
        else:
            await connection.execute(end)
        if end != "ROLLBACK":
            self.committed.update(written)

    async def seal(self) -> None:
        while self.writing:
            await self.ledger.seal()
            await asyncio.sleep(0.005)

    async def read_naively(self) -> None:
        last = 0
        while self.writing:
            for pos, *name in await self.ledger.store.fetch(
                    "SELECT pos, key, version FROM yaoki_ledger_version WHERE pos > ?1 ORDER BY pos", last):
                self.naive.append((name[0], name[1]))
                last = pos
            self.rounds += 1
            await asyncio.sleep(0.005)

    async def read_by_own_id(self) -> None:
        """The widely copied cure: below the watermark, ordered by the writer's own transaction id (`xmin`)."""
        last = (0, 0)
        while self.writing:
            for xid, pos, *name in await self.ledger.store.fetch(
                    "SELECT xmin::text::bigint, pos, key, version FROM yaoki_ledger_version "
                    "WHERE (xmin::text::bigint, pos) > (?1, ?2) "
                    "AND xmin::text::bigint < pg_snapshot_xmin(pg_current_snapshot())::text::bigint ORDER BY 1, 2", *last):
                self.by_own_id.append((name[0], name[1]))
                last = xid, pos
            await asyncio.sleep(0.005)


def turned_around(names: list[Naming]) -> int:
    """How many versions came after a later one of their key."""
    newest: dict[str, int] = {}
    wrong = 0
    for key, version in names:
        wrong += version < newest.get(key, 0)
        newest[key] = max(version, newest.get(key, 0))
    return wrong


async def torture(server: Any, seconds: float) -> None:
    url = server.new_database()
    async with Ledger(url, partitions=4) as ledger:
        run = Torture(url, ledger, seconds)
        await run.run()
        sealed = [(each.key, each.version) async for batch in ledger.sealed() for each in batch]
        print(f"{len(run.committed)} versions committed by {WRITERS} writers {run.ends}; sealed {len(sealed)}, lost "
              f"{len(run.committed - set(sealed))}, turned around {turned_around(sealed)}; the naive reader lost "
              f"{len(run.committed - set(run.naive))}; by own id turned around {turned_around(run.by_own_id)}")
        assert set(sealed) == run.committed
        assert len(sealed) == len(run.committed), "a version was sealed twice"
        assert turned_around(sealed) == 0
        assert dict(await ledger.keys()) == {key: max(n for k, n in sealed if k == key) for key, _ in sealed}
        assert len({each for each in run.committed if each[1] == 1}) == len(await ledger.keys()), "versions begin at 1"
        assert await ledger.verify() == []
        assert min(run.ends.values()) > 0
        assert run.committed - set(run.naive), "the naive reader lost nothing: the torture was too mild"
        assert turned_around(run.by_own_id), "ordering by the own id broke nothing: the torture was too mild"


async def test_twelve_writers_lose_nothing_and_keep_the_order_of_keys(prepared_postgres: Any) -> None:
    await torture(prepared_postgres, 4.0)


@pytest.mark.long
async def test_twelve_writers_for_a_minute(prepared_postgres: Any) -> None:
    await torture(prepared_postgres, 60.0)
