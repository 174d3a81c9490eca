"""Semantic locks: one run at a time for each key, first come first served, until its end and through crashes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtual_time import Clock, run
from yaoki import DeclinedError, Saga
from yaoki.app import App
from yaoki.errors import DefinitionError, RunBlockedError
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.sqlite import SqliteJournal
from yaoki.saga.locking import Wanted, key_of, shown
from yaoki.saga.records import Kind, RunState


class Seats:
    """What must not be touched by two at once, and who touched it when."""

    def __init__(self) -> None:
        self.inside: dict[Any, str] = {}
        self.order: list[str] = []
        self.undone: list[tuple[str, Any]] = []

    async def touch(self, run: str, *keys: Any, takes_s: float = 5.0) -> None:
        for key in keys:
            assert key not in self.inside, f"{run} and {self.inside.get(key)} both touch {key}"
            self.inside[key] = run
        self.order.append(run)
        await asyncio.sleep(takes_s)
        for key in keys:
            del self.inside[key]


def who(trip: str) -> str:
    return trip.partition(":")[0]


def seat(trip: str) -> str:
    return trip.split(":")[1]


def booking(seats: Seats, **settings: Any) -> Saga[str]:
    """Its input is `run:seat`, and `run:seat:no` is declined."""
    saga = Saga("book", input=str, lock=lambda trip: ("seat", seat(trip)), **settings)

    @saga.step
    async def hold(trip: str) -> str:
        await seats.touch(who(trip), seat(trip))
        return trip

    @hold.undo
    async def free(trip: str, hold: str | None) -> None:
        seats.undone.append((trip, hold))
        await seats.touch(f"{who(trip)} undo", seat(trip))

    @saga.step(undo=None)
    async def pay(trip: str, hold: str) -> str:
        if trip.endswith(":no"):
            raise DeclinedError("no money")
        await seats.touch(f"{who(trip)} pay", seat(trip))
        return trip

    return saga


def virtually(work: Callable[[Clock], Awaitable[Any]]) -> Any:
    clock = Clock()
    return run(work(clock), clock=clock)


def test_runs_with_one_key_take_turns_in_the_order_in_which_they_came_and_others_do_not_wait():
    seats = Seats()
    saga = booking(seats)

    async def main(clock: Clock) -> float:
        began = clock.now
        async with App(MemoryJournal(), [saga], concurrency=20, grace=1.0) as app:
            handles = []
            for name in ("a:1", "b:1", "c:2", "d:1:no", "e:1"):
                handles.append(await app.start(saga, name, id=name[0]))
                await asyncio.sleep(0.01)
            assert [await each.wait() for each in handles] == [RunState.COMPLETED] * 3 + [RunState.UNDONE, RunState.COMPLETED]
            assert await app.journal.claims() == []
        return clock.now - began

    took = virtually(main)
    assert [each for each in seats.order if not each.startswith("c")] == ["a", "a pay", "b", "b pay", "d", "d undo", "e", "e pay"]
    assert took < 60, "the next one is woken, and does not look once in a while"


def test_who_waits_costs_no_place_and_a_place_is_enough_for_all():
    seats = Seats()
    saga = booking(seats)

    async def main(clock: Clock) -> None:
        async with App(MemoryJournal(), [saga], concurrency=2, grace=1.0) as app:
            handles = [await app.start(saga, f"{n}:{n % 2}", id=str(n)) for n in range(8)]
            for each in handles:
                assert await each.wait() is RunState.COMPLETED
            assert app.engine.in_memory == 0

    virtually(main)


def test_a_run_that_is_cancelled_while_it_waits_has_begun_nothing_and_undoes_nothing():
    seats = Seats()
    saga = booking(seats)

    async def main(clock: Clock) -> None:
        async with App(MemoryJournal(), [saga], concurrency=20, grace=1.0) as app:
            first = await app.start(saga, "a:1", id="a")
            await asyncio.sleep(1)
            second, third = await app.start(saga, "b:1", id="b"), await app.start(saga, "c:1", id="c")
            await asyncio.sleep(1)
            assert [(claim.run, claim.holds) for claim in await app.journal.claims()] == [("a", True), ("b", False), ("c", False)]
            await second.cancel()
            assert await second.wait() is RunState.CANCELLED
            assert (await first.wait(), await third.wait()) == (RunState.COMPLETED, RunState.COMPLETED)

    virtually(main)
    assert not seats.undone
    assert "b" not in seats.order


def test_a_blocked_run_keeps_its_key_until_a_person_has_decided():
    saga, broken = Saga("s", input=int, lock=lambda n: "one"), [True]

    @saga.step(undo=None)
    async def work(n: int) -> int:
        if n == 1 and broken:
            raise TypeError("a bug")
        return n

    async def main(clock: Clock) -> None:
        async with App(MemoryJournal(), [saga], concurrency=20, grace=1.0) as app:
            first = await app.start(saga, 1, id="first")
            with pytest.raises(RunBlockedError):
                await first.result()
            second = await app.start(saga, 2, id="second")
            await asyncio.sleep(1000)
            assert await second.state() is RunState.RUNNING
            broken.clear()
            await first.resolve("work", "retry")
            assert (await first.result(), await second.result()) == (1, 2)

    virtually(main)


def test_a_function_that_cannot_tell_the_key_blocks_the_run_until_it_is_mended():
    saga = Saga("s", input=int, lock=lambda n: {"no": "key"})

    @saga.step(undo=None)
    async def work(n: int) -> int:
        return n

    async def main(clock: Clock) -> None:
        async with App(MemoryJournal(), [saga], concurrency=20, grace=1.0) as app:
            handle = await app.start(saga, 1, id="r")
            with pytest.raises(RunBlockedError):
                await handle.result()
            assert b"a key is a text" in (await handle.stored()).records[-1].data
            saga.keys.add(lambda n: ("n", n))
            await handle.resolve("work", "retry")
            assert await handle.result() == 1

    virtually(main)


def test_a_step_locks_from_its_turn_on_and_what_needs_no_key_goes_ahead():
    seats, saga = Seats(), Saga("s", input=str)

    @saga.step(undo=None)
    async def look(trip: str) -> str:
        seats.order.append(f"{trip} looked")
        return trip

    @saga.step(undo=None, lock=lambda trip: "till")
    async def pay(trip: str, look: str) -> str:
        await seats.touch(trip, "till")
        return trip

    async def main(clock: Clock) -> None:
        async with App(MemoryJournal(), [saga], concurrency=20, grace=1.0) as app:
            handles = [await app.start(saga, name, id=name) for name in ("a", "b")]
            for each in handles:
                await each.result()
            (locked,) = [record for record in (await handles[1].stored()).records if record.kind is Kind.LOCKED]
            assert locked.data == b'["[\\"till\\"]"]'

    virtually(main)
    assert seats.order == ["a looked", "b looked", "a", "b"]


@given(st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=3), st.lists(st.integers(0, 3), max_size=3)), min_size=2, max_size=6),
       st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_whatever_keys_they_want_and_in_whatever_order_all_runs_end_and_none_meets_another(wants: list[Any], concurrency: int):
    """Safety: no key has two holders. Liveness: no two wait for each other."""
    seats, saga = Seats(), Saga("s", input=int)

    @saga.step(undo=None, lock=lambda n: [("k", key) for key in wants[n][0]])
    async def first(n: int) -> int:
        await seats.touch(f"{n}", *{("k", key) for key in wants[n][0]}, takes_s=3.0)
        return n

    @saga.step(undo=None, lock=lambda n: [("k", key) for key in wants[n][1]])
    async def second(n: int, first: int) -> int:
        await seats.touch(f"{n}", *{("k", key) for pair in wants[n] for key in pair}, takes_s=3.0)
        return n

    async def main(clock: Clock) -> None:
        async with App(MemoryJournal(), [saga], concurrency=concurrency, grace=1.0) as app:
            handles = [await app.start(saga, n, id=str(n)) for n in range(len(wants))]
            for each in handles:
                assert await asyncio.wait_for(each.wait(), 1000) is RunState.COMPLETED

    virtually(main)


async def test_keys_outlive_their_process_and_who_waited_is_served_by_the_next(tmp_path: Path):
    def journal() -> SqliteJournal:
        return SqliteJournal(tmp_path / "j.db", durability="process")

    seats, gate = Seats(), asyncio.Event()
    saga = Saga("s", input=int, lock=lambda n: "one")

    @saga.step(undo=None)
    async def work(n: int) -> int:
        await gate.wait()
        await seats.touch(str(n), "one", takes_s=0.01)
        return n

    async with App(journal(), [saga], concurrency=20, grace=0.0) as app:
        for n in range(4):
            await app.start(saga, n, id=str(n))
        for _ in range(10_000):
            if len(await app.journal.claims()) == 4:
                break
            await asyncio.sleep(0.01)
    gate.set()
    async with App(journal(), [saga], concurrency=20, grace=0.0) as app:
        assert [await app.run(saga, str(n)).result() for n in range(4)] == [0, 1, 2, 3]
        assert await app.journal.claims() == []
    assert seats.order == ["0", "1", "2", "3"]


def test_keys_are_said_and_ordered_the_same_everywhere():
    assert [key_of(each) for each in ("a", ("a", 1), 7)] == ['["a"]', '["a",1]', "[7]"]
    assert shown(key_of(("seat", "LH1", 3))) == "seat/LH1/3"
    wanted = Wanted({"": ["m"], "early": ["z"], "late": ["a"]})
    assert wanted.before("early") == ["a", "m", "z"], "smaller ones first, though they are wanted later"
    assert wanted.before("late") == ["a", "m"]
    assert wanted.before("other") == ["a", "m"]
    for wrong in ((), [1], {"a": 1}, ("a", None)):
        with pytest.raises(TypeError):
            key_of(wrong)


async def late(n: int) -> str:
    return "x"


def test_a_lock_is_a_plain_function():
    for wrong in (late, "seat"):
        with pytest.raises(DefinitionError):
            Saga("s", input=int, lock=wrong)  # type: ignore[arg-type]
