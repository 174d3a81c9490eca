"""Transactions of handlers that do not end well: refused at the commit, ended by the handler, overtaken, cancelled. Nothing is lost or done twice."""

from __future__ import annotations

import asyncio
import sqlite3

import asyncpg
import pytest

from contracts.messages_world import QUICK, Placed, Reserved, stored, until, until_so
from yaoki.errors import NoReplyError, StoreError
from yaoki.messages import Message, Messages, Pace
from yaoki.messages.consumer import Consumer
from yaoki.messages.envelope import PARTS
from yaoki.messages.handlers import handler_of
from yaoki.messages.store import postgres_tx, sqlite_sql

START = dict.fromkeys(range(PARTS), (0, 0))


@pytest.fixture
def on_postgres(postgres):
    return postgres.new_database()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.live)])
def url(request, tmp_path):
    return f"sqlite:///{tmp_path}/messages.db" if request.param == "sqlite" else request.getfixturevalue("on_postgres")


async def gave_up(app: Messages) -> list[tuple[bytes, str]]:
    """Data and error of each quarantined message."""
    return [(entry.message.data, held.error) for _, entry, held in await app.store.held(states=("quarantined",))]


async def effects(url: str) -> list[int]:
    connection = await asyncpg.connect(url)
    try:
        return [row["n"] for row in await connection.fetch("SELECT n FROM effects ORDER BY n")]
    finally:
        await connection.close()


async def make_effects(url: str, constraint: str = "") -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f"CREATE TABLE effects (n integer {constraint}); INSERT INTO effects VALUES (2)")
    await connection.close()


@pytest.mark.live
async def test_of_messages_whose_commit_is_refused_only_the_one_at_fault_gives_up(on_postgres):
    await make_effects(on_postgres, "UNIQUE DEFERRABLE INITIALLY DEFERRED")
    app = Messages("orders", on_postgres)

    @app.on(Placed, retries=QUICK)
    async def take(placed: Placed, tx):
        await tx.execute("INSERT INTO effects VALUES ($1)", placed.n)

    async with app:
        await app.publish(*map(Placed, range(5)), key=lambda placed: f"k{placed.n}")
        await until_so(lambda: gave_up(app))
        ((data, error),) = await gave_up(app)
        assert data == b'{"n":2}'
        assert "effects_n_key" in error
        await app.publish(Placed(7))
        await until_so(lambda: are(on_postgres, [0, 1, 2, 3, 4, 7]))


async def are(url: str, expected: list[int]) -> bool:
    return await effects(url) == expected


@pytest.mark.live
async def test_a_handler_that_passes_over_a_failed_statement_stops_nobody_but_its_key(on_postgres):
    await make_effects(on_postgres, "UNIQUE")
    app = Messages("orders", on_postgres)

    @app.on(Placed, retries=QUICK)
    async def take(placed: Placed, tx):
        try:
            await tx.execute("INSERT INTO effects VALUES ($1)", placed.n)
        except asyncpg.UniqueViolationError:
            return  # PostgreSQL takes no further statement in this transaction

    async with app:
        await app.publish(*map(Placed, range(5)), key=lambda placed: f"k{placed.n}")
        await until_so(lambda: gave_up(app))
        ((data, error),) = await gave_up(app)
        assert data == b'{"n":2}'
        assert "InFailedSQLTransaction" in error
        await until_so(lambda: are(on_postgres, [0, 1, 2, 3, 4]))


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
async def test_a_handler_that_ends_its_transaction_is_told_so(url, end):
    app = Messages("orders", url)

    @app.on(Placed, retries=QUICK)
    async def take(placed: Placed, tx):
        done = tx.execute(end) if placed.n == 2 else None
        if done is not None and not isinstance(done, sqlite3.Cursor):
            await done

    async with app:
        await app.publish(*map(Placed, range(5)), key=lambda placed: f"k{placed.n}")
        await until_so(lambda: gave_up(app))
        ((data, error),) = await gave_up(app)
        assert data == b'{"n":2}'
        assert "has ended the transaction" in error


