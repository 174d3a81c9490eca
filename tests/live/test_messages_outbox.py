"""The outbox under torture: many writers, transactions of any length, rollbacks, prepared transactions.

Three readers follow the same table: ours; the naive one (`id > last`), which must be seen losing rows; and one that orders
by the writer's own transaction id, which must be seen turning a key's messages around. Otherwise the torture is too mild.
"""

from __future__ import annotations

import asyncio
import random
import time

import asyncpg
import pytest

from contracts.messages_world import Placed, Recorder, service, stored, until
from yaoki import events
from yaoki.messages import Message, Outbox
from yaoki.messages.envelope import PARTS

pytestmark = pytest.mark.live
WRITERS = 12


@pytest.fixture(scope="module")
def prepared_postgres():
    from servers import running_postgres

    with running_postgres(settings="-c max_prepared_transactions=64") as server:
        yield server


class Torture:
    """Writers that publish numbered messages of a few keys, and remember which committed, key by key in order.

    prepares: does the server take prepared transactions?
    """

    def __init__(self, url: str, seconds: float, *, prepares: bool = True) -> None:
        self.ends = ["commit", "rollback", "prepare"] if prepares else ["commit", "rollback", "commit"]
        self.url = url
        self.until = time.monotonic() + seconds
        self.committed: dict[str, list[str]] = {}
        self.rolled_back = 0
        self.prepared = 0
        self.rng = random.Random(7)

    async def write(self, number: int) -> None:
        connection = await asyncpg.connect(self.url)
        outbox = Outbox(f"writer-{number}", notify=False)
        try:
            while time.monotonic() < self.until:
                await self.one(connection, outbox)
        finally:
            await connection.close()

    async def one(self, connection, outbox) -> None:
        rng = self.rng
        end = rng.choices(self.ends, [90, 5, 5])[0]
        key = f"k{rng.randrange(8)}"
        await connection.execute("BEGIN")
        early = rng.random() < 0.5
        if early:
            # The transaction draws its id here, and touches the key later: what breaks ordering by the own id.
            await connection.execute("INSERT INTO other VALUES (1)")
            await asyncio.sleep(rng.random() * 0.01)
        # `is_in_transaction` knows transactions by protocol, so plain BEGIN is seen as well.
        (message,) = await outbox.publish(Placed(0), key=key, connection=connection)
        await asyncio.sleep(rng.random() * 0.01)
        if end == "rollback":
            await connection.execute("ROLLBACK")
            self.rolled_back += 1
            return
        # The key is locked until the commit, so this order is the order of the commits.
        self.committed.setdefault(key, []).append(message.id)
        if end == "commit":
            await connection.execute("COMMIT")
        else:
            self.prepared += 1
            name = f"p{message.id}"
            await connection.execute(f"PREPARE TRANSACTION '{name}'")
            await asyncio.sleep(rng.random() * 0.03)
            await connection.execute(f"COMMIT PREPARED '{name}'")


class Naive:
    """`WHERE pos > last ORDER BY pos`, as it is often written."""

    def __init__(self) -> None:
        self.last, self.seen = 0, set()

    async def step(self, connection) -> None:
        for row in await connection.fetch("SELECT pos, id FROM yaoki_messages WHERE pos > $1 ORDER BY pos", self.last):
            self.last = row["pos"]
            self.seen.add(row["id"])


async def follow(url: str, store, seen: list[tuple[str, str]], naive: Naive, done: asyncio.Event) -> None:
    connection = await asyncpg.connect(url)
    after = dict.fromkeys(range(PARTS), (0, 0))
    try:
        while True:
            last_round = done.is_set()
            await naive.step(connection)
            page = await store.read(None, after, 500)
            after |= page.read_to
            seen += [(entry.message.key, entry.message.id) for entry in page.entries]
            if last_round and not page.more:
                return
            await asyncio.sleep(0.001)
    finally:
        await connection.close()


