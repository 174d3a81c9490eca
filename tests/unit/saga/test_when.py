"""Steps with a condition: made, or skipped and gone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from virtual_time import run
from yaoki import DeclinedError, Saga
from yaoki.app import App
from yaoki.errors import DefinitionError, RunBlockedError, RunUndoneError
from yaoki.saga.graph import Graph, Node
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.machine import HistoryError, decide
from yaoki.saga.records import Abort, Kind, Record, RunState


def trip(log: list[str], *, fails: bool = False, condition: Any = None) -> Saga[int]:
    saga = Saga("trip", input=int)

    @saga.step
    async def hotel(nights: int) -> str:
        log.append("hotel")
        return "room"

    @hotel.undo
    async def cancel_hotel(nights: int, hotel: str | None) -> None:
        log.append("cancel hotel")

    @saga.step(when=condition or (lambda nights, hotel: nights > 2))
    async def taxi(nights: int, hotel: str) -> str:
        log.append("taxi")
        return "cab"

    @taxi.undo
    async def cancel_taxi(nights: int, taxi: str | None) -> None:
        log.append("cancel taxi")

    @saga.step(undo=None)
    async def pay(nights: int, hotel: str, taxi: str | None) -> str:
        log.append("pay")
        if fails:
            raise DeclinedError("no")
        return f"{hotel} and {taxi}"

    return saga


def outcome(saga: Saga[int], nights: int) -> str:
    async def main() -> str:
        async with App(MemoryJournal(), [saga], concurrency=5, grace=1.0) as app:
            try:
                return str(await (await app.start(saga, nights)).result())
            except (RunUndoneError, RunBlockedError) as error:
                return type(error).__name__

    return run(main())


@pytest.mark.parametrize(("nights", "result", "made"), [(3, "room and cab", ["hotel", "taxi", "pay"]), (1, "room and None", ["hotel", "pay"])])
def test_a_step_is_made_if_its_condition_holds_and_else_its_result_is_none(nights: int, result: str, made: list[str]):
    log: list[str] = []
    assert outcome(trip(log), nights) == result
    assert log == made


def test_what_was_skipped_is_not_undone():
    log: list[str] = []
    assert outcome(trip(log, fails=True), 1) == "RunUndoneError"
    assert log == ["hotel", "pay", "cancel hotel"]


def test_a_bug_in_a_condition_blocks_the_run():
    assert outcome(trip([], condition=lambda nights: nights["many"]), 1) == "RunBlockedError"


def test_the_machine_skips_a_ready_step_only():
    graph = Graph("g", (Node("a", undo=True), Node("b", ("a",), undo=True)))
    with pytest.raises(HistoryError):
        decide(graph, [Record(Kind.SKIPPED, "b")])
    machine = decide(graph, [Record(Kind.SKIPPED, "a")])
    assert machine.start == ["b"]
    machine.apply(Record(Kind.ABORT, "", msgspec.json.encode(Abort("x", started=("b",)))))
    machine.apply(Record(Kind.DONE, "b", b"1"))
    assert machine.undo == ["b"]
    machine.apply(Record(Kind.UNDONE, "b"))
    assert machine.state is RunState.UNDONE


def test_a_condition_that_cannot_work_is_refused_when_it_is_defined():
    saga = Saga("trip", input=int)
    with pytest.raises(DefinitionError, match="point of no return"):
        @saga.step(pivot=True, undo=None, when=lambda n: True)
        async def pay(n: int) -> None: ...

    async def later(n: int) -> bool:
        return True

    with pytest.raises(DefinitionError, match="plain function"):
        @saga.step(undo=None, when=later)
        async def mail(n: int) -> None: ...
