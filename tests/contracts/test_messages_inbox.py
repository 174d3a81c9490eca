"""`Inbox`: a foreign message is done once, in the transaction of its effect; and everything that gave up can be redriven."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine, text

from contracts.messages_world import Placed, Recorder, service, stored, until, until_so
from yaoki.errors import DeclinedError, NoTransactionError
from yaoki.messages import Inbox, Message, Retries
from yaoki.messages.boxes import find, redrive


def test_a_mark_and_its_effect_commit_together_or_not_at_all(tmp_path):
    inbox = Inbox("billing")
    with contextlib.closing(sqlite3.connect(tmp_path / "billing.db")) as connection:
        connection.execute("CREATE TABLE bills (event TEXT)")
        connection.commit()

        def handle(event: str, *, fails: bool = False) -> bool:
            with connection:
                if not inbox.once("stripe", event, connection=connection):
                    return False
                connection.execute("INSERT INTO bills VALUES (?)", (event,))
                if fails:
                    raise RuntimeError("the process fails before it commits")
                return True

        with pytest.raises(RuntimeError):
            handle("evt-1", fails=True)
        assert [handle("evt-1"), handle("evt-1"), handle("evt-2")] == [True, False, True]
        assert connection.execute("SELECT event FROM bills ORDER BY 1").fetchall() == [("evt-1",), ("evt-2",)]
        with connection:
            assert inbox.once("paypal", "evt-1", connection=connection), "the same id of another sender is another message"
            assert Inbox("mailing").once("stripe", "evt-1", connection=connection), "another reader has marks of its own"


def test_a_mark_is_forgotten_after_its_time_and_not_before(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "billing.db")) as connection, connection:
        kept, forgotten = Inbox("kept", keep_s=3600), Inbox("forgotten", keep_s=-1.0)
        assert kept.once("stripe", "evt-1", connection=connection)
        assert not kept.once("stripe", "evt-1", connection=connection)
        assert forgotten.once("stripe", "evt-1", connection=connection)
        assert forgotten.once("stripe", "evt-1", connection=connection), "its time was over at once"


@pytest.mark.live
async def test_marks_go_with_psycopg_and_sqlalchemy_too(postgres):
    url = postgres.new_database()
    inbox = Inbox("billing")
    async with stored(url):
        with psycopg.connect(url, autocommit=True) as connection:
            with pytest.raises(NoTransactionError):
                inbox.once("stripe", "evt-1", connection=connection)
            with connection.transaction():
                assert inbox.once("stripe", "evt-1", connection=connection)
        async with await psycopg.AsyncConnection.connect(url) as connection:
            assert not await inbox.once_async("stripe", "evt-1", connection=connection)
            assert await inbox.once_async("stripe", "evt-2", connection=connection)
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection:
            connection.execute(text("SELECT 1"))
            assert [inbox.once("stripe", f"evt-{n}", connection=connection) for n in (1, 2, 3)] == [False, False, True]
        engine.dispose()
        async with await psycopg.AsyncConnection.connect(url) as connection:
            assert not await inbox.once_async("stripe", "evt-3", connection=connection)


@pytest.mark.live
async def test_two_processes_with_the_same_message_are_one_effect_on_postgres(postgres):
    url = postgres.new_database()
    inbox = Inbox("billing", keep_s=3600)
    async with stored(url):  # makes the tables
        connections = [await asyncpg.connect(url) for _ in range(4)]
        await connections[0].execute("CREATE TABLE bills (event text)")

        async def handle(connection: asyncpg.Connection) -> int:
            done = 0
            for n in range(20):
                async with connection.transaction():
                    if await inbox.once_async("stripe", f"evt-{n}", connection=connection):
                        await connection.execute("INSERT INTO bills VALUES ($1)", f"evt-{n}")
                        await asyncio.sleep(0.001)
                        done += 1
            return done

        assert sum(await asyncio.gather(*map(handle, connections))) == 20
        assert await connections[0].fetchval("SELECT count(*) FROM bills") == 20
        with pytest.raises(RuntimeError):
            async with connections[0].transaction():
                assert await inbox.once_async("stripe", "evt-99", connection=connections[0])
                raise RuntimeError
        async with connections[1].transaction():
            assert await inbox.once_async("stripe", "evt-99", connection=connections[1])
        for _ in range(2):
            async with connections[0].transaction():
                assert await Inbox("short", keep_s=-1.0).once_async("stripe", "evt-1", connection=connections[0])
        with pytest.raises(NoTransactionError):
            await inbox.once_async("stripe", "evt-100", connection=connections[0])
        for connection in connections:
            await connection.close()


@pytest.mark.live
async def test_two_transactions_that_forget_old_marks_do_not_wait_for_each_other(postgres):
    url, inbox = postgres.new_database(), Inbox("billing", keep_s=-1.0)
    async with stored(url):
        first, second = await asyncpg.connect(url), await asyncpg.connect(url)
        await second.execute("SET statement_timeout = '20s'")
        await first.execute("INSERT INTO yaoki_inbox (reader, source, id) SELECT 'billing', 'stripe', 'old-' || n FROM generate_series(1, 30) n")
        async with first.transaction():
            assert await inbox.once_async("stripe", "evt-1", connection=first)
            async with second.transaction():
                assert await inbox.once_async("stripe", "evt-2", connection=second)
        assert await first.fetchval("SELECT count(*) FROM yaoki_inbox WHERE id LIKE 'old-%'") == 10
        await first.close()
        await second.close()


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.live)])
async def test_every_dead_letter_and_every_quarantined_key_can_be_redriven(kind, tmp_path, request):
    """Poison among good messages, for a handler that keeps order and one that skips; then the bug is fixed."""
    url = f"sqlite:///{tmp_path}/orders.db" if kind == "sqlite" else request.getfixturevalue("postgres").new_database()
    app, strict, loose, fixed = service(url), Recorder(), Recorder(), False

    def bad(n: int) -> bool:
        return not fixed and n % 7 == 3

    @app.on(Placed, retries=Retries(attempts=2, first_s=0.0))
    async def keeps_order(placed: Placed, message: Message) -> None:
        if bad(placed.n):
            raise RuntimeError("a bug")
        strict.note(message.key, placed.n)

    @app.on(Placed, retries=Retries(attempts=1, poison="skip"))
    async def skips(placed: Placed, message: Message) -> None:
        if bad(placed.n):
            raise DeclinedError("not this one")
        loose.note(message.key, placed.n)

    poison = [n for n in range(105) if n % 7 == 3]
    async with app:
        await app.publish(*(Placed(n) for n in range(105)), key=lambda placed: f"k{placed.n % 5}")
        await until(lambda: len(loose.seen) == 90)

        async def all_gave_up() -> bool:
            states = Counter(each.state for each in await find(app.store))
            return states == {"quarantined": 5, "dead": 15}  # the first of each key, and all that were skipped

        await until_so(all_gave_up)
        fixed = True
        done = await redrive(app.store)
        assert len(done.chosen) == 20
        await until(lambda: len(strict.seen) == 105 and len(loose.seen) == 105)

        async def none_left() -> bool:
            return not await app.store.held(states=("quarantined", "dead", "retry", "behind"))

        await until_so(none_left)
    assert strict.by_key == {f"k{key}": list(range(key, 105, 5)) for key in range(5)}, "order was kept across the quarantine"
    assert sorted(loose.seen) == list(range(105))
    assert set(loose.seen[-15:]) == set(poison), "what was skipped came last"
