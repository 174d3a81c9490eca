"""bulkhead: the queue, its order and its ends."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtual_time import run
from yaoki import events, runtime
from yaoki.errors import BulkheadFullError, ConfigError, DeadlineError
from yaoki.policies import bulkhead, deadline, pipeline
from yaoki.policies.places import Places


async def hold(seconds: float) -> None:
    await asyncio.sleep(seconds)


def test_beyond_the_limit_calls_are_refused_at_once_and_told_so() -> None:
    async def main() -> None:
        policy = bulkhead(2)
        heard: list[Any] = []
        with events.listen(heard.append):
            outcomes = await asyncio.gather(*(policy(hold)(1) for _ in range(5)), return_exceptions=True)
        refused = [each for each in outcomes if isinstance(each, BulkheadFullError)]
        assert len(refused) == 3
        assert refused[0].limit == 2
        assert [each.policy for each in heard] == ["bulkhead"] * 3
        assert policy.in_use == 0

    run(main())


def test_the_queue_is_first_come_first_served_and_bounded() -> None:
    async def main() -> None:
        policy, order = bulkhead(1, queue=3, max_wait=60), []

        async def work(number: int) -> None:
            order.append(number)
            await asyncio.sleep(1)

        outcomes = await asyncio.gather(*(policy(work)(number) for number in range(6)), return_exceptions=True)
        assert order == [0, 1, 2, 3]
        assert [type(each) for each in outcomes[4:]] == [BulkheadFullError] * 2

    run(main())


def test_smaller_priorities_go_first() -> None:
    async def main() -> None:
        policy, order = bulkhead(1, queue=9, max_wait=60, priority=lambda number, rank: rank), []

        async def work(number: int, rank: int) -> None:
            order.append(number)
            await asyncio.sleep(1)

        ranks = [0, 5, 1, 5, 0, 1]
        await asyncio.gather(*(policy.call(work, number, rank) for number, rank in enumerate(ranks)))
        assert order == [0, 4, 2, 5, 1, 3]

    run(main())


def test_nobody_waits_longer_than_max_wait_or_the_deadline() -> None:
    async def main() -> None:
        policy = bulkhead(1, queue=9, max_wait=0.5)
        holding = asyncio.ensure_future(policy(hold)(100))
        await asyncio.sleep(0)
        began = runtime.monotonic()
        with pytest.raises(BulkheadFullError, match=r"0\.5 s"):
            await policy(hold)(1)
        assert runtime.monotonic() - began == pytest.approx(0.5)
        with pytest.raises(DeadlineError):
            await pipeline(deadline(0.2), policy).call(hold, 1)
        assert runtime.monotonic() - began == pytest.approx(0.7, abs=0.006)
        assert (policy.in_use, policy.queued) == (1, 0)
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        assert policy.in_use == 0

    run(main())


def test_threads_queue_too_and_a_thread_that_waits_too_long_is_refused() -> None:
    policy = bulkhead(1, queue=4, max_wait=600)
    inside, release = threading.Event(), threading.Event()
    ran: list[int] = []

    def first() -> None:
        inside.set()
        release.wait(100)

    threads = [threading.Thread(target=policy.call, args=(first,))]
    threads[0].start()
    inside.wait(100)
    threads += [threading.Thread(target=policy.call, args=(ran.append, number)) for number in range(4)]
    for thread in threads[1:]:
        thread.start()
    while policy.queued < 4:
        pass
    with pytest.raises(BulkheadFullError):
        policy.call(ran.append, 99)
    release.set()
    for thread in threads:
        thread.join(100)
    assert sorted(ran) == [0, 1, 2, 3]
    impatient = bulkhead(1, queue=1, max_wait=0.01)
    with impatient, pytest.raises(BulkheadFullError):
        impatient.call(ran.append, 99)
    assert (impatient.in_use, impatient.queued) == (0, 0)


def test_a_loop_that_was_closed_with_a_call_waiting_costs_no_place_and_nobody_elses_call() -> None:
    policy = bulkhead(1, queue=3, max_wait=600)
    ran: list[int] = []

    async def wait(number: int) -> None:
        ran.append(number)

    async def begin() -> list[Any]:
        calls = [policy.acall(wait, number) for number in range(2)]
        for each in calls:
            each.send(None)  # as far as the queue, and no further
        return calls

    with policy:
        loop = asyncio.new_event_loop()
        waiting = loop.run_until_complete(begin())
        assert policy.queued == 2
        loop.close()
    assert (policy.in_use, policy.queued) == (0, 0)
    for each in waiting:
        each.close()  # as the garbage collector does: nothing is given back twice
    assert policy.in_use == 0
    assert policy.call(lambda: "served") == "served"
    assert ran == []


def test_a_place_that_becomes_free_before_one_has_joined_the_queue_is_not_missed() -> None:
    places = Places(1, 1)
    assert places.enter()
    assert not places.enter()
    places.leave()  # by another thread, which saw nobody waiting
    ticket = places.join(0, lambda: None)
    assert ticket is not None
    assert ticket.granted


@given(st.integers(1, 4), st.integers(0, 4), st.lists(st.tuples(st.sampled_from(["enter", "leave", "give up"]), st.integers(0, 9)), max_size=80))
def test_places_are_never_lost_nor_doubled_and_nobody_waits_beside_a_free_one(limit: int, queue: int, plan: list[tuple[str, int]]) -> None:
    places, inside, waiting = Places(limit, queue), 0, []
    woken: list[int] = []
    for what, which in plan:
        if what == "enter":
            if places.enter():
                inside += 1
            elif ticket := places.join(which % 3, lambda: woken.append(1)):
                waiting.append(ticket)
        elif what == "leave" and inside:
            places.leave()
            inside -= 1
        elif what == "give up" and waiting:
            ticket = waiting.pop(which % len(waiting))
            if not places.give_up(ticket):
                places.leave()
        granted = [ticket for ticket in waiting if ticket.granted]
        waiting = [ticket for ticket in waiting if not ticket.granted]
        inside += len(granted)
        assert places.in_use == inside <= limit
        assert len(places.waiting) == len(waiting) <= queue
        assert not waiting or inside == limit


@pytest.mark.parametrize("settings", [{"limit": 0}, {"limit": 1.5}, {"limit": 1, "queue": -1}, {"limit": 1, "max_wait": 0}])
def test_a_wrong_setting_is_refused_at_construction(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        bulkhead(**settings)
