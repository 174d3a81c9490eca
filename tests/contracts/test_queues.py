"""What queues with limits promise, on every journal."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.journals import Place
from yaoki.saga.journal.port import Append, Journal, NewRun
from yaoki.saga.journal.postgres import PostgresJournal
from yaoki.saga.queue import Queue
from yaoki.saga.records import Kind, Record, RunState


async def wait(journal: Journal, *ids: str, **placing: Any) -> None:
    for run_id in ids:
        await journal.create(NewRun(run_id, "mail", "h", b"1", keep=False, at=1.0, **placing))


async def taken(journal: Journal, limit: int = 100) -> list[str]:
    await journal.peek()  # as an engine does: it tells a shared journal which queues have something
    return [stored.header.id for stored in await journal.take(limit)]


async def end(journal: Journal, run_id: str) -> None:
    stored = await journal.read(run_id)
    assert stored is not None
    await journal.append(Append(stored.header.no, 0, (Record(Kind.DONE, "send", b"1"),), RunState.COMPLETED, b"1", "", 2.0))


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{n}" for n in range(count)]


async def test_no_more_runs_are_under_way_than_the_queue_has_places(journal: Journal):
    await journal.declare([Queue("mail", concurrency=3)])
    await wait(journal, *names("m", 5), queue="mail")
    first = await taken(journal)
    assert first == ["m0", "m1", "m2"]
    assert await taken(journal) == []
    await end(journal, "m1")
    assert await taken(journal) == ["m3"]


async def test_a_run_that_is_parked_or_given_back_frees_its_place_and_waits_for_it_again(journal: Journal):
    await journal.declare([Queue("mail", concurrency=1)])
    await wait(journal, "a", "b", queue="mail")
    assert await taken(journal) == ["a"]
    stored = await journal.read("a")
    assert stored is not None
    await journal.append(Append(stored.header.no, 0, (), due_at=1.5, at=1.5))
    (first,) = await taken(journal)
    assert await taken(journal) == []
    await end(journal, first)
    assert {first, *await taken(journal)} == {"a", "b"}


async def test_a_blocked_run_has_no_place(journal: Journal):
    await journal.declare([Queue("mail", concurrency=1)])
    await wait(journal, "a", "b", queue="mail")
    assert await taken(journal) == ["a"]
    stored = await journal.read("a")
    assert stored is not None
    await journal.append(Append(stored.header.no, 0, (Record(Kind.BLOCKED, "send", b"{}"),), RunState.BLOCKED, due_at=float("inf")))
    assert await taken(journal) == ["b"]


async def test_a_rate_lets_a_burst_go_and_says_when_to_look_again(journal: Journal):
    await journal.declare([Queue("mail", rate="1/h", burst=2)])
    await wait(journal, *names("m", 5), queue="mail")
    assert await taken(journal) == ["m0", "m1"]
    assert await taken(journal) == []
    assert journal.look_at - journal.now() == pytest.approx(3600, abs=60)


async def test_urgent_runs_come_first_and_among_equals_tenants_take_turns(journal: Journal):
    await journal.declare([Queue("mail", concurrency=6)])
    await wait(journal, *names("big", 20), queue="mail", tenant="big")
    await wait(journal, *names("small", 3), queue="mail", tenant="small")
    await wait(journal, "urgent", queue="mail", priority=0)
    found = await taken(journal)
    assert len(found) == 6
    assert "urgent" in found
    assert sum(name.startswith("small") for name in found) in {2, 3}


async def test_priorities_hold_without_limits_too(journal: Journal):
    await wait(journal, *names("late", 30), priority=9)
    await wait(journal, *names("soon", 30), priority=0)
    assert sorted(await taken(journal, 30)) == sorted(names("soon", 30))


async def test_one_queues_limits_do_not_hold_back_another(journal: Journal):
    await journal.declare([Queue("mail", concurrency=1)])
    await wait(journal, *names("m", 3), queue="mail")
    await wait(journal, *names("s", 3), queue="sms")
    await wait(journal, "plain")
    assert sorted(await taken(journal)) == ["m0", "plain", "s0", "s1", "s2"]


async def test_the_default_queue_can_have_limits(journal: Journal):
    await journal.declare([Queue("default", concurrency=1)])
    await wait(journal, "a", "b")
    assert len(await taken(journal)) == 1
    assert await taken(journal) == []


async def test_a_paused_queue_gives_nothing_until_it_is_resumed(journal: Journal):
    await wait(journal, "a", queue="mail")
    await wait(journal, "b", queue="sms")
    assert await journal.pause("queue", "mail", who="ada", why="the provider is down")
    await journal.declare([])  # as an engine does when there is news
    assert await taken(journal) == ["b"]
    assert await journal.resume("queue", "mail")
    await journal.declare([])
    assert await taken(journal) == ["a"]


async def test_what_the_code_says_stands_until_a_person_says_otherwise_and_then_until_the_code_changes(journal: Journal):
    await journal.declare([Queue("mail", concurrency=5)])
    await journal.set_queue(Queue("mail", concurrency=1))
    await journal.declare([Queue("mail", concurrency=5)])
    (state,) = await journal.queue_states()
    assert (state.queue.concurrency, state.by_hand) == (1, True)
    await journal.declare([Queue("mail", concurrency=6)])
    (state,) = await journal.queue_states()
    assert (state.queue.concurrency, state.by_hand) == (6, False)


async def test_a_queue_tells_who_is_under_way_and_who_waits(journal: Journal):
    await journal.declare([Queue("mail", concurrency=2, per_worker=2, rate=1000.0)])
    await wait(journal, *names("m", 5), queue="mail")
    await taken(journal)
    (state,) = await journal.queue_states()
    assert (state.queue.name, state.placed, state.waiting, state.paused) == ("mail", 2, 3, False)


async def test_places_are_kept_over_a_restart_for_what_is_unfinished_only(place: Place):
    journal = place()
    await journal.open()
    await journal.declare([Queue("mail", concurrency=2)])
    await wait(journal, *names("m", 5), queue="mail")
    assert await taken(journal) == ["m0", "m1"]
    await end(journal, "m0")
    await journal.close()
    again = place()
    await again.open()
    await again.declare([Queue("mail", concurrency=2)])
    found = await taken(again)
    assert "m1" in found
    assert len(found) == 2
    await again.close()


@pytest.mark.live
async def test_two_workers_share_the_places_and_each_keeps_to_its_own(postgres: Any):
    url = postgres.new_database()
    one, two = PostgresJournal(url), PostgresJournal(url)
    for each in (one, two):
        await each.open()
        await each.declare([Queue("mail", concurrency=5, per_worker=3)])
    await wait(one, *names("m", 9), queue="mail")
    assert len(await taken(one)) == 3
    assert len(await taken(two)) == 2
    assert await taken(one) == []
    await one.close()  # its runs go back, and their places with them
    assert len(await taken(two)) == 1
    await two.close()
