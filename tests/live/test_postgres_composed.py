"""Children, fan-outs, alternatives and flows over two workers of one PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from servers import PostgresServer
from yaoki import DeclinedError, Effect, Flow, Saga
from yaoki.app import App
from yaoki.saga.journal.postgres import PostgresJournal
from yaoki.saga.records import RunState

pytestmark = pytest.mark.live


class Booked(dict[str, str]):
    """What the services hold, by key, and who did it."""

    async def do(self, effect: Effect) -> str:
        return self.setdefault(effect.key, "held")

    async def undo(self, effect: Effect) -> None:
        self.pop(effect.key, None)


def travel(booked: Booked) -> tuple[Saga[int], Saga[int]]:
    async def do(n: int, effect: Effect) -> str:
        return await booked.do(effect)

    async def do_item(n: int, item: int, effect: Effect) -> str:
        return await booked.do(effect)

    async def undo(n: int, effect: Effect) -> None:
        await booked.undo(effect)

    async def undo_item(n: int, item: int, effect: Effect) -> None:
        await booked.undo(effect)

    async def undo_inner(n: int, effect: Effect) -> None:
        await booked.undo(effect)

    charge, trip = Saga("charge", input=int, brake=None), Saga("trip", input=int, brake=None)
    charge.step(name="hold", undo=undo)(do)
    charge.step(name="capture", after="hold", undo=undo, pivot=True)(do)
    trip.child(charge, name="payment")(lambda n: n)
    trip.step(name="bags", each=lambda n: range(5), concurrency=2, undo=undo_item)(do_item)
    taxi = trip.first_of("taxi", after=["payment", "bags"])
    taxi.option(name="none", undo=None)(_no)
    taxi.option(name="black", undo=undo)(do)

    @trip.flow(undos=[undo_inner], after="taxi")
    async def seats(n: int, flow: Flow) -> int:
        for row in range(2):
            await flow.step(f"row-{row}", do, n, undo=undo_inner)
        return 2

    @trip.step(undo=None)
    async def mail(n: int, seats: int) -> str:
        if n % 2:
            raise DeclinedError("no mail")
        return "sent"

    return trip, charge


async def _no(n: int) -> str:
    raise DeclinedError("no taxi")


def app(url: str, sagas: list[Saga[Any]], name: str) -> App:
    journal = PostgresJournal(url, name=name)
    return App(journal, sagas, concurrency=4, grace=2.0)


async def test_a_family_is_driven_by_whoever_has_room_and_undone_across_workers(postgres: PostgresServer):
    url = postgres.new_database()
    booked = Booked()
    trip, charge = travel(booked)
    # The second worker knows the child's saga only, so it can only take children.
    async with app(url, [trip], "a") as one, app(url, [charge], "b"):
        handles = [await one.start(trip, n, id=f"t{n}") for n in range(8)]
        states = await asyncio.gather(*(handle.wait() for handle in handles))
        assert states == [RunState.UNDONE if n % 2 else RunState.COMPLETED for n in range(8)]
        children = await one.journal.headers([f"t{n}/payment" for n in range(8)])
        assert {child.id: child.state for child in children} == {
            f"t{n}/payment": RunState.UNDONE if n % 2 else RunState.COMPLETED for n in range(8)}
    held = {f"{step}" for step in ("payment/hold", "payment/capture", *(f"bags/{n}" for n in range(5)), "taxi/black", "seats/row-0", "seats/row-1")}
    assert set(booked) == {f"t{n}/{step}" for n in range(0, 8, 2) for step in held}


async def test_a_child_that_was_archived_meanwhile_is_undone_too(postgres: PostgresServer):
    url = postgres.new_database()
    booked = Booked()
    trip, _ = travel(booked)
    trip.wait_for(bool, name="approval", after="mail")(lambda n: None)

    @trip.step(undo=None)
    async def last(n: int, approval: bool) -> None:
        raise DeclinedError("no")

    async with app(url, [trip], "a") as one:
        handle = await one.start(trip, 0, id="t")
        async with asyncio.timeout(100):
            while not await one.journal.headers(["t/payment"]):  # noqa: ASYNC110  until the child is there
                await asyncio.sleep(0.02)
        assert (await one.engine.wait("t/payment")).state is RunState.COMPLETED
        assert await one.journal.archive(one.journal.now() + 60.0) == 1
        await handle.signal("approval", answer=True)
        assert await handle.wait() is RunState.UNDONE
    assert booked == {}
