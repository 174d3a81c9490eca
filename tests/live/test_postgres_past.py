"""Ended runs leave the live tables with their histories, can still be found, and go a day at a time."""

from __future__ import annotations

import asyncio

import pytest

from servers import PostgresServer
from yaoki.saga.journal.port import Append, NewRun, Query
from yaoki.saga.journal.postgres import PostgresJournal
from yaoki.saga.records import Kind, Record, RunState

pytestmark = pytest.mark.live

DAY = 86_400.0
BEGAN = 20_000 * DAY


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


async def ended_runs(journal: PostgresJournal, *, days: int, a_day: int) -> None:
    for day in range(days):
        for n in range(a_day):
            no = (await journal.create(NewRun(f"run-{day}-{n}", "trip", "h", b"1"))).header.no
            await journal.append(Append(no, 0, (Record(Kind.DONE, "a", b'"\xff\x00"', 2.0),), RunState.COMPLETED, b'"r"', "",
                                        BEGAN + day * DAY + n))


async def archived(journal: PostgresJournal, before: float) -> int:
    moved = 0
    while now := await journal.archive(before, 2):
        moved += now
    return moved


async def test_a_run_of_the_past_is_found_whole_and_its_id_is_still_taken(url: str):
    journal = PostgresJournal(url)
    await journal.open()
    await ended_runs(journal, days=3, a_day=3)
    unfinished = (await journal.create(NewRun("busy", "trip", "h", b"1"))).header.no
    found = await journal.read("run-1-2")
    assert await archived(journal, BEGAN + 10 * DAY) == 9
    assert await journal.read("run-1-2") == found
    again = await journal.create(NewRun("run-1-2", "trip", "h", b"1"))
    assert (again.new, again.header.state) == (False, RunState.COMPLETED)
    assert await journal.counts() == {RunState.COMPLETED: 9, RunState.RUNNING: 1}
    assert [header.id for header in await journal.search(Query(limit=3))] == ["busy", "run-2-2", "run-2-1"]
    await journal.append(Append(unfinished, 0, (Record(Kind.DONE, "a", b"1"),)))
    await journal.close()


async def test_retention_drops_whole_days(url: str):
    journal = PostgresJournal(url)
    await journal.open()
    await ended_runs(journal, days=3, a_day=2)
    await archived(journal, BEGAN + 10 * DAY)
    assert await journal.purge(BEGAN + 2 * DAY, 100) == 4
    assert await journal.counts() == {RunState.COMPLETED: 2}
    assert (await journal.create(NewRun("run-0-0", "trip", "h", b"1"))).new
    await journal.close()


async def test_several_workers_tidy_at_once(url: str):
    journals = [PostgresJournal(url) for _ in range(3)]
    for journal in journals:
        await journal.open()
    await ended_runs(journals[0], days=2, a_day=10)
    moved = await asyncio.gather(*(archived(journal, BEGAN + 10 * DAY) for journal in journals))
    assert sum(moved) == 20
    for journal in journals:
        await journal.close()
