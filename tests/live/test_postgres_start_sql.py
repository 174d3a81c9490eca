"""Runs started from SQL, by any driver, in the caller's own transaction; and an id that is being moved to the past meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import psycopg
import pytest

import yaoki
from servers import PostgresServer
from yaoki import Saga
from yaoki.saga.journal.port import Append, Created, NewRun
from yaoki.saga.journal.postgres import PostgresJournal
from yaoki.saga.journal.postgres import statements as sql
from yaoki.saga.journal.postgres.joining import start_with
from yaoki.saga.journal.postgres.past import make_partition
from yaoki.saga.queue import Queue
from yaoki.saga.records import Kind, Record, RunState

pytestmark = pytest.mark.live

ENDED_AT = 20_000 * 86_400.0
OLD = NewRun("old", "echo", "h", b"1", keep=False)


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


def echo_saga(log: list[int], *, deadline: float | None = None) -> Saga[int]:
    saga = Saga("echo", input=int, deadline=deadline)

    @saga.step(undo=None)
    async def echo(n: int) -> int:
        log.append(n)
        return n

    return saga


# ── an id that becomes one of the past while it is started again ─────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def moving(url: str, journal: PostgresJournal) -> AsyncIterator[Any]:
    """Run `old` has ended, and its move to the past is done, and not yet committed; the block commits it."""
    no = (await journal.create(NewRun("old", "echo", "h", b"1"))).header.no
    await journal.append(Append(no, 0, (Record(Kind.DONE, "echo", b"1", 2.0),), RunState.COMPLETED, b"1", "", ENDED_AT))
    connection = await asyncpg.connect(url)
    await make_partition(connection, int(ENDED_AT // 86_400))
    move = connection.transaction()
    await move.start()
    await connection.execute(sql.MOVED)
    assert await connection.execute(sql.ARCHIVE, ENDED_AT + 10, 10) == "INSERT 0 1"
    yield move
    await connection.close()


async def somebody_waits(url: str) -> None:
    """Until a statement waits for the move's transaction."""
    connection = await asyncpg.connect(url)
    asked = "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database())"
    async with asyncio.timeout(100):
        while not await connection.fetchval(asked):  # noqa: ASYNC110  it is the server that waits
            await asyncio.sleep(0.01)
    await connection.close()


async def found(journal: PostgresJournal) -> list[int]:
    """How many runs of this id are live, and how many of the past."""
    return [row[0] for row in await journal._side.fetch("SELECT count(*) FROM yaoki.run UNION ALL SELECT count(*) FROM yaoki.past")]


@pytest.mark.parametrize("attributes", [(), (("customer", "42"),)])
async def test_an_id_started_again_while_its_run_is_moved_to_the_past_is_one_run(url: str, attributes: tuple[tuple[str, str], ...]):
    journal = PostgresJournal(url)
    await journal.open()
    async with moving(url, journal) as move:
        creating: asyncio.Future[Created] = asyncio.ensure_future(journal.create(NewRun("old", "echo", "h", b"1", attributes=attributes)))
        await somebody_waits(url)
        await move.commit()
        again = await creating
    assert (again.new, again.header.state) == (False, RunState.COMPLETED)
    assert await found(journal) == [0, 1]
    await journal.close()


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_the_same_in_a_transaction_of_the_callers(url: str, isolation: str):
    journal = PostgresJournal(url)
    await journal.open()
    async with moving(url, journal) as move:
        connection = await asyncpg.connect(url)
        mine = connection.transaction(isolation=isolation)
        await mine.start()
        await connection.execute("SELECT 1")  # its snapshot is of now, if it has one
        starting = asyncio.ensure_future(start_with(connection, OLD))
        await somebody_waits(url)
        await move.commit()
        if isolation == "read_committed":
            await starting
            await mine.commit()
        else:
            with pytest.raises(asyncpg.SerializationError):
                await starting
        await connection.close()
    assert await found(journal) == [0, 1]
    await journal.close()


async def test_an_id_of_the_past_is_not_started_by_sql(url: str):
    journal = PostgresJournal(url)
    await journal.open()
    async with moving(url, journal) as move:
        await move.commit()
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await start_with(connection, OLD)
    await connection.close()
    assert await found(journal) == [0, 1]
    await journal.close()


