"""Orders of requests under way together: which can be left out, compared with going through all of them."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yaoki.errors import YaokiError
from yaoki.explore import ConflictError, FakeStore, Scenario, World, explore, replay
from yaoki.explore.schedules import Search, decoded, encoded


def processes(name: str, *works, always=()) -> Scenario:
    """A process for each work; the answer is what the store holds at the end, and what each process came to."""
    shop = FakeStore("shop")

    async def one(work) -> object:
        try:
            return await work(shop)
        except YaokiError as error:
            return type(error).__name__

    async def main(world: World) -> str:
        started = [world.start(f"p{number}", one, work) for number, work in enumerate(works)]
        while not all(each.done for each in started):
            await world.sleep(1.0)
        return json.dumps([shop.rows, [repr(each.result) for each in started]], sort_keys=True)

    return Scenario(main, name=name, same_answer=False, always=always)


def private(number: int):
    async def work(shop: FakeStore) -> None:
        await shop.put(f"own-{number}", number)

    return work


def adds_then_notes(number: int):
    """One write that all share, then one of its own."""

    async def work(shop: FakeStore) -> float:
        seen = await shop.add("count", 1)
        await shop.put(f"seen-{number}", seen)
        return seen

    return work


def buys(who: str, seat: str):
    """Looks, and then takes: two who look at once both take it."""

    async def work(shop: FakeStore) -> bool:
        if await shop.get(seat) is not None:
            return False
        await shop.put(seat, who)
        return True

    return work


def buys_safely(who: str, seat: str):
    async def work(shop: FakeStore) -> bool:
        try:
            await shop.put_if(seat, None, who)
        except ConflictError:
            return False
        return True

    return work


PROGRAMS = {
    "four that share nothing": (lambda: processes("private", *(private(n) for n in range(4))), 1),
    "three that share a counter": (lambda: processes("counter", *(adds_then_notes(n) for n in range(3))), 6),
    "two for one seat, one for another": (lambda: processes("seats", buys("ann", "1a"), buys("bob", "1a"), buys("cyd", "2b")), 6),
}


begun: list[bool] = []
"""Of each order: was it given up, because it has an equal?"""


def outcomes(scenario: Scenario, *, reduce: bool) -> tuple[set[str], int]:
    search, found, count = Search(reduce=reduce), set(), 0
    while search.more():
        run = scenario.execute(search=search)
        begun.append(run.covered)
        if not run.covered:
            count += 1
            found.add(run.answer or run.stuck)
    return found, count


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_left_out_loses_no_outcome(name):
    make, most = PROGRAMS[name]
    every, all_orders = outcomes(make(), reduce=False)
    found, executed = outcomes(make(), reduce=True)
    assert found == every
    assert executed <= most < all_orders
    print(f"{name}: {executed} of {all_orders} orders, {len(every)} outcomes")


def test_no_order_is_begun_that_has_an_equal():
    begun.clear()
    found, executed = outcomes(processes("counter", *(adds_then_notes(n) for n in range(4))), reduce=True)
    assert executed == 24
    assert len(found) == 24
    assert not any(begun)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from(["get", "put", "add"]), st.sampled_from("abc")), min_size=1, max_size=2), min_size=2, max_size=3))
def test_nothing_is_lost_whatever_the_processes_do(scripts):
    def script(number, steps):
        async def work(shop: FakeStore) -> list[object]:
            heard: list[object] = []
            for op, key in steps:
                if op == "get":
                    heard.append(await shop.get(key))
                elif op == "put":
                    await shop.put(key, number)
                else:
                    heard.append(await shop.add(f"n-{key}", number + 1))
            return heard

        return work

    works = [script(number, steps) for number, steps in enumerate(scripts)]
    every, all_orders = outcomes(processes("script", *works), reduce=False)
    found, executed = outcomes(processes("script", *works), reduce=True)
    assert found == every
    assert executed <= all_orders


def sold_once(world: World) -> str:
    happy = [each.name for each in world.processes if each.result is True]
    return "" if len(happy) < 2 else f"{' and '.join(happy)} have the same seat"


def test_an_order_that_breaks_an_invariant_is_told_and_replayed():
    """Both look before either takes: with the second request of each delayed by nobody, only another order shows it."""

    async def late(shop: FakeStore) -> bool:
        await shop.get("unrelated")
        return await buys("bob", "1a")(shop)

    def scenario(ann) -> Scenario:
        made = processes("seat", ann, late)
        made.invariants = (sold_once,)
        return made

    assert explore(scenario(buys("ann", "1a")), faults=0).ok
    report = explore(scenario(buys("ann", "1a")), faults=0, schedules=1000)
    assert ("sold_once",) in report.signatures
    assert report.schedules_done
    assert report.pruned["schedule"] >= 0
    run, story = replay(scenario(buys("ann", "1a")), report.stories[0].token)
    assert run.signature == ("sold_once",)
    assert "schedule=" in story.token
    safe = processes("seat", buys_safely("ann", "1a"), buys_safely("bob", "1a"))
    safe.invariants = (sold_once,)
    assert explore(safe, faults=0, schedules=1000).ok


def test_tasks_of_one_process_are_never_taken_for_independent():
    """The first answer wins, and that depends on their order although they touch different services."""
    one, two = FakeStore("one"), FakeStore("two")

    async def main() -> str:
        async def ask(store: FakeStore) -> str:
            await store.get("key")
            return store.name

        tasks = [asyncio.ensure_future(ask(store)) for store in (one, two)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        winner = next(task.result() for task in tasks if task in done)
        await asyncio.gather(*tasks)
        return winner

    found, executed = outcomes(Scenario(main, same_answer=False), reduce=True)
    assert found == {"returns 'one'", "returns 'two'"}
    assert executed == 2


def test_an_order_is_a_number():
    for choices in ([], [0, 0], [1], [0, 2, 0, 15, 0]):
        digits = decoded(encoded(choices))
        assert digits == choices[:len(digits)]
        assert not any(choices[len(digits):])


# ── orders and faults together ──


def insists(name: str, *, after: int):
    """Comes after some other calls, looks, and takes the seat if it is free; whose taking fails looks no more, and just writes."""

    async def work(shop: FakeStore) -> bool:
        for number in range(after):
            await shop.get(f"{name}-{number}")
        if await shop.get("1a") is not None:
            return False
        try:
            await shop.put_if("1a", None, name)
        except ConflictError:
            return False
        except YaokiError:
            await shop.put("1a", name)
        return True

    return work


def two_who_insist() -> Scenario:
    """Bob looks long after Ann has the seat: it takes another order, and a refusal in that order, for him to overwrite her."""
    made = processes("insists", insists("ann", after=0), insists("bob", after=3))
    made.invariants = (sold_once,)
    made.faults = ("call.reject",)
    return made


def test_every_order_is_tried_under_every_single_fault():
    assert explore(two_who_insist(), faults=1).ok
    assert explore(two_who_insist(), faults=0, schedules=5000).ok
    report = explore(two_who_insist(), faults=1, schedules=5000)
    assert report.schedules_done
    assert report.faults_scheduled == 6
    assert ("sold_once",) in report.signatures
    assert "under 6 single faults" in report.summary()
    for story in report.stories:
        assert "schedule=" in story.token
        assert "call.reject" in story.token
        run, _ = replay(two_who_insist(), story.token)
        assert run.signature == ("sold_once",)


def test_they_are_bounded_together():
    report = explore(two_who_insist(), faults=1, schedules=9)
    assert report.schedules == 9
    assert report.faults_scheduled < 6


def two_timers(**settings) -> Scenario:
    """A reminder and a cancellation fall due together; the reminder first is harmless, unless the note that it was sent is lost."""
    sent, notes = FakeStore("sent"), FakeStore("notes")

    async def main(world: World) -> None:
        async def remind() -> None:
            await world.sleep(10.0)
            if not cancelled:
                await sent.put("reminder", "sent")

        async def cancel() -> None:
            await world.sleep(10.0)
            cancelled.append(True)
            try:
                await notes.put("cancelled", True)
            except YaokiError:
                return
            await sent.put("reminder", "called off")

        cancelled: list[bool] = []
        await asyncio.gather(cancel(), remind())

    def called_off(world: World) -> str:
        return "the reminder stands" if sent.rows.get("reminder") == "sent" else ""

    return Scenario(main, invariants=[called_off], same_answer=False, faults=["call.reject"], **settings)


def test_a_fault_is_tried_again_in_seeded_orders_of_what_is_due_together():
    assert explore(two_timers(), faults=1).ok
    report = explore(two_timers(), faults=1, orders=8)
    assert report.orders == 8
    assert ("called_off",) in report.signatures
    assert all("order=" in story.token and "call.reject" in story.token for story in report.stories)
    run, _ = replay(two_timers(), report.stories[0].token)
    assert run.signature == ("called_off",)
    assert "8 seeded orders" in report.summary()
    assert explore(two_timers(), faults=0, orders=8).ok


def test_jobs_share_the_orders():
    one, two = explore(two_timers(), faults=1, orders=6), explore(two_timers(), faults=1, orders=6, jobs=2)
    assert (two.orders, two.executions, set(two.signatures)) == (one.orders, one.executions + 1, set(one.signatures))
