"""The log in PostgreSQL is cut into segments: closed under writers, read across, and dropped whole when all have done them."""

from __future__ import annotations

import asyncio
import contextlib
import time

import asyncpg
import pytest

from contracts.messages_world import Placed, Recorder, service, stored, until
from live.test_messages_outbox import Naive, Torture, follow
from yaoki.messages import Message, Outbox, Retries
from yaoki.messages.boxes import find, redrive
from yaoki.messages.envelope import PARTS
from yaoki.messages.pruner import prune_now
from yaoki.messages.store import postgres_segments as segments

pytestmark = pytest.mark.live
ALL = dict.fromkeys(range(PARTS), (0, 0))


@pytest.fixture
def url(postgres, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 20)
    return postgres.new_database()


def made(n: int, key: str = "", type_: str = "Placed") -> Message:
    return Message(id=f"id-{n:06}", source="elsewhere", type=type_, key=key, data=b'{"n":%d}' % n, time=1.0)


async def cut(store, *, times: int = 1) -> None:
    """Close the current segment, however young it is, and however long somebody is in it."""
    for _ in range(times):
        async with store.pool.acquire() as connection:
            segment = await connection.fetchval("SELECT last_value FROM yaoki_messages_segment")
            async with asyncio.timeout(100):
                while not await segments.roll(connection, segment):
                    assert await connection.fetchval("SELECT last_value FROM yaoki_messages_segment") == segment


async def tables(store) -> list[str]:
    rows = await store.pool.fetch("SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'yaoki_messages'::regclass")
    return sorted(row["name"] for row in rows)


async def names(store) -> list[str]:
    page = await store.read(None, ALL, 10_000)
    return [entry.message.id for entry in page.entries]


@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=pytest.mark.long)])
async def test_nothing_is_skipped_or_turned_around_while_segments_are_closed_and_locks_swept(url, monkeypatch, seconds):
    patience_ms = 10
    monkeypatch.setattr(segments, "FREE_KEY_LOCKS", "DELETE FROM yaoki_key_locks WHERE ctid = ANY (ARRAY("
                        "SELECT l.ctid FROM yaoki_key_locks l LIMIT $1 FOR UPDATE OF l SKIP LOCKED))")
    async with stored(url) as store:
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE other (n integer)")
        torture, done, seen = Torture(url, seconds, prepares=False), asyncio.Event(), []
        rolled = swept = 0

        async def keep_house() -> None:
            nonlocal rolled, swept, patience_ms
            while not done.is_set():
                monkeypatch.setattr(segments, "LOCK_TIMEOUT", f"{patience_ms}ms")
                current = await connection.fetchval("SELECT last_value FROM yaoki_messages_segment")
                did = await segments.roll(connection, current)
                rolled, patience_ms = rolled + did, 10 if did else min(2 * patience_ms, 2000)  # where a machine is slow, writers are too
                swept += int((await connection.execute(segments.FREE_KEY_LOCKS, 100)).split()[-1])

        reader = asyncio.create_task(follow(url, store, seen, Naive(), done))
        keeper = asyncio.create_task(keep_house())
        for _ in range(20):
            await asyncio.gather(*(torture.write(number) for number in range(6)))
            if rolled and swept:
                break
            torture.until = time.monotonic() + seconds
        done.set()
        await asyncio.gather(reader, keeper)
        await connection.close()
    all_ids = {id_ for ids in torture.committed.values() for id_ in ids}
    print(f"\n{len(all_ids)} committed in {rolled + 1} segments, {swept} locks swept")
    assert rolled
    assert swept
    assert {id_ for _, id_ in seen} == all_ids
    assert len(seen) == len(all_ids), "something came twice"
    for key, ids in torture.committed.items():
        assert [id_ for each, id_ in seen if each == key] == ids


async def test_a_message_that_an_older_segment_has_is_passed_over(url):
    few, many = [made(1), made(2)], [made(n) for n in range(60)]
    async with stored(url) as store:
        await store.append(few)
        await cut(store, times=2)
        await store.append([made(2), made(3)])
        await store.append(many)
        assert sorted(await names(store)) == [each.id for each in many]
        assert await tables(store) == ["yaoki_messages_0", "yaoki_messages_1", "yaoki_messages_2"]


async def test_an_old_segment_goes_whole_and_what_is_held_stays_in_its_place(url):
    app, saw, cured = service(url), Recorder(), False

    @app.on(Placed, retries=Retries(attempts=1))
    async def take(placed: Placed, message: Message):
        if placed.n == 3 and not cured:
            raise ValueError("kept")
        saw.note(message.key, placed.n)

    async with app:
        await app.store.append([made(n, key=f"k{n % 4}") for n in range(40)])
        await until(lambda: len(saw.seen) == 30)  # nine wait behind the third
        await cut(app.store)
        await app.publish(Placed(100), key="k3")
        await until_settled(app.store)
        assert await app.store.prune(-10.0) == 40
        assert await tables(app.store) == ["yaoki_messages_1"]
        assert len(await names(app.store)) == 11
        cured = True
        await redrive(app.store)
        await until(lambda: len(saw.seen) == 41)
        assert saw.by_key["k3"] == [*range(3, 40, 4), 100]
        assert await find(app.store) == []