# ── from SQL ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_psql_starts_runs_that_workers_take_up_at_once(postgres: PostgresServer, url: str):
    log: list[int] = []
    saga = echo_saga(log, deadline=1000)
    async with yaoki.open(url, sagas=[saga]) as app:
        run_id = postgres.run_sql("SELECT yaoki.start('echo', '7')", url)
        assert await app.run(saga, run_id).result() == 7
        assert postgres.run_sql("SELECT yaoki.start('echo', '8', id => 'r', tenant => 'acme', priority => 0)", url) == "r"
        assert await app.run(saga, "r").result() == 8
        header = (await app.run(saga, run_id).stored()).header
        assert header.deadline_at - header.created_at == pytest.approx(1000, abs=1), "the saga's own"
    assert len(run_id) == 32
    assert log == [7, 8]


def test_plain_psycopg_starts_a_run_with_its_own_data_or_not_at_all(url: str):
    log: list[int] = []
    saga = echo_saga(log)
    with yaoki.open(url, sagas=[saga]) as app, psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE orders (n int)")
        connection.execute("SELECT yaoki.start('echo', '1', id => 'a')")
        connection.rollback()
        connection.execute("SELECT yaoki.start('echo', '2', id => 'b')")
        connection.execute("SELECT yaoki.start('echo', '2', id => 'b')")
        connection.commit()
        assert app.run(saga, "b").result(100) == 2
        with pytest.raises(psycopg.DatabaseError, match="another input") as refused:
            connection.execute("SELECT yaoki.start('echo', '3', id => 'b')")
        assert refused.value.sqlstate == "YK403"
        connection.rollback()
        with pytest.raises(psycopg.DatabaseError, match="has ever known a saga eco") as unknown:
            connection.execute("SELECT yaoki.start('eco', '3')")
        assert unknown.value.sqlstate == "YK404"
    assert log == [2]


def test_a_bulk_of_runs_is_one_select(postgres: PostgresServer, url: str):
    log: list[int] = []
    saga = echo_saga(log)
    with yaoki.open(url, sagas=[saga]) as app:
        assert postgres.run_sql("SELECT count(yaoki.start('echo', to_jsonb(n), id => 'r' || n)) FROM generate_series(1, 500) AS n", url) == "500"
        assert [app.run(saga, f"r{n}").result(100) for n in (1, 250, 500)] == [1, 250, 500]


async def test_sql_places_a_run_and_makes_it_found_as_its_saga_says(postgres: PostgresServer, url: str):
    saga = Saga("mail", input=dict, queue=Queue("mail"), attributes={"customer": "customer", "city": "to.city", "vip": "vip", "note": "note"})

    @saga.step(undo=None)
    async def send(order: dict) -> int:
        return 1

    async def attributes(run: str) -> dict[str, str]:
        (header,) = await app.journal.headers([run])
        return (await app.journal.attributes([header.no])).get(header.no, {})

    async with yaoki.open(url, sagas=[saga], work=False) as app:
        order = '{"customer": 42, "to": {"city": "Kyoto"}, "vip": true, "note": null}'
        postgres.run_sql(f"SELECT yaoki.start('mail', '{order}', id => 'a')", url)
        postgres.run_sql(f"SELECT yaoki.start('mail', '{order}', id => 'b', queue => 'slow', attributes => '{{\"customer\": \"7\"}}')", url)
        await app.start(saga, {"customer": 42, "to": {"city": "Kyoto"}, "vip": True, "note": None}, id="c")
        queues = postgres.run_sql("SELECT string_agg(l.queue, ',' ORDER BY r.id) FROM yaoki.run r JOIN yaoki.lane l ON l.no = r.lane", url)
        assert queues == "mail,slow,mail"
        assert await attributes("a") == await attributes("c") == {"customer": "42", "city": "Kyoto", "vip": "true"}
        assert (await attributes("b"))["customer"] == "7"
        with psycopg.connect(url) as connection, pytest.raises(psycopg.DatabaseError, match="attribute customer is a text"):
            connection.execute("SELECT yaoki.start('mail', '{\"customer\": []}')")
