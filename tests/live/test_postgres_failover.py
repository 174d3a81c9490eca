"""A standby takes over, for good: what was acknowledged is there, what was in doubt is settled, and what a standby never got is noticed."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import yaoki
from servers import PostgresServer, PostgresStandby, running_postgres
from yaoki import Saga
from yaoki.errors import FencedError
from yaoki.saga.journal.port import Append, NewRun
from yaoki.saga.journal.postgres import PostgresJournal
from yaoki.saga.records import Kind, Record, RunState

pytestmark = [pytest.mark.live, pytest.mark.long, pytest.mark.timeout(180)]


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    with running_postgres(settings="-c fsync=off -c wal_sender_timeout=2s") as server:
        yield server


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[PostgresStandby]:
    with tempfile.TemporaryDirectory(prefix="yaoki-standby-") as name:
        Path(name).chmod(0o777)  # the servers have a user of their own
        standby = PostgresStandby(primary, Path(name) / "data")
        yield standby
        standby.stop("immediate")


def either(primary: PostgresServer, standby: PostgresServer, url: str) -> str:
    """An address of both, of which that is used which takes writes."""
    database = url.rpartition("/")[2]
    return f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/{database}?target_session_attrs=read-write&lease=5"


def trip(log: list[tuple[str, int]]) -> Saga[int]:
    saga = Saga("trip", input=int, brake=None)

    @saga.step(undo=None)
    async def hotel(n: int) -> int:
        log.append(("hotel", n))
        await asyncio.sleep(0.05)
        return n

    @saga.step(undo=None)
    async def flight(n: int, hotel: int) -> int:
        log.append(("flight", n))
        await asyncio.sleep(0.05)
        return hotel

    return saga


async def test_with_a_synchronous_standby_a_failover_loses_nothing(primary: PostgresServer, standby: PostgresStandby):
    url = primary.new_database()
    primary.run_sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.run_sql("SELECT pg_reload_conf()")
    log: list[tuple[str, int]] = []
    saga = trip(log)
    async with yaoki.open(either(primary, standby, url), sagas=[saga]) as app:
        async def keep_starting() -> list[yaoki.Run]:
            runs = []
            for n in range(200):
                runs.append(await app.start(saga, n, id=f"run-{n}"))  # acknowledged
                await asyncio.sleep(0.01)
            return runs

        starting = asyncio.create_task(keep_starting())
        await asyncio.sleep(1.0)
        await asyncio.to_thread(primary.stop, "immediate")
        await asyncio.to_thread(standby.promote)
        runs = await asyncio.wait_for(starting, 60)
        assert [await asyncio.wait_for(run.result(), 60) for run in runs] == list(range(200))
        assert await app.journal.counts() == {RunState.COMPLETED: 200}
    assert {each for each in log if each[0] == "hotel"} == {("hotel", n) for n in range(200)}


async def test_what_an_asynchronous_standby_never_got_is_noticed_and_not_written_over(primary: PostgresServer, standby: PostgresStandby):
    url = primary.new_database()
    journal = PostgresJournal(either(primary, standby, url))
    await journal.open()
    kept = (await journal.create(NewRun("kept", "s", "g", b"1"))).header.no
    await journal.append(Append(kept, 0, (Record(Kind.DONE, "first", b"1"),)))
    await asyncio.to_thread(wait_for_standby, primary)
    await asyncio.to_thread(standby.stop, "immediate")
    await journal.append(Append(kept, 1, (Record(Kind.DONE, "second", b"1"),)))  # the standby never gets this
    await asyncio.to_thread(primary.stop, "immediate")
    await asyncio.to_thread(standby.start)
    await asyncio.to_thread(standby.promote)
    with pytest.raises(FencedError):
        await journal.append(Append(kept, 2, (Record(Kind.DONE, "third", b"1"),)))
    await journal.open()
    await asyncio.to_thread(standby.run_sql, "UPDATE yaoki.worker SET lease_until = 0 WHERE no = 1", standby.url_of(url.rpartition("/")[2]))
    for _ in range(200):
        if taken := await journal.take(5):
            break
        await asyncio.sleep(0.05)
    assert [[record.step for record in stored.records] for stored in taken] == [["first"]], "the step is made again, by its key"
    await journal.close()


async def test_a_claim_that_a_standby_never_got_is_noticed_by_the_next_batch(primary: PostgresServer, standby: PostgresStandby):
    url = primary.new_database()
    journal = PostgresJournal(either(primary, standby, url))
    await journal.open()
    await journal.create(NewRun("waits", "s", "g", b"1", keep=False))
    await journal.peek()
    await asyncio.to_thread(wait_for_standby, primary)
    await asyncio.to_thread(standby.stop, "immediate")
    (taken,) = await journal.take(5)
    await asyncio.to_thread(primary.stop, "immediate")
    await asyncio.to_thread(standby.start)
    await asyncio.to_thread(standby.promote)
    with pytest.raises(FencedError):
        await journal.append(Append(taken.header.no, 0, (Record(Kind.DONE, "first", b"1"),)))
    await journal.close()


def wait_for_standby(primary: PostgresServer) -> None:
    """Until it has all that there is."""
    for _ in range(200):
        if primary.run_sql("SELECT bool_and(replay_lsn >= pg_current_wal_lsn()) FROM pg_stat_replication") == "t":
            return
        primary.run_sql("SELECT pg_sleep(0.05)")
    raise AssertionError("the standby does not keep up")