async def until_settled(store) -> None:
    """Until nobody has anything left to read."""
    async with asyncio.timeout(100):
        while any(lag.waiting for lag in await store.lag()):  # noqa: ASYNC110  it is a server that is asked
            await asyncio.sleep(0.01)


async def test_a_segment_stays_that_somebody_has_yet_to_read(url):
    async with stored(url) as store:
        await store.declare("slow.reader", ["Placed"], since="beginning")
        await store.declare("orders.intake", [], since="now")  # reads nothing: it only says whose turn it is at a broker
        await store.append([made(n) for n in range(30)])
        await cut(store)
        assert await store.prune(-10.0) == 0
        assert len(await names(store)) == 30
        await store.forget("slow.reader")
        assert await store.prune(-10.0) == 30
        assert await names(store) == []


async def test_the_words_of_runs_outlive_the_rest(url):
    async with stored(url) as store:
        await store.append([made(n, type_="saga.trip" if n % 10 == 0 else "Placed") for n in range(30)])
        await cut(store)
        assert await store.prune(-10.0, runs=False) == 30
        assert await names(store) == ["id-000000", "id-000010", "id-000020"]


async def test_pruning_cuts_what_is_long_and_old_enough_and_later_drops_it(url):
    async with stored(url) as store:
        await store.append([made(n) for n in range(30)])
        await store.prune(3600.0)
        assert len(await tables(store)) == 1, "it is too young"
        await store.prune(0.0)
        assert len(await tables(store)) == 2
        await asyncio.gather(*(store.prune(-1.0) for _ in range(4)))
        assert await tables(store) == ["yaoki_messages_1"]


async def test_whoever_cannot_wait_has_old_rows_of_a_long_segment_deleted(url):
    async with stored(url) as store:
        await store.append([made(n) for n in range(30)])
        assert await store.prune(3600.0) == 0, "they go with their segment, later"
        assert await prune_now(store, keep_s=3600.0) == 30
        assert await names(store) == []


async def test_a_writer_that_stays_keeps_a_segment_open_and_nobody_waits_long(url, monkeypatch):
    monkeypatch.setattr(segments, "LOCK_TIMEOUT", "50ms")
    async with stored(url) as store, contextlib.AsyncExitStack() as stack:
        connection = await asyncpg.connect(url)
        stack.push_async_callback(connection.close)
        transaction = connection.transaction()
        await transaction.start()
        await Outbox("orders").publish(Placed(1), connection=connection)
        async with store.pool.acquire() as other:
            assert not await segments.roll(other, 0)
        await store.append([made(2)])
        await transaction.commit()
        await cut(store)
        assert len(await names(store)) == 2


async def test_a_user_with_the_documented_rights_can_publish_and_no_more(url):
    async with stored(url) as store:
        await store.append([made(1, key="k")])
        await cut(store)
        connection = await asyncpg.connect(url)
        await connection.execute("""
            DROP ROLE IF EXISTS shop_writer; CREATE ROLE shop_writer;
            GRANT INSERT, SELECT ON yaoki_messages TO shop_writer; GRANT INSERT, UPDATE, SELECT ON yaoki_key_locks TO shop_writer;
            GRANT SELECT ON yaoki_segments TO shop_writer;
            GRANT USAGE, SELECT ON SEQUENCE yaoki_messages_pos, yaoki_messages_segment TO shop_writer""")
        await connection.execute("SET ROLE shop_writer")
        async with connection.transaction():
            await Outbox("orders").publish(Placed(2), key="k", connection=connection, id="own-id")
            await Outbox("orders").publish(*(Placed(n) for n in range(40)), connection=connection)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM yaoki_messages")
        await connection.execute("RESET ROLE")
        await connection.execute("DROP OWNED BY shop_writer; DROP ROLE shop_writer")
        await connection.close()
        assert len(await names(store)) == 42


async def test_locks_of_keys_go_when_there_are_many_and_nobody_holds_them(url, monkeypatch):
    statement = segments.FREE_KEY_LOCKS.replace("100000", "50").replace("100001", "51")
    monkeypatch.setattr(segments, "FREE_KEY_LOCKS", statement)
    async with stored(url) as store:
        count = "SELECT count(*) FROM yaoki_key_locks"
        await store.append([made(n, key=f"k{n}") for n in range(40)])
        await store.prune(3600.0)
        assert await store.pool.fetchval(count) == 40
        await store.append([made(n, key=f"k{n}") for n in range(40, 200)])
        async with store.pool.acquire() as connection, connection.transaction():
            await Outbox("orders").publish(Placed(1), key="k7", connection=connection)
            await store.prune(3600.0)
            assert await store.pool.fetchval(count) == 1, "one is held"
        await store.append([made(n, key=f"k{n}") for n in range(200, 210)])
        assert await store.pool.fetchval(count) == 11
        await store.append([made(n, key=f"k{n}") for n in range(300, 500)])
        await store.prune(3600.0, limit=30)
        assert await store.pool.fetchval(count) <= 50, "a few at a time, until there are not many"
