"""What every journal must do. Run against each of them, and against the simulated one."""

from __future__ import annotations

import asyncio

import pytest

from contracts.journals import Place
from yaoki.errors import JournalError, JournalLockedError
from yaoki.saga.journal.port import Append, Journal, NewRun, Query
from yaoki.saga.records import Kind, Record, RunState

RUNNING, DONE, UNDONE, BLOCKED = RunState.RUNNING, RunState.COMPLETED, RunState.UNDONE, RunState.BLOCKED


def new(run_id: str, *, saga: str = "trip", at: float = 1.0) -> NewRun:
    return NewRun(run_id, saga, "hash", b'{"n":1}', deadline_at=99.0, traceparent="00-a-b-01", at=at)


def step(name: str) -> Record:
    return Record(Kind.DONE, name, b'"' + name.encode() + b'"', 2.0)


async def reopened(place: Place, journal: Journal) -> Journal:
    await journal.close()
    again = place()
    await again.open()
    return again


async def test_a_created_run_is_found_as_it_was_given(journal: Journal):
    created = await journal.create(new("a"))
    assert created.new
    found = await journal.read("a")
    assert found is not None
    assert found.records == []
    header = found.header
    assert (header.id, header.saga, header.graph, header.state, header.input) == ("a", "trip", "hash", RUNNING, b'{"n":1}')
    assert (header.deadline_at, header.traceparent, header.finished_at) == (99.0, "00-a-b-01", 0.0)
    assert header.no == created.header.no


async def test_the_same_id_is_created_once_and_the_first_one_is_returned(journal: Journal):
    first = await journal.create(new("a"))
    second = await journal.create(NewRun("a", "other", "x", b"2"))
    assert not second.new
    assert (second.header.no, second.header.saga) == (first.header.no, "trip")


async def test_the_same_id_twice_in_one_commit_is_one_run(journal: Journal):
    answers = await asyncio.gather(*(journal.create(new("a")) for _ in range(5)), journal.create(new("b")))
    assert sorted(answer.new for answer in answers) == [False] * 4 + [True] * 2
    assert len({answer.header.no for answer in answers}) == 2


async def test_records_come_back_in_order_with_their_payloads(journal: Journal):
    no = (await journal.create(new("a"))).header.no
    await journal.append(Append(no, 0, (step("x"), step("y"))))
    await journal.append(Append(no, 2, (Record(Kind.ABORT, "", b"\x00\xff binary", 3.5),)))
    found = await journal.read("a")
    assert found is not None
    assert [(r.kind, r.step, r.data, r.at) for r in found.records] == [
        (Kind.DONE, "x", b'"x"', 2.0), (Kind.DONE, "y", b'"y"', 2.0), (Kind.ABORT, "", b"\x00\xff binary", 3.5)]


async def test_many_runs_write_at_once_and_each_keeps_its_own(journal: Journal):
    numbers = [(await each).header.no for each in [journal.create(new(f"r{i}")) for i in range(300)]]
    for seq in range(3):
        await asyncio.gather(*(journal.append(Append(no, seq, (step(f"s{seq}"),))) for no in numbers))
    for i in (0, 150, 299):
        found = await journal.read(f"r{i}")
        assert found is not None
        assert [record.step for record in found.records] == ["s0", "s1", "s2"]


async def test_a_record_number_that_is_there_already_is_refused(journal: Journal):
    no = (await journal.create(new("a"))).header.no
    await journal.append(Append(no, 0, (step("x"),)))
    with pytest.raises(JournalError):
        await journal.append(Append(no, 0, (step("y"),)))
    found = await journal.read("a")
    assert found is not None
    assert [record.step for record in found.records] == ["x"]


async def test_the_end_of_a_run_is_kept_with_its_result(journal: Journal):
    no = (await journal.create(new("a"))).header.no
    await journal.append(Append(no, 0, (step("x"),), DONE, b'"result"', "", 7.0))
    found = await journal.read("a")
    assert found is not None
    header = found.header
    assert (header.state, header.result, header.finished_at, header.updated_at) == (DONE, b'"result"', 7.0, 7.0)


async def test_what_was_acknowledged_is_there_after_a_restart(place: Place):
    journal = place()
    await journal.open()
    no = (await journal.create(new("a"))).header.no
    await journal.append(Append(no, 0, (step("x"),)))
    journal = await reopened(place, journal)
    taken = await journal.take(10)
    assert [(stored.header.id, [record.step for record in stored.records]) for stored in taken] == [("a", ["x"])]
    await journal.close()


async def test_take_gives_unfinished_runs_once_oldest_first_in_pages(place: Place):
    journal = place()
    await journal.open()
    for i in range(7):
        no = (await journal.create(new(f"r{i}"))).header.no
        if i == 3:
            await journal.append(Append(no, 0, (step("x"),), DONE, b"1", "", 2.0))
        if i == 4:
            await journal.append(Append(no, 0, (), BLOCKED, b"", "bug", 2.0))
    journal = await reopened(place, journal)
    pages = [await journal.take(3) for _ in range(3)]
    assert [[stored.header.id for stored in page] for page in pages] == [["r0", "r1", "r2"], ["r5", "r6"], []]
    await journal.close()


