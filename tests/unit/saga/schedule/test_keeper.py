"""Schedules in the engine, on virtual time: once for each instant, over workers, restarts and crashes in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from virtual_time import Clock, run
from yaoki import Saga
from yaoki.app import App
from yaoki.errors import ConfigError, DefinitionError, InputError, JournalError, UsageError
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.port import Query
from yaoki.saga.queue import Queue
from yaoki.saga.schedule.book import Book


def reports(takes_s: float = 1.0) -> tuple[Saga[str], list[str]]:
    saga, made = Saga("report", input=str), []

    @saga.step
    async def make(of: str) -> str:
        await asyncio.sleep(takes_s)
        made.append(of)
        return of

    @make.undo
    async def shred(of: str, make: str | None) -> None:
        made.append(f"not {of}")

    @saga.step(undo=None)
    async def send(of: str, make: str) -> str:
        return make

    return saga, made


def virtually(work: Callable[[Clock], Awaitable[Any]]) -> Any:
    clock = Clock()
    return run(work(clock), clock=clock)


async def runs(journal: MemoryJournal) -> list[tuple[str, str]]:
    return [(header.id, header.state.value) for header in reversed(await journal.search(Query(limit=1000)))]


def test_a_run_starts_at_each_instant_with_its_name_and_what_it_is_for():
    saga, made = reports()

    async def main(clock: Clock) -> None:
        journal = MemoryJournal()
        async with App(journal, [saga], concurrency=10, grace=1.0) as app:
            app.schedule("daily", saga, cron="0,20 3 * * *", zone="Europe/Berlin", input=lambda at: at.isoformat())
            await asyncio.sleep(3600)
        assert [name for name, _ in await runs(journal)] == ["daily@2026-03-29T01:00:00Z", "daily@2026-03-29T01:20:00Z"]
        assert made == ["2026-03-29T01:00:00+00:00", "2026-03-29T01:20:00+00:00"]

    clock = Clock()
    before = datetime(2026, 3, 29, 0, 50, tzinfo=UTC).timestamp() - clock.now
    clock.unix_time = lambda: before + clock.now  # type: ignore[method-assign]
    run(main(clock), clock=clock)


def test_after_a_restart_what_was_missed_lately_is_caught_up_and_nothing_is_done_twice():
    saga, made = reports()

    async def main(clock: Clock) -> None:
        journal = MemoryJournal()

        def opened() -> App:
            app = App(journal, [saga], concurrency=10, grace=1.0)
            app.schedule("often", saga, every=600, input="x", overlap="allow", catch_up=1800)
            return app

        async with opened():
            await asyncio.sleep(3000)
        before = len(made)
        assert before in {4, 5}
        await asyncio.sleep(100_000)
        async with opened():
            await asyncio.sleep(60)
            assert len(made) - before in {3, 4}
        assert len({name for name, _ in await runs(journal)}) == len(made)

    virtually(main)


@pytest.mark.parametrize(("overlap", "expected"), [("skip", ["completed"] * 5), ("buffer", ["completed"] * 10), ("allow", ["completed"] * 8),
                                                   ("cancel", ["cancelled"] * 5)])
def test_what_happens_when_a_run_takes_longer_than_the_interval(overlap: str, expected: list[str]):
    saga, _ = reports(90.0 if overlap != "buffer" else 59.0)

    async def main(clock: Clock) -> None:
        journal = MemoryJournal()
        async with App(journal, [saga], concurrency=10, grace=1.0) as app:
            app.schedule("often", saga, every=60, input="x", overlap=overlap)
            await asyncio.sleep(605)
        ended = [state for _, state in await runs(journal) if state != "running"]
        assert abs(len(ended) - len(expected)) <= 1
        assert ended == expected[:1] * len(ended)

    virtually(main)


def test_paused_resumed_triggered_and_filled_in_by_others():
    saga, made = reports()

    async def main(clock: Clock) -> None:
        from yaoki.saga.schedule.desk import backfill, pause, resume, trigger

        journal = MemoryJournal()
        async with App(journal, [saga], concurrency=10, grace=1.0) as app:
            app.schedule("often", saga, every=60, input="x", overlap="skip")
            await asyncio.sleep(130)
            book = Book(journal)
            await pause(book, "often", "holidays")
            count = len(made)
            await asyncio.sleep(600)
            assert len(made) == count
            await trigger(book, "often", clock.unix_time())
            await asyncio.sleep(10)
            assert len(made) == count + 1
            await resume(book, "often", clock.unix_time())
            await asyncio.sleep(130)
            assert len(made) in {count + 3, count + 4}, "what fell into the pause is not caught up"
            now = clock.unix_time()
            new = await backfill(book, "often", now - 600, now)
            assert new == 10
            await asyncio.sleep(30)
            names = [name for name, _ in await runs(journal)]
            assert len(names) == len(set(names)) == len(made)

    virtually(main)


class Dying(MemoryJournal):
    """One life of a worker on what is kept: it fails for good at the n-th change of the book, before or after it is durable."""

    def __init__(self, kept: MemoryJournal, dies_at: int) -> None:
        super().__init__()
        shared = {name: value for name, value in vars(kept).items() if isinstance(value, dict)}
        vars(self).update(shared, _next=max(kept._headers, default=0) + 1)
        self._left = dies_at

    def _die(self) -> None:
        self._left -= 1
        if self._left <= 0:
            raise JournalError("dead")

    async def swap_register(self, scope: str, name: str, old: bytes | None, new: bytes | None) -> bool:
        self._die()
        done = await super().swap_register(scope, name, old, new)
        self._die()
        return done


def test_wherever_a_worker_dies_the_next_one_goes_on_and_each_instant_is_one_run():
    async def main(clock: Clock, dies_at: int) -> list[tuple[str, str]]:
        saga, _ = reports()
        kept = MemoryJournal()
        for life in range(2):
            journal = Dying(kept, dies_at if life == 0 else 1_000_000)
            async with App(journal, [saga], concurrency=10, grace=1.0) as app:
                app.schedule("often", saga, every=60, input="x", overlap="allow")
                await asyncio.sleep(205)
        found = [(header.id, header.state.value) for header in kept._headers.values()]
        assert len({name for name, _ in found}) == len(found)
        return found

    counts = set()
    for dies_at in range(2, 12):
        counts.add(len(virtually(lambda clock, dies_at=dies_at: main(clock, dies_at))))
    assert counts <= {6, 7}, "none is lost, none is done twice"


def test_a_schedule_that_the_saga_declares_is_kept_by_every_app_with_the_saga():
    saga, made = reports()
    saga.schedule("often", every=60, input="x")

    async def main(clock: Clock) -> None:
        async with App(MemoryJournal(), [saga], concurrency=10, grace=1.0):
            await asyncio.sleep(125)

    virtually(main)
    assert made == ["x", "x"]
    saga.schedule("wrong", every=60, input=7)
    with pytest.raises(InputError):
        App(MemoryJournal(), [saga], concurrency=10, grace=1.0)


def test_what_cannot_be_scheduled_is_said_at_once():
    saga, _ = reports()
    app = App(MemoryJournal(), [saga], concurrency=10, grace=1.0)
    for wrong, error in (({"cron": "x"}, ConfigError), ({"every": 60, "input": 7}, InputError), ({}, ConfigError)):
        with pytest.raises(error):
            app.schedule("often", saga, **{"input": "x", **wrong})
    other, _ = reports()
    with pytest.raises(DefinitionError, match="not given"):
        app.schedule("often", other, every=60, input="x")
    app.schedule("often", saga, every=60, input="x")
    with pytest.raises(DefinitionError, match="already"):
        app.schedule("often", saga, every=60, input="x")




def test_its_runs_wait_in_the_sagas_queue_unless_the_schedule_names_another_and_carry_what_it_says():
    saga = Saga("mail", input=str, queue=Queue("mail"), attributes={"to": "to"})

    @saga.step(undo=None)
    async def send(of: str) -> str:
        return of

    async def main(clock: Clock) -> None:
        journal = MemoryJournal()
        async with App(journal, [saga], concurrency=10, grace=1.0) as app:
            app.schedule("plain", saga, every=600, input="x")
            app.schedule("placed", saga, every=600, input="x", queue="slow", priority=2, tenant="acme", attributes={"region": "eu"})
            await asyncio.sleep(700)
        headers = {header.id.partition("@")[0]: header for header in await journal.search(Query())}
        lanes = {name: journal._desk.lanes.get(header.no) for name, header in headers.items()}
        assert lanes == {"plain": ("mail", "mail", 5, ""), "placed": ("mail", "slow", 2, "acme")}
        assert await journal.attributes([headers["placed"].no]) == {headers["placed"].no: {"region": "eu"}}
        (entry,) = [each for name, each in (await Book(journal).read()).items() if name == "placed"]
        assert (entry.spec.queue, entry.spec.priority, entry.spec.tenant) == ("slow", 2, "acme")

    virtually(main)


def test_where_a_schedules_runs_wait_is_checked_when_it_is_said():
    saga, _ = reports()
    app = App(MemoryJournal(), [saga], concurrency=1, grace=1.0)
    with pytest.raises(UsageError, match="priority is 0"):
        app.schedule("daily", saga, cron="0 3 * * *", input="x", priority=12)
    with pytest.raises(InputError, match="attribute"):
        app.schedule("daily", saga, cron="0 3 * * *", input="x", attributes={"customer": ["a"]})
