"""What must not leave a run without a driver, nor an engine without eyes: cancelled starts, drivers that never began, nonsense asked of runs."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import yaoki
from virtual_time import run
from yaoki import Saga, runtime
from yaoki.app import App
from yaoki.errors import JournalError, RunUndoneError
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.port import NewRun, Request
from yaoki.saga.records import RunState, Stored


def quick(gate: asyncio.Event | None = None) -> Saga[int]:
    saga = Saga("quick", input=int, brake=None)

    @saga.step(undo=None)
    async def add(n: int) -> int:
        if gate is not None:
            await gate.wait()
        return n + 1

    @saga.step(undo=None)
    async def twice(n: int, add: int) -> int:
        return add * 2

    return saga


class SlowJournal(MemoryJournal):
    """A commit takes a second; and what is told it can be made to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = 0
        commit = self._group._commit

        async def slowly(batch: list[Any]) -> Any:
            await runtime.sleep(1.0)
            return await commit(batch)

        self._group._commit = slowly

    async def carried_out(self, numbers: Any) -> None:
        if self.fails:
            self.fails -= 1
            raise JournalError("away")
        await super().carried_out(numbers)


def test_a_run_whose_starter_was_cancelled_before_it_was_durable_is_driven_all_the_same():
    async def main() -> None:
        saga = quick()
        async with App(SlowJournal(), [saga], concurrency=10, grace=0.0) as app:
            starting = asyncio.create_task(app.start(saga, 1, id="r"))
            await runtime.sleep(0.5)  # handed in, and not durable yet
            starting.cancel()
            await asyncio.wait([starting])
            await runtime.sleep(3.0)
            assert await app.run(saga, "r").result() == 4

    run(main())


def test_an_engine_that_closes_does_not_wait_for_runs_whose_starters_were_cancelled():
    async def main() -> None:
        saga = quick()
        async with App(SlowJournal(), [saga], concurrency=10, grace=0.0) as app:
            starting = asyncio.create_task(app.start(saga, 1, id="r"))
            await runtime.sleep(0.5)
            starting.cancel()
            await asyncio.wait([starting])
        assert not app.engine.starting.adopting

    run(main())


def test_a_driver_that_is_dropped_before_its_first_turn_leaves_nothing_behind():
    """Else its run would count as driven for ever, and nobody would begin it again."""
    async def main() -> None:
        saga = quick()
        async with yaoki.open("memory:", sagas=[saga]) as app:
            engine = app.engine
            created = await engine.journal.create(NewRun("r", saga.name, saga.graph.hash, b"1"))
            engine.floor.begin(Stored(created.header, []), is_new=True)
            await engine.floor.drop()
            assert len(engine.floor) == 0
            assert not engine.floor.tasks
            stored = await engine.journal.take_one("r")
            assert stored is not None
            engine.floor.begin(stored)
            assert await app.run(saga, "r").result() == 4

    run(main())


def test_what_cannot_be_read_is_dropped_and_what_is_asked_after_it_is_carried_out(caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        gate = asyncio.Event()
        saga = quick(gate)
        async with yaoki.open("memory:", sagas=[saga]) as app:
            handle = await app.start(saga, 1, id="r")
            journal = app.engine.journal
            assert isinstance(journal, MemoryJournal)
            for no, (kind, data) in enumerate((("fork", b"{}"), ("resume", b"[1]"), ("cancel", b'{"reason": 7}'), ("signal", b"nonsense"))):
                journal._requests[-no - 1] = Request(-no - 1, "r", kind, data, 0.0)  # as by somebody's SQL
            await journal.request("r", "resume", b'{"saga":"somebody else\'s"}', 0.0)
            await handle.cancel("enough")
            gate.set()
            with pytest.raises(RunUndoneError, match="enough"):
                await handle.result()
            await runtime.sleep(2.0)
            assert await journal.requests() == []

    with caplog.at_level(logging.ERROR, "yaoki.saga"):
        run(main())
    assert len([record for record in caplog.records if "cannot be read" in record.message]) == 4


def test_the_row_of_a_request_that_could_not_be_removed_is_removed_with_the_next_look():
    async def main() -> None:
        gate = asyncio.Event()
        saga, journal = quick(gate), SlowJournal()
        async with App(journal, [saga], concurrency=10, grace=0.0) as app:
            handle = await app.start(saga, 1, id="r")
            await handle.cancel()
            journal.fails = 3
            gate.set()
            await asyncio.wait([asyncio.ensure_future(app.engine.wait("r"))])
            await runtime.sleep(5.0)
            assert journal.fails == 0
            assert await journal.requests() == []
            assert await handle.state() is RunState.CANCELLED

    run(main())


def test_an_engine_goes_on_looking_after_a_look_that_failed(caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        saga = quick()
        async with yaoki.open("memory:", sagas=[saga]) as app:
            peek, failed = app.engine.journal.peek, []

            async def broken() -> tuple[bool, bool]:
                if not failed:
                    failed.append(1)
                    raise KeyError("a bug in a journal")
                return await peek()

            app.engine.journal.peek = broken  # type: ignore[method-assign]
            await runtime.sleep(2.0)
            assert failed
            assert app.engine.watch.looking is not None
            assert not app.engine.watch.looking.done()

    run(main())
    assert "the next one is made all the same" in caplog.text


def test_a_run_whose_mapping_fails_is_set_aside_and_the_next_one_is_begun():
    async def main() -> None:
        saga = quick()
        async with yaoki.open("memory:", sagas=[saga]) as app:
            engine = app.engine
            made = [await engine.journal.create(NewRun(name, saga.name, saga.graph.hash, data)) for name, data in (("bad", b"{"), ("good", b"1"))]
            for created in made:
                engine.floor.begin(Stored(created.header, []), is_new=True)
            assert list(engine.unfit) == ["bad"]
            assert await app.run(saga, "good").result() == 4

    run(main())
