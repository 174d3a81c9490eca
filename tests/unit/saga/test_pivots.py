"""A step that is more than one call as the point of no return: what that means, and what is refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from yaoki import DeclinedError, Flow, Saga
from yaoki.app import App
from yaoki.errors import DefinitionError
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.records import RunState


def order(log: list[str], *, card: bool = True, invoice: bool = True, mail: bool = True) -> Saga[str]:
    saga = Saga("order", input=str)

    def served(name: str, *, works: bool) -> tuple[Any, Any]:
        async def do(who: str) -> str:
            log.append(name)
            if not works:
                raise DeclinedError(name)
            return name

        async def undo(who: str) -> None:
            log.append(f"no {name}")

        return do, undo

    do, undo = served("stock", works=True)
    saga.step(name="stock")(do).undo(undo)
    pay = saga.first_of("pay", pivot=True)
    for name, works in (("card", card), ("invoice", invoice)):
        do, undo = served(name, works=works)
        pay.option(do, name=name).undo(undo)
    do, _ = served("mail", works=mail)
    saga.step(name="mail")(do)
    return saga


async def ended(saga: Saga[str]) -> tuple[RunState, RunState]:
    """Its state, and the one after somebody has asked to cancel it."""
    async with App(MemoryJournal(), [saga], concurrency=5, grace=1.0) as app:
        run = await app.start(saga, "ada", id="t")
        state = await run.wait()
        await run.cancel()
        return state, await run.wait()


async def test_the_point_is_passed_when_one_way_has_succeeded():
    log: list[str] = []
    assert await ended(order(log, card=False)) == (RunState.COMPLETED, RunState.COMPLETED)
    assert log == ["stock", "card", "invoice", "mail"]


async def test_it_is_not_passed_when_none_has_and_the_run_undoes_itself():
    log: list[str] = []
    assert (await ended(order(log, card=False, invoice=False)))[0] is RunState.UNDONE
    assert log == ["stock", "card", "invoice", "no stock"]


async def test_after_it_a_run_only_goes_forward():
    assert await ended(order([], mail=False)) == (RunState.BLOCKED, RunState.BLOCKED)


def refused(define: Any) -> str:
    saga = Saga("trip", input=str)
    with pytest.raises(DefinitionError) as error:
        define(saga)
        _ = saga.graph
    assert error.value.do
    return error.value.message


def test_what_cannot_be_a_point_of_no_return_is_refused_with_the_reason():
    other = Saga("charge", input=str)

    @other.step(undo=None)
    async def take(who: str) -> str:
        return who

    def option_without_undo(saga: Saga[str]) -> None:
        pay = saga.first_of("pay", pivot=True)
        pay.option(take.fn, name="card", undo=None)
        pay.option(take.fn, name="invoice", undo=None)

    def flow(saga: Saga[str]) -> None:
        @saga.flow(pivot=True)
        async def work(who: str, flow: Flow) -> None: ...

    def each(saga: Saga[str]) -> None:
        @saga.step(pivot=True, each=lambda who: [1])
        async def items(who: str, item: int) -> None: ...

    def left(saga: Saga[str]) -> None:
        saga.child(other, detached=True, pivot=True)(lambda who: who)

    def alone(saga: Saga[str]) -> None:
        saga.child(other, undo=None, pivot=True)(lambda who: who)

    assert "has no undo: one that is in doubt must be taken back" in refused(option_without_undo)
    assert "decides as it goes" in refused(flow)
    assert "the point of no return" in refused(each)
    assert "is not awaited" in refused(left)
    assert "is left alone" in refused(alone)