@pytest.mark.parametrize("seconds", [4.0, pytest.param(60.0, marks=pytest.mark.long)])
async def test_no_committed_message_is_skipped_and_no_key_turned_around(prepared_postgres, seconds):
    url = prepared_postgres.new_database()
    async with stored(url) as store:
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE other (n integer)")
        torture, naive, done = Torture(url, seconds), Naive(), asyncio.Event()
        seen: list[tuple[str, str]] = []
        reader = asyncio.create_task(follow(url, store, seen, naive, done))
        await asyncio.gather(*(torture.write(number) for number in range(WRITERS)))
        done.set()
        await reader
        rows = await connection.fetch("SELECT id, key FROM yaoki_messages ORDER BY xmin::text::bigint, pos")
        await connection.close()

    all_ids = {id_ for ids in torture.committed.values() for id_ in ids}
    assert len(all_ids) > 200
    assert torture.rolled_back
    assert torture.prepared
    assert {id_ for _, id_ in seen} == all_ids
    assert len(seen) == len(all_ids), "something came twice"
    for key, ids in torture.committed.items():
        assert [id_ for each, id_ in seen if each == key] == ids

    lost = all_ids - naive.seen
    by_own_id = sum(order(rows, key) != ids for key, ids in torture.committed.items())
    print(f"\n{len(all_ids)} committed, {torture.rolled_back} rolled back, {torture.prepared} prepared: ours lost 0 and turned "
          f"0 keys; the naive reader lost {len(lost)}; ordering by the own transaction id turned {by_own_id} keys of 8")
    assert lost, "the naive reader lost nothing: this torture proves nothing"
    assert by_own_id, "ordering by the own transaction id turned nothing: this torture proves nothing"


def order(rows, key: str) -> list[str]:
    return [row["id"] for row in rows if row["key"] == key]


async def test_a_held_watermark_is_reported_with_who_holds_it(prepared_postgres, monkeypatch):
    monkeypatch.setattr("yaoki.messages.store.postgres.GUARD_S", 0.4)
    url = prepared_postgres.new_database()
    held: list[events.ReadingHeld] = []
    with events.listen(held.append, kinds=(events.ReadingHeld,)):
        async with stored(url) as store:
            writer = await asyncpg.connect(url)
            await writer.execute("CREATE TABLE other (n integer)")
            await writer.execute("BEGIN; INSERT INTO other VALUES (4711)")
            await store.append([Message(id="1", source="s", type="T", time=1.0)])
            await until(lambda: held)
            assert (await store.read(None, dict.fromkeys(range(PARTS), (0, 0)), 10)).entries == []
            await writer.execute("PREPARE TRANSACTION 'forgotten'")
            await until(lambda: any("forgotten" in each.holder for each in held))
            await writer.execute("COMMIT PREPARED 'forgotten'")
            assert len((await store.read(None, dict.fromkeys(range(PARTS), (0, 0)), 10)).entries) == 1
            await writer.close()
    assert "INSERT INTO other VALUES (4711)" in held[0].holder
    assert "process" in held[0].holder


async def test_publishing_goes_with_psycopg_and_sqlalchemy_too(postgres, tmp_path):
    import psycopg
    import sqlalchemy

    url = postgres.new_database()
    outbox = Outbox("shop")
    app, saw = service(url), Recorder()

    @app.on(Placed)
    async def take(placed: Placed, message: Message):
        saw.note(message.source, placed.n)

    async with app:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            await outbox.publish(Placed(1), key="k", connection=connection)
        with psycopg.connect(url) as connection:
            outbox.publish_now(Placed(2), key="k", connection=connection)
        engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection:
            outbox.publish_now(Placed(3), key="k", connection=connection)
        with engine.connect() as connection:
            outbox.publish_now(Placed(4), connection=connection)
            connection.rollback()
        engine.dispose()
        await until(lambda: len(saw.seen) == 3)
    assert saw.by_key == {"shop": [1, 2, 3]}