@pytest.mark.live
async def test_what_a_handler_wrote_is_rolled_back_when_its_partition_went_meanwhile(on_postgres):
    await make_effects(on_postgres)
    app, called = Messages("orders", on_postgres, pace=Pace(lease_s=0.6)), []

    @app.on(Placed, timeout=200)
    async def take(placed: Placed, message: Message, tx):
        await tx.execute("INSERT INTO effects VALUES ($1)", placed.n)
        called.append(message)
        await until(lambda: message.part not in worker.lanes.parts)

    async with app:
        (worker,) = app._workers
        await app.publish(Placed(1))
        await until(lambda: called)
        thief = await asyncpg.connect(on_postgres)
        await thief.execute("UPDATE yaoki_cursors SET owner = 'thief', fence = fence + 1, lease_until = 'infinity' WHERE part = $1", called[0].part)
        await thief.close()
        await until(lambda: not worker._tasks)
        assert await effects(on_postgres) == [2]


@pytest.mark.live
async def test_a_transaction_that_is_cancelled_at_its_end_is_handled_again(on_postgres, monkeypatch):
    app, handled = Messages("orders", on_postgres, pace=Pace(drain_s=0.0)), []
    reached = asyncio.Event()

    async def take(placed: Placed, message: Message, tx):
        handled.append(message)

    async def hang(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    app.on(Placed)(take)
    with monkeypatch.context() as patched:
        patched.setattr(postgres_tx.PostgresTx, "settle", hang)
        async with app:
            (worker,) = app._workers
            await app.publish(Placed(1), key="k")
            await reached.wait()
            (entry,) = (await app.store.read(["Placed"], START, 10)).entries
            await app.publish(Reserved(1), key="k")  # read past: then the cursor could go on from here
            await until(lambda: worker.lanes.after()[entry.part] > entry.position)
    again = Messages("orders", on_postgres)
    again.on(Placed)(take)
    async with again:
        await until(lambda: len(handled) == 2)


async def test_what_follows_from_a_message_is_not_lost_when_its_settling_is_cancelled(url):
    first, gate = Message(id="1", source="s", type="Placed", key="k0", data=b'{"n":1}', time=1.0), asyncio.Event()
    beside = next(each for each in (Message(id="2", source="s", type="Placed", key=f"j{n}", data=b'{"n":2}', time=1.0) for n in range(1000))
                  if each.part == first.part)

    async def take(placed: Placed) -> Reserved | None:
        if placed.n == 1:
            return Reserved(1)
        await gate.wait()
        return None

    async with stored(url) as store:
        really, hung = store.settle, asyncio.Event()

        async def settle(group, settlement):
            if settlement.publish and not hung.is_set():
                hung.set()
                await asyncio.Event().wait()
            await really(group, settlement)

        store.settle = settle
        await store.append([first, beside])
        handler = handler_of(take, (Placed,), name="take", settings={})
        consumer = Consumer(store, handler, service="orders")
        running = asyncio.ensure_future(consumer.run())
        await hung.wait()
        gate.set()
        await until(lambda: not consumer._tasks)
        running.cancel()
        await asyncio.wait([running])
        again = Consumer(store, handler, service="orders")
        running = asyncio.ensure_future(again.run())

        async def followed() -> bool:
            return bool((await store.read(["Reserved"], START, 10)).entries)

        await until_so(followed)
        again.stop()
        await running


async def test_a_transaction_that_is_cancelled_while_it_begins_stays_not_open(tmp_path, monkeypatch):
    path, begun = tmp_path / "messages.db", asyncio.Event()
    loop, begin = asyncio.get_running_loop(), sqlite_sql.begin

    def beginning(connection: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        begin(connection)

    async def work(store) -> None:
        async with store.transaction():
            raise AssertionError("another writer has the file")

    async with stored(f"sqlite:///{path}") as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with monkeypatch.context() as patched:
            patched.setattr(sqlite_sql, "begin", beginning)
            working = asyncio.ensure_future(work(store))
            await begun.wait()
            working.cancel()
            await asyncio.sleep(0)
        other.execute("ROLLBACK")
        other.close()
        with pytest.raises(asyncio.CancelledError):
            await working
        await store.append([Message(id="1", source="s", type="T", time=1.0)])


async def test_a_first_request_that_fails_leaves_the_second_its_answer(tmp_path):
    app = Messages("orders", f"sqlite:///{tmp_path}/messages.db")

    @app.on(Placed)
    def answer(placed: Placed) -> Reserved:
        return Reserved(placed.n)

    async with app:
        declare = app.store.declare

        async def fails(*_: object, **__: object) -> None:
            raise StoreError("no", do="nothing")

        app.store.declare = fails
        with pytest.raises(StoreError):
            await app.request(Placed(1))
        app.store.declare = declare
        assert await app.request(Placed(2), timeout=100) == {"n": 2}
        with pytest.raises(NoReplyError):
            await app.request(Reserved(1), timeout=0.01)
