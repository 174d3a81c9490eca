"""Several things asked of a run at once: it is not given back between two answers, for the second would be somebody else's to write."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from yaoki import Saga
from yaoki.saga.driver import Driver
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.port import Append, NewRun
from yaoki.saga.records import Kind, Record, Stored, Waiting


def napping() -> Saga[int]:
    saga = Saga("asks", input=int, brake=None)
    saga.sleep(3000.0, name="nap")

    @saga.wait_for(str, after="nap")
    def visa(n: int) -> None: ...

    @saga.wait_for(str, after="nap")
    def permit(n: int) -> None: ...

    return saga


async def test_a_run_is_given_back_with_the_last_answer_and_not_before():
    """Found by the torture: the first answer parked it, and two workers wrote its history."""
    saga, journal, answered = napping(), MemoryJournal(), []
    await journal.open()
    header = (await journal.create(NewRun("r", "asks", saga.graph.hash, b"1", at=1.0))).header
    naps = Record(Kind.WAITING, "nap", msgspec.json.encode(Waiting(time.time() + 3000.0)), 1.0)
    await journal.append(Append(header.no, 0, (naps,)))
    append, written = journal.append, []

    def noted(entry: Append) -> Any:
        written.append((entry.records[0].step, entry.due_at is not None))
        return append(entry)

    journal.append = noted  # type: ignore[method-assign]
    driver = Driver(saga, Stored(header, [naps]), journal, lambda: False, answered.append)
    driver.ask("signal", ("visa", b'"v"'), 1)
    driver.ask("signal", ("permit", b'"p"'), 2)
    await driver.drive()
    assert written == [("visa", False), ("permit", True)]
    assert answered == [1, 2]
    assert driver.has_let_go
    await journal.close()


async def test_what_a_driver_was_answering_when_it_was_stopped_is_still_to_be_answered():
    """Else its number stays handed out, and the one who takes the run up again is not told."""
    saga, journal = napping(), MemoryJournal()
    await journal.open()
    header = (await journal.create(NewRun("r", "asks", saga.graph.hash, b"1", at=1.0))).header

    async def stopped(entry: Append) -> None:
        raise asyncio.CancelledError

    journal.append = stopped  # type: ignore[method-assign, assignment]
    driver = Driver(saga, Stored(header, []), journal, lambda: False, lambda no: None)
    driver.ask("signal", ("visa", b'"v"'), 1)
    driver.ask("signal", ("permit", b'"p"'), 2)
    with pytest.raises(asyncio.CancelledError):
        await driver.drive()
    assert driver.unanswered == [1, 2]
    await journal.close()
