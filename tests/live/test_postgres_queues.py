"""Where runs wait for their turn on PostgreSQL: priorities, tenants, queues, delays, bulk, and the caller's own transaction."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import psycopg
import pytest

import yaoki
from servers import PostgresServer
from yaoki import Saga
from yaoki.errors import NoTransactionError, UsageError
from yaoki.saga.journal.port import NewRun
from yaoki.saga.journal.postgres import PostgresJournal
from yaoki.saga.records import RunState

pytestmark = pytest.mark.live


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


def echo_saga(log: list[int]) -> Saga[int]:
    saga = Saga("echo", input=int)

    @saga.step(undo=None)
    async def echo(n: int) -> int:
        log.append(n)
        return n

    return saga


async def waiting(journal: PostgresJournal, *runs: tuple[str, dict[str, Any]]) -> None:
    for run_id, placing in runs:
        await journal.create(NewRun(run_id, "echo", "h", b"1", keep=False, **placing))


async def taken(journal: PostgresJournal, limit: int) -> list[str]:
    return [stored.header.id for stored in await journal.take(limit)]


async def test_the_urgent_come_first_and_among_equals_the_oldest(url: str):
    journal = PostgresJournal(url)
    await journal.open()
    await waiting(journal, ("a", {}), ("b", {}), ("late", {"priority": 9}), ("first", {"priority": 0}))
    assert [await taken(journal, 1) for _ in range(5)] == [["first"], ["a"], ["b"], ["late"], []]
    await journal.close()


async def test_a_tenant_with_thousands_of_runs_does_not_delay_anothers_ten(url: str):
    journal = PostgresJournal(url)
    await journal.open()
    await asyncio.gather(*(journal.create(NewRun(f"big-{n}", "echo", "h", b"1", keep=False, tenant="big")) for n in range(3000)))
    await waiting(journal, *((f"small-{n}", {"tenant": "small"}) for n in range(10)))
    found = await taken(journal, 40)
    assert sum(name.startswith("small") for name in found) == 10
    await journal.close()


async def test_a_worker_takes_only_from_its_queues_and_what_it_can_run(url: str):
    journal, other = PostgresJournal(url), PostgresJournal(url)
    await journal.open()
    await other.open()
    await waiting(other, ("a", {"queue": "slow"}), ("b", {}))
    await other.create(NewRun("c", "echo", "another-graph", b"1", keep=False, queue="slow"))
    await journal.serve(["h"], ["slow"])
    assert await taken(journal, 10) == ["a"]
    await journal.close()
    await other.close()


async def test_a_delayed_run_waits(url: str):
    journal = PostgresJournal(url)
    await journal.open()
    await waiting(journal, ("a", {"due_at": journal.now() + 1000}), ("b", {"due_at": journal.now() - 1}))
    assert await taken(journal, 10) == ["b"]
    await journal.close()


async def test_a_thousand_runs_started_at_once_end_and_an_id_twice_is_one(url: str):
    log: list[int] = []
    saga = echo_saga(log)
    async with yaoki.open(url, sagas=[saga]) as app:
        assert await app.start_many(saga, ((f"r{n}", n) for n in range(1000))) == 1000
        assert await app.start_many(saga, ((f"r{n}", n) for n in range(900, 1010))) == 10
        async with asyncio.timeout(150):
            while (await app.journal.counts()).get(RunState.COMPLETED) != 1010:  # noqa: ASYNC110  it is a server that is asked
                await asyncio.sleep(0.05)
    assert sorted(log) == list(range(1010))


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("commits", [True, False])
async def test_a_run_is_started_if_and_only_if_the_caller_commits(url: str, driver: str, *, commits: bool):
    log: list[int] = []
    saga = echo_saga(log)
    async with yaoki.open(url, sagas=[saga]) as app:
        if driver == "asyncpg":
            connection: Any = await asyncpg.connect(url)
            transaction = connection.transaction()
            await transaction.start()
        else:
            connection = await psycopg.AsyncConnection.connect(url)
            transaction = connection
        await connection.execute("CREATE TABLE orders (n int)")
        run = await app.start(saga, 7, id="r", connection=connection)
        await asyncio.sleep(0.1)
        assert log == []
        await (transaction.commit() if commits else transaction.rollback())
        await connection.close()
        if commits:
            assert await run.result() == 7
        else:
            assert await app.journal.read("r") is None
    assert log == ([7] if commits else [])


async def test_without_a_transaction_of_the_caller_nothing_is_started(url: str):
    saga = echo_saga([])
    async with yaoki.open(url, sagas=[saga]) as app:
        connection = await asyncpg.connect(url)
        with pytest.raises(NoTransactionError):
            await app.start(saga, 7, connection=connection)
        await connection.close()
        with pytest.raises(UsageError, match="asyncpg"):
            await app.start(saga, 7, connection=object())


async def test_a_delay_works_alone_too():
    saga = echo_saga([])
    async with yaoki.open("memory:", sagas=[saga]) as app:
        run = await app.start(saga, 7, delay=0.6)
        assert await run.result() == 7
