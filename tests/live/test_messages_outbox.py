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
from yaoki.errors import InputError, NoTransactionError
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
        self.last, self.seen, self.rounds = 0, set(), 0

    async def step(self, connection) -> None:
        for row in await connection.fetch("SELECT pos, id FROM yaoki_messages WHERE pos > $1 ORDER BY pos", self.last):
            self.last = row["pos"]
            self.seen.add(row["id"])
        self.rounds += 1


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
        for _ in range(20):  # until the mild readers were seen failing, and everything has happened that is to be borne
            await asyncio.gather(*(torture.write(number) for number in range(WRITERS)))
            rounds = naive.rounds
            await until(lambda: reader.done() or naive.rounds > rounds + 1, timeout=100)  # noqa: B023  awaited in the same turn
            rows = await connection.fetch("SELECT id, key FROM yaoki_messages ORDER BY xmin::text::bigint, pos")
            all_ids = {id_ for ids in torture.committed.values() for id_ in ids}
            lost = all_ids - naive.seen
            by_own_id = sum(order(rows, key) != ids for key, ids in torture.committed.items())
            if lost and by_own_id and torture.rolled_back and torture.prepared and len(all_ids) > 200:
                break
            torture.until = time.monotonic() + seconds
        done.set()
        await reader
        await connection.close()

    assert len(all_ids) > 200
    assert torture.rolled_back
    assert torture.prepared
    assert {id_ for _, id_ in seen} == all_ids
    assert len(seen) == len(all_ids), "something came twice"
    for key, ids in torture.committed.items():
        assert [id_ for each, id_ in seen if each == key] == ids

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
            await until(lambda: any("4711" in each.holder for each in held))
            assert (await store.read(None, dict.fromkeys(range(PARTS), (0, 0)), 10)).entries == []
            await writer.execute("PREPARE TRANSACTION 'forgotten'")
            await until(lambda: any("forgotten" in each.holder for each in held))
            await writer.execute("COMMIT PREPARED 'forgotten'")
            assert len((await store.read(None, dict.fromkeys(range(PARTS), (0, 0)), 10)).entries) == 1
            await writer.close()
    first = next(each for each in held if "4711" in each.holder)
    assert "INSERT INTO other VALUES (4711)" in first.holder
    assert "process" in first.holder


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


async def test_of_many_at_once_a_bad_one_stops_all_and_the_transaction_goes_on(postgres):
    url, outbox, asked = postgres.new_database(), Outbox("shop"), []

    def key_of(placed: Placed) -> str:
        asked.append(placed.n)
        return f"k{placed.n % 3}"

    async with stored(url) as store:
        connection = await asyncpg.connect(url)
        with pytest.raises(NoTransactionError):
            await outbox.publish(*map(Placed, range(100)), connection=connection)
        async with connection.transaction():
            with pytest.raises(InputError):
                await outbox.publish(*map(Placed, range(99)), Placed(object()), connection=connection)
            await outbox.publish(*map(Placed, range(100)), key=key_of, connection=connection)
        await connection.close()
        found = (await store.read(None, dict.fromkeys(range(PARTS), (0, 0)), 1000)).entries
        assert [each.message.data for each in found] == [b'{"n":%d}' % n for n in range(100)]
        assert [each.message.key for each in found] == [f"k{n % 3}" for n in range(100)]
        assert asked == list(range(100))


async def test_a_cancelled_publishing_of_many_gives_the_connection_back(postgres):
    url = postgres.new_database()
    async with stored(url) as store:
        connection = await asyncpg.connect(url)
        transaction = connection.transaction()
        await transaction.start()
        publishing = asyncio.ensure_future(Outbox("shop").publish(*map(Placed, range(100)), connection=connection))
        await asyncio.sleep(0)  # the locks are asked for, and the messages not made
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        await transaction.rollback()
        await connection.close()
        assert (await store.read(None, dict.fromkeys(range(PARTS), (0, 0)), 10)).entries == []
