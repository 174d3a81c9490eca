"""Through a pooler in transaction mode: nothing of a session may be relied on, and nothing is."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import yaoki
from rotating_pooler import RotatingPooler
from servers import PgBouncer, PostgresServer
from yaoki import Saga
from yaoki.errors import JournalError
from yaoki.saga.journal.port import Append, NewRun
from yaoki.saga.journal.postgres import PostgresJournal
from yaoki.saga.records import Kind, Record, RunState

pytestmark = pytest.mark.live


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    url = postgres.new_database()
    postgres.run_sql("CREATE TABLE public.ledger (run int)", url)
    return url


@pytest.fixture
async def pooler(postgres: PostgresServer) -> AsyncIterator[RotatingPooler]:
    async with RotatingPooler(postgres.port) as pooler:
        yield pooler


def through(port: int, url: str) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/{url.rpartition('/')[2]}"


def saga_with_transaction(gate: asyncio.Event) -> Saga[int]:
    saga = Saga("pooled", input=int, brake=None)

    @saga.step(undo=None)
    async def first(n: int) -> int:
        await gate.wait()
        return n

    @saga.step(undo=None, tx=True)
    async def booked(n: int, first: int, tx: Any) -> int:
        await tx.execute("INSERT INTO public.ledger VALUES ($1)", n)
        return first

    @saga.step(undo=None)
    async def last(n: int, booked: int) -> int:
        return booked

    return saga


async def ended(url: str, runs: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM yaoki.run WHERE state = 'completed'") == runs
        assert [row[0] for row in await connection.fetch("SELECT run FROM public.ledger ORDER BY run")] == list(range(runs))
    finally:
        await connection.close()


async def test_two_workers_run_sagas_each_transaction_of_which_goes_to_another_connection(url: str, pooler: RotatingPooler):
    gate = asyncio.Event()
    saga, same = saga_with_transaction(gate), saga_with_transaction(gate)
    address = through(pooler.port, url) + "?bouncer=yes"
    async with yaoki.open(address, sagas=[saga], concurrency=5) as app, yaoki.open(address, sagas=[same], concurrency=20) as other:
        runs = [await app.start(saga, n, id=f"run-{n}") for n in range(20)]
        gate.set()
        assert [await run.result() for run in runs] == list(range(20))
        again = other.run(same, "run-3")
        assert await again.state() is RunState.COMPLETED
    await ended(url, 20)
    assert pooler.rotations >= 40, "the starts and the debits alone are so many transactions"


async def test_a_request_reaches_the_worker_that_has_the_run_though_nothing_can_be_notified(url: str, pooler: RotatingPooler):
    gate = asyncio.Event()
    saga = saga_with_transaction(gate)
    address = through(pooler.port, url) + "?bouncer=yes"
    async with yaoki.open(address, sagas=[saga], grace=0.0) as app, yaoki.open(address, sagas=[saga_with_transaction(gate)]) as other:
        run = await app.start(saga, 1, id="r")
        await other.engine.cancel("r", reason="changed my mind")
        async with asyncio.timeout(100):
            while not app.engine.requests.handed:  # noqa: ASYNC110  until the worker has looked, which it does once a second
                await asyncio.sleep(0.02)
        gate.set()
        assert await run.wait() is RunState.CANCELLED


async def test_a_run_is_started_in_the_callers_transaction(url: str, pooler: RotatingPooler):
    gate = asyncio.Event()
    gate.set()
    saga = saga_with_transaction(gate)
    address = through(pooler.port, url)
    async with yaoki.open(address + "?bouncer=yes", sagas=[saga]) as app:
        connection = await asyncpg.connect(address, statement_cache_size=0)
        async with connection.transaction():
            run = await app.start(saga, 0, id="r", connection=connection)
        assert await run.result() == 0
        await connection.close()


async def test_who_forgets_to_say_so_is_told_what_to_do(url: str, pooler: RotatingPooler):
    journal = PostgresJournal(through(pooler.port, url))
    with pytest.raises(JournalError) as caught:
        await journal.open()
    assert "bouncer=yes" in caught.value.do


# ── the real one, which is not part of what the project installs ─────────────────────────────────────────────────────


@pytest.fixture
def bouncer(postgres: PostgresServer) -> Iterator[PgBouncer]:
    with tempfile.TemporaryDirectory(prefix="yaoki-bouncer-") as name:
        bouncer = PgBouncer(postgres, Path(name))
        yield bouncer
        bouncer.kill()


@pytest.mark.long
async def test_pgbouncer_itself_dies_and_the_server_crashes_and_nothing_is_lost(url: str, postgres: PostgresServer, bouncer: PgBouncer):
    gate = asyncio.Event()
    saga, same = saga_with_transaction(gate), saga_with_transaction(gate)
    gate.set()
    address = through(bouncer.port, url) + "?bouncer=yes&lease=5"
    async with yaoki.open(address, sagas=[saga]) as app, yaoki.open(address, sagas=[same]):
        async def keep_starting() -> list[Any]:
            runs = []
            for n in range(300):
                runs.append(await app.start(saga, n, id=f"run-{n}"))
                await asyncio.sleep(0.02)
            return runs

        starting = asyncio.create_task(keep_starting())
        for failure in (bouncer.kill, lambda: postgres.restart("immediate")) * 2:
            await asyncio.sleep(1.0)
            await asyncio.to_thread(failure)
            if failure == bouncer.kill:
                await asyncio.to_thread(bouncer.start)
        assert [await asyncio.wait_for(run.result(), 30) for run in await starting] == list(range(300))
    await ended(url, 300)


@pytest.mark.long
async def test_a_batch_that_was_sent_through_pgbouncer_is_written_once(url: str, bouncer: PgBouncer):
    journal = PostgresJournal(through(bouncer.port, url) + "?bouncer=yes")
    await journal.open()
    numbers = [created.header.no for created in await asyncio.gather(*(journal.create(NewRun(f"r{n}", "s", "g", b"1")) for n in range(300)))]
    for seq in range(5):
        await asyncio.gather(*(journal.append(Append(no, seq, (Record(Kind.DONE, f"s{seq}", b"1"),))) for no in numbers))
    with contextlib.suppress(JournalError):
        await journal.ring()
    found = await journal.read("r7")
    assert found is not None
    assert [record.step for record in found.records] == ["s0", "s1", "s2", "s3", "s4"]
    await journal.close()
