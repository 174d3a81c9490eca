"""What operators' doings promise, on every journal: requests with a log, pauses, attributes, who is blocked."""

from __future__ import annotations

from math import inf

import msgspec
import pytest

from yaoki.saga.journal.operations import BLOCKED_UNTIL, PAUSED_UNTIL, Operation
from yaoki.saga.journal.port import Append, Ask, Journal, NewRun, Query
from yaoki.saga.records import Kind, Record, RunState


async def start(journal: Journal, run_id: str, *, saga: str = "trip", **more: object) -> int:
    return (await journal.create(NewRun(run_id, saga, "h", b"1", at=1.0, **more))).header.no  # type: ignore[arg-type]


async def test_every_request_is_in_the_log_with_who_and_why(journal: Journal):
    await journal.request_many([Ask("a", "cancel", b'{"reason":"customer asked","who":"ada"}'),
                                Ask("b", "resolve", b'{"step":"pay","decision":"retry","who":"bob","why":"fixed"}')], 5.0)
    await journal.request("c", "signal", b'{"name":"approval","answer":1}', 6.0)
    log = await journal.operations()
    assert [(line.action, line.kind, line.name, line.who, line.why) for line in log] == [
        ("resolve", "run", "b", "bob", "fixed"), ("cancel", "run", "a", "ada", "customer asked")], "an answer in nobody's name is not"
    assert msgspec.json.decode(log[0].data)["decision"] == "retry"
    assert log[0].at > 0
    assert len(await journal.requests()) == 3


async def test_the_log_is_read_newest_first_by_page_and_by_what_it_is_about(journal: Journal):
    for n in range(5):
        await journal.log_operation(Operation("fork", "run", f"r{n % 2}", "ada", str(n)))
    assert [line.why for line in await journal.operations(limit=2)] == ["4", "3"]
    assert [line.why for line in await journal.operations(before_no=(await journal.operations(limit=2))[-1].no)] == ["2", "1", "0"]
    assert [line.why for line in await journal.operations(kind="run", name="r1")] == ["3", "1"]
    assert await journal.operations(kind="saga") == []


async def test_a_pause_is_there_once_and_gone_once_and_both_are_logged(journal: Journal):
    assert await journal.pause("saga", "trip", who="ada", why="the hotel is down")
    assert not await journal.pause("saga", "trip", who="bob")
    (pause,) = await journal.pauses()
    assert (pause.kind, pause.name, pause.who, pause.why) == ("saga", "trip", "ada", "the hotel is down")
    assert pause.at > 0
    assert await journal.resume("saga", "trip", who="bob")
    assert not await journal.resume("saga", "trip")
    assert [(line.action, line.who) for line in await journal.operations()] == [("resume", "bob"), ("pause", "ada")]


@pytest.mark.parametrize(("kind", "name"), [("run", "a"), ("saga", "trip"), ("queue", "mail")])
async def test_what_a_pause_has_parked_is_due_when_it_is_resumed(journal: Journal, kind: str, name: str):
    await journal.create(NewRun("a", "trip", "h", b"1", at=1.0, keep=False, queue="mail"))
    await journal.create(NewRun("b", "hike", "h", b"1", at=1.0, keep=False, due_at=journal.now() + 1000))
    await journal.peek()
    assert [stored.header.id for stored in await journal.take(5)] == ["a"]
    await journal.pause(kind, name)
    no = (await journal.headers(["a"]))[0].no
    await journal.append(Append(no, 0, (), due_at=PAUSED_UNTIL, at=2.0))
    await journal.peek()
    assert await journal.take(5) == []
    await journal.resume(kind, name)
    await journal.declare([])
    await journal.peek()
    assert [stored.header.id for stored in await journal.take(5)] == ["a"]


async def test_a_run_that_is_paused_itself_stays_so_when_its_saga_is_resumed(journal: Journal):
    no = await start(journal, "a")
    for kind, name in (("saga", "trip"), ("run", "a")):
        await journal.pause(kind, name)
    await journal.append(Append(no, 0, (), due_at=PAUSED_UNTIL, at=2.0))
    await journal.resume("saga", "trip")
    await journal.peek()
    assert await journal.take(5) == []
    await journal.resume("run", "a")
    await journal.peek()
    assert len(await journal.take(5)) == 1


async def test_runs_are_found_by_their_attributes(journal: Journal):
    await start(journal, "a", attributes=(("customer", "42"), ("region", "eu")))
    await start(journal, "b", attributes=(("customer", "42"),))
    await start(journal, "c", attributes=(("customer", "7"), ("region", "eu")))
    await start(journal, "d")

    async def found(*where: tuple[str, str]) -> list[str]:
        return [header.id for header in await journal.search(Query(where=where))]

    assert await found(("customer", "42")) == ["b", "a"]
    assert await found(("customer", "42"), ("region", "eu")) == ["a"]
    assert await found(("customer", "4")) == []
    numbers = {header.id: header.no for header in await journal.search(Query())}
    assert await journal.attributes(list(numbers.values())) == {
        numbers["a"]: {"customer": "42", "region": "eu"}, numbers["b"]: {"customer": "42"},
        numbers["c"]: {"customer": "7", "region": "eu"}}


async def test_attributes_go_with_their_run(journal: Journal):
    no = await start(journal, "a", attributes=(("customer", "42"),))
    await journal.append(Append(no, 0, (), RunState.COMPLETED, b"1", "", 2.0))
    assert await journal.purge(3.0, 10) == 1
    assert await journal.attributes([no]) == {}


async def test_a_run_may_begin_with_a_history(journal: Journal):
    no = await start(journal, "a", records=(Record(Kind.DONE, "hotel", b'"h"', 1.0), Record(Kind.DONE, "flight", b'"f"', 1.0)))
    found = await journal.read("a")
    assert found is not None
    assert [(record.step, record.data) for record in found.records] == [("hotel", b'"h"'), ("flight", b'"f"')]
    await journal.append(Append(no, 2, (Record(Kind.DONE, "pay", b"1", 2.0),)))


async def test_runs_without_progress_since_are_found(journal: Journal):
    first = await start(journal, "a")
    second = await start(journal, "b")
    await journal.append(Append(first, 0, (), RunState.BLOCKED, at=100.0, due_at=inf))
    await journal.append(Append(second, 0, (), RunState.BLOCKED, at=200.0, due_at=inf))
    assert [header.id for header in await journal.search(Query(idle_since=150.0))] == ["a"]


async def test_blocked_runs_are_counted_by_saga_with_the_oldest(journal: Journal):
    for n in range(3):
        no = await start(journal, f"r{n}", saga="hike" if n else "trip")
        await journal.append(Append(no, 0, (), RunState.BLOCKED, at=100.0 + n, due_at=BLOCKED_UNTIL))
    assert await journal.blocked() == [("hike", 2, 101.0), ("trip", 1, 100.0)]


async def test_news_grow_with_what_operators_do(journal: Journal):
    await journal.peek()
    before = await journal.news()
    await journal.pause("queue", "mail")
    await journal.peek()
    assert await journal.news() > before
