"""Runs that wait for each other by keys and by children: the circle is seen by who closes it, and nothing else is taken for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from virtual_time import Clock, run
from yaoki import Saga
from yaoki.app import App
from yaoki.errors import RunUndoneError
from yaoki.saga.deadlock import Wait, waits_of
from yaoki.saga.journal.locks import Claim
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.sqlite import SqliteJournal
from yaoki.saga.records import Failure, Kind, RunState

JOURNALS: list[Callable[[Path], Any]] = [lambda folder: MemoryJournal(), lambda folder: SqliteJournal(folder / "runs.db")]


def room(name: str) -> tuple[str, str]:
    return "room", name


def trips(*, detached: bool = False, wait_s: float = 0.0) -> tuple[Saga[str], Saga[str]]:
    """A trip `mine,theirs`: it locks `mine`, and its child, after `wait_s` seconds, `theirs`."""
    stay = Saga("stay", input=str, brake=None)

    @stay.step(undo=None)
    async def look(name: str) -> None:
        await asyncio.sleep(wait_s)

    @stay.step(undo=None, lock=room)
    async def book(name: str, look: None) -> str:
        return name

    trip = Saga("trip", input=str, lock=lambda names: room(names.split(",")[0]), brake=None)

    @trip.child(stay, detached=detached)
    def hotel(names: str) -> str:
        return names.split(",")[1]

    return trip, stay


def app_of(journal: Any, *sagas: Saga[Any]) -> App:
    return App(journal, sagas, concurrency=10, grace=0.0)


async def until_blocked(app: App, name: str) -> Failure:
    for _ in range(400):
        stored = await app.journal.read(name)
        if stored is not None and stored.header.state is RunState.BLOCKED:
            (blocked,) = [record for record in stored.records if record.kind is Kind.BLOCKED]
            return msgspec.json.decode(blocked.data, type=Failure)
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} is not blocked")


@pytest.mark.parametrize("made", JOURNALS)
def test_a_child_that_wants_what_its_parent_holds_is_blocked_and_says_who_and_what_to_do(made: Callable[[Path], Any], tmp_path: Path):
    async def main() -> None:
        trip, stay = trips()
        async with app_of(made(tmp_path), trip, stay) as app:
            handle = await app.start(trip, "A,A", id="t1")
            failure = await until_blocked(app, "t1/hotel")
            assert failure.error == "Deadlock"
            assert "t1/hotel waits for the key room/A, which t1 has, and t1 awaits t1/hotel" in failure.message
            assert "yk runs cancel t1" in failure.message
            await handle.cancel("a mistake")
            with pytest.raises(RunUndoneError, match="a mistake"):
                await handle.result()
            assert await app.run(stay, "t1/hotel").state() in {RunState.UNDONE, RunState.CANCELLED}

    run(main(), clock=Clock())


def test_two_families_that_want_what_the_other_has_are_a_circle_and_a_third_that_waits_is_not():
    async def main() -> None:
        trip, stay = trips(wait_s=1.0)
        async with app_of(MemoryJournal(), trip, stay) as app:
            runs = [await app.start(trip, names, id=name) for name, names in (("t1", "A,B"), ("t2", "B,A"), ("t3", "C,A"))]
            closed = next(iter([name for name in ("t1/hotel", "t2/hotel") if await _is_blocked(app, name)]), "")
            assert closed, "the second of them to wait has closed the circle"
            failure = await until_blocked(app, closed)
            assert all(name in failure.message for name in ("room/A", "room/B", "t1", "t2"))
            assert "t3" not in failure.message
            assert await app.run(stay, "t3/hotel").state() is RunState.RUNNING
            await runs[int(closed[1]) - 1].cancel("let the other one go on")
            other = runs[2 - int(closed[1])]
            assert await other.result() in {"A", "B"}
            assert await runs[2].result() == "A"

    run(main(), clock=Clock())


async def _is_blocked(app: App, name: str) -> bool:
    for _ in range(100):
        stored = await app.journal.read(name)
        if stored is not None and stored.header.state is RunState.BLOCKED:
            return True
        await asyncio.sleep(0.05)
    return False


def test_a_child_that_was_started_and_left_waits_until_its_parent_has_ended():
    async def main() -> None:
        trip, stay = trips(detached=True)
        async with app_of(MemoryJournal(), trip, stay) as app:
            await (await app.start(trip, "A,A", id="t1")).result()
            assert await app.run(stay, "t1/hotel").result() == "A"

    run(main(), clock=Clock())


def test_whoever_waits_waits_for_all_before_it():
    claims = [Claim("k1", "a", 1.0, True), Claim("k1", "b/x", 2.0, False), Claim("k1", "c", 3.0, False),
              Claim("k2", "c", 1.0, True), Claim("k2", "bb", 2.0, False)]
    assert list(waits_of(claims, "c")) == [Wait("c", "c", "k1", "b/x"), Wait("c", "c", "k1", "a")]
    assert list(waits_of(claims, "b")) == [Wait("b", "b/x", "k1", "a")], "bb is none of b's"
    assert list(waits_of(claims, "a")) == []
