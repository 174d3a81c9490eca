"""Heartbeats of steps: a silent one is noticed, cancelled, and repeated from where it said it was."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import yaoki
from virtual_time import Clock, run
from yaoki import Effect, Saga, heartbeat
from yaoki.app import App
from yaoki.errors import DefinitionError, HeartbeatLostError, RunUndoneError
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.registers import of_run
from yaoki.saga.journal.sqlite import SqliteJournal
from yaoki.saga.records import Kind


def virtually(saga: Saga[int], journal: MemoryJournal | None = None, *, then: Callable[[App, Any], Awaitable[Any]] | None = None) -> Any:
    async def main(clock: Clock) -> Any:
        async with App(journal or MemoryJournal(), [saga], concurrency=10, grace=0.1) as app:
            handle = await app.start(saga, 10, id="r")
            return await (then(app, handle) if then else handle.result())

    clock = Clock()
    return run(main(clock), clock=clock)


def test_a_step_that_gives_signs_of_life_may_take_as_long_as_it_likes():
    saga = Saga("s", input=int)

    @saga.step(undo=None, heartbeat=30)
    async def build(n: int, effect: Effect) -> int:
        for row in range(n):
            await asyncio.sleep(29)
            heartbeat(row)
        return effect.attempt

    assert virtually(saga) == 1


def test_a_silent_step_is_cancelled_and_goes_on_where_it_said_it_was():
    saga, begun, cancelled = Saga("s", input=int), [], []

    @saga.step(undo=None, heartbeat=30)
    async def build(n: int, effect: Effect) -> int:
        begun.append((effect.attempt, effect.detail))
        try:
            for row in range(effect.detail or 0, n):
                await asyncio.sleep(600 if row == 4 and effect.attempt == 1 else 10)
                heartbeat(row + 1)
        except asyncio.CancelledError:
            cancelled.append(effect.attempt)
            raise
        return n

    assert virtually(saga) == 10
    assert begun == [(1, None), (2, 4)]
    assert cancelled == [1]


def test_one_that_is_always_silent_fails_in_doubt_after_its_attempts():
    saga, undone = Saga("s", input=int), []

    @saga.step(heartbeat=30)
    async def build(n: int) -> int:
        await asyncio.sleep(1e6)
        return n

    @build.undo
    async def remove(n: int, build: int | None) -> None:
        undone.append(build)

    async def then(app: App, handle: Any) -> None:
        with pytest.raises(RunUndoneError, match="no sign of life"):
            await handle.result()
        (told,) = [record for record in (await handle.stored()).records if record.kind is Kind.ATTEMPTS]
        assert told.data.count(b"HeartbeatLost") == 2
        assert await app.journal.registers(of_run("r")) == {}, "nothing is left of its signs of life"

    virtually(saga, then=then)
    assert undone == [None]


def test_one_that_swallows_its_cancellation_is_left_behind():
    saga, ended = Saga("s", input=int), []

    @saga.step(undo=None, heartbeat=30)
    async def build(n: int, effect: Effect) -> int:
        if effect.attempt == 1:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                await asyncio.sleep(50)
            ended.append("late")
        return effect.attempt

    async def then(app: App, handle: Any) -> Any:
        result, late = await handle.result(), list(ended)
        await asyncio.sleep(100)
        return result, late

    assert virtually(saga, then=then) == (2, [])
    assert ended == ["late"]


def test_a_failure_keeps_the_detail_for_the_next_attempt_and_it_is_no_lapse():
    saga, seen = Saga("s", input=int), []

    @saga.step(undo=None, heartbeat=30)
    async def build(n: int, effect: Effect) -> int:
        seen.append((effect.attempt, effect.detail))
        heartbeat({"row": 1})
        heartbeat({"row": 2})
        if effect.attempt < 3:
            raise ConnectionError("lost")
        return n

    assert virtually(saga) == 10
    assert seen == [(1, None), (2, {"row": 2}), (3, {"row": 2})]


async def test_the_detail_is_found_by_the_next_process(tmp_path: Path):
    seen: list[Any] = []
    stuck = asyncio.Event()

    def made() -> Saga[int]:
        saga = Saga("s", input=int)

        @saga.step(undo=None, heartbeat=30)
        async def build(n: int, effect: Effect) -> int:
            seen.append(effect.detail)
            if effect.detail is None:
                heartbeat({"row": 5})
                stuck.set()
                await asyncio.sleep(1000)
            return n

        return saga

    def journal() -> SqliteJournal:
        return SqliteJournal(tmp_path / "j.db", durability="process")

    saga = made()
    async with App(journal(), [saga], concurrency=10, grace=0.0) as app:
        await app.start(saga, 1, id="r")
        await stuck.wait()
        for _ in range(10_000):
            if await app.journal.registers(of_run("r")):
                break
            await asyncio.sleep(0.01)
    saga = made()
    async with App(journal(), [saga], concurrency=10, grace=0.0) as app:
        assert await app.run(saga, "r").result() == 1
    assert seen == [None, {"row": 5}]


async def test_a_plain_function_beats_from_its_thread_and_is_told_when_it_was_given_up():
    saga, told = Saga("s", input=int), []
    go_on, ended, calls = threading.Event(), threading.Event(), itertools.count(1)

    @saga.step(undo=None, heartbeat=0.2, retry=100)  # a machine that stands still that long is given up as well
    def build(n: int, effect: Effect) -> int:
        if next(calls) == 1:
            try:
                heartbeat("half")
                go_on.wait(100)
                heartbeat("whole")
            except HeartbeatLostError as error:
                told.append(error)
                raise
            finally:
                ended.set()
        return effect.attempt

    async with yaoki.open("memory:", sagas=[saga]) as app:
        handle = await app.start(saga, 1)
        assert await handle.result() >= 2
        go_on.set()
        assert await asyncio.to_thread(ended.wait, 100)
    assert len(told) == 1


def test_outside_a_step_it_does_nothing():
    heartbeat({"row": 1})


@pytest.mark.parametrize("how", [{"heartbeat": 0}, {"heartbeat": -1.0}, {"heartbeat": 5, "once": True}])
def test_what_cannot_be_watched_is_said_at_definition(how: dict[str, Any]):
    saga = Saga("s", input=int)
    with pytest.raises(DefinitionError):
        @saga.step(undo=None, **how)
        async def build(n: int) -> int:
            return n