async def test_take_does_not_give_what_this_owner_created_until_it_is_released(journal: Journal):
    first = await journal.create(new("a"))
    await journal.create(new("b"))
    assert await journal.take(5) == []
    journal.release(first.header.no)
    assert [stored.header.id for stored in await journal.take(5)] == ["a"]
    assert await journal.take(5) == []


async def test_take_one_gives_a_blocked_run_and_no_finished_one(journal: Journal):
    no = (await journal.create(new("a"))).header.no
    await journal.append(Append(no, 0, (), BLOCKED, b"", "bug", 2.0))
    taken = await journal.take_one("a")
    assert taken is not None
    assert taken.header.reason == "bug"
    await journal.append(Append(no, 0, (step("x"),), UNDONE, b"", "why", 3.0))
    assert await journal.take_one("a") is None
    assert await journal.take_one("nobody") is None


async def test_search_filters_and_pages_newest_first(journal: Journal):
    for i in range(6):
        no = (await journal.create(new(f"r{i}", saga="trip" if i % 2 else "order", at=float(i)))).header.no
        if i > 3:
            await journal.append(Append(no, 0, (), DONE, b"1", "", 9.0))

    async def ids(query: Query) -> list[str]:
        return [header.id for header in await journal.search(query)]

    assert await ids(Query()) == ["r5", "r4", "r3", "r2", "r1", "r0"]
    assert await ids(Query(saga="trip")) == ["r5", "r3", "r1"]
    assert await ids(Query(states=(DONE,))) == ["r5", "r4"]
    assert await ids(Query(states=(RUNNING, DONE), since=1.0, until=5.0)) == ["r4", "r3", "r2", "r1"]
    assert await ids(Query(id_prefix="r5")) == ["r5"]
    first = await journal.search(Query(limit=4))
    assert await ids(Query(before_no=first[-1].no)) == ["r1", "r0"]
    assert await journal.counts() == {RUNNING: 4, DONE: 2}
    assert await journal.counts("order") == {RUNNING: 2, DONE: 1}


async def test_purge_removes_old_ends_with_their_histories_and_nothing_else(journal: Journal):
    for i in range(4):
        no = (await journal.create(new(f"r{i}"))).header.no
        if i < 3:
            await journal.append(Append(no, 0, (step("x"),), DONE, b"1", "", 1.0 + i))
    assert await journal.purge(3.0, 1) == 1
    assert await journal.purge(3.0, 10) == 1
    assert [header.id for header in await journal.search(Query())] == ["r3", "r2"]
    again = await journal.create(new("r0"))
    assert again.new, "an id may be used again once its run is gone"
    found = await journal.read("r0")
    assert found is not None
    assert found.records == []


async def test_requests_wait_until_they_are_carried_out(place: Place):
    journal = place()
    await journal.open()
    await journal.request("a", "cancel", b"{}", 1.0)
    await journal.request("b", "resolve", b'{"step":"x"}', 2.0)
    journal = await reopened(place, journal)
    asked = await journal.requests()
    assert [(request.run, request.kind, request.data, request.at) for request in asked] == [
        ("a", "cancel", b"{}", 1.0), ("b", "resolve", b'{"step":"x"}', 2.0)]
    await journal.carried_out([asked[0].no])
    assert [request.run for request in await journal.requests()] == ["b"]
    await journal.close()


async def test_graphs_are_kept_by_hash(journal: Journal):
    await journal.save_graph("h", "trip", b"{}")
    await journal.save_graph("h", "trip", b"{}")
    assert await journal.load_graph("h") == b"{}"
    assert await journal.load_graph("other") is None


async def test_a_second_owner_is_refused_and_the_first_goes_on(place: Place, journal: Journal):
    if journal.shared:
        return  # many owners are what it is for: tests/live/test_postgres_workers.py
    first = place()
    second = place()
    if first is second:  # the one in memory is the same object
        with pytest.raises(JournalLockedError):
            await second.open()
        return
    with pytest.raises(JournalLockedError) as caught:
        await second.open()
    assert caught.value.do
    observer = place()
    await observer.observe()  # looking on is allowed
    assert await observer.counts() == {}
    await observer.close()


async def test_cancelling_the_wait_for_a_write_takes_nothing_back(journal: Journal):
    no = (await journal.create(new("a"))).header.no
    write = asyncio.ensure_future(journal.append(Append(no, 0, (step("x"),))))
    await asyncio.sleep(0)
    write.cancel()
    await journal.append(Append(no, 1, (step("y"),)))
    found = await journal.read("a")
    assert found is not None
    assert [record.step for record in found.records] == ["x", "y"]
