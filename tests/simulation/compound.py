"""Sagas whose steps are more than one call, over fake services: children, fan-outs, alternatives, flows."""

from __future__ import annotations

from typing import Any

from yaoki import Flow
from yaoki.app import App
from yaoki.explore import Booking, FakeService, Scenario, World
from yaoki.explore.sagas import saga_scenario, supervised
from yaoki.saga.define import Saga


def served(saga: Saga[Any], service: FakeService, *, name: str = "", **settings: Any) -> None:
    """A step that books, with an undo that cancels."""
    async def do(who: str) -> Booking:
        return await service.book()

    async def undo(who: str) -> None:
        await service.cancel()

    saga.step(name=name or service.name, **settings)(do).undo(undo)


def child(*, declines: bool = False, detached: bool = False, pivot: bool = False) -> Scenario:
    """A run that starts another between two steps of its own; the last one may say no."""
    charge = Saga("charge", input=str)
    served(charge, FakeService("hold"))
    served(charge, FakeService("capture"), after=["hold"], pivot=pivot)
    trip = Saga("trip", input=str)
    served(trip, FakeService("hotel"))

    @trip.child(charge, after="hotel", detached=detached)
    def payment(who: str) -> str:
        return who

    served(trip, FakeService("mail", declines=declines), after=["payment"])
    return saga_scenario(trip, input="ann", name="child")


def child_as_pivot(*, declines: bool = False, cancels: bool = False) -> Scenario:
    """The point of no return is a whole saga, with one of its own; it may fail, and take all with it."""
    charge = Saga("charge", input=str)
    served(charge, FakeService("hold"))
    served(charge, FakeService("capture", declines=declines), after=["hold"], pivot=True)
    trip = Saga("trip", input=str)
    served(trip, FakeService("hotel"))

    @trip.child(charge, pivot=True)
    def payment(who: str) -> str:
        return who

    served(trip, FakeService("mail"))
    return _cancelled(trip) if cancels else saga_scenario(trip, input="ann", name="child as pivot")


def first_of_as_pivot(*, declines: bool = False, race: bool = False, cancels: bool = False) -> Scenario:
    """The point of no return is one of two ways to pay."""
    order = Saga("order", input=str)
    served(order, FakeService("stock"))
    pay = order.first_of("pay", race=race, pivot=True)
    for service in (FakeService("card", declines=declines), FakeService("invoice")):
        _option(pay, service)
    served(order, FakeService("mail"))
    if cancels:
        return _cancelled(order, invariants=[one_payment])
    return saga_scenario(order, input="ann", name="first_of as pivot", invariants=[one_payment])


def _cancelled(saga: Saga[Any], **settings: Any) -> Scenario:
    """Somebody changes their mind while the pivot is under way, or nearly."""
    async def main(world: World) -> str:
        async def work(app: App) -> str:
            run = await app.start(saga, "ann", id="run-1")
            await world.sleep(0.0045)
            await run.cancel("changed my mind")
            return (await run.wait()).value

        return await supervised(world, work, saga)

    return Scenario(main, name=f"{saga.name}, cancelled", timed=True, **settings)


def each(*, declines: bool = False, fails: bool = False) -> Scenario:
    """Three items, two at once; one item may say no, or the step after them."""
    resize = FakeService("resize", declines=lambda subject, item: declines and item == "1")
    album = Saga("album", input=str)
    served(album, FakeService("album"))

    @album.step(each=lambda who: [0, 1, 2], concurrency=2, after="album")
    async def photos(who: str, item: int) -> Booking:
        return await resize.book(item=str(item))

    @photos.undo
    async def delete(who: str, item: int) -> None:
        await resize.cancel()

    served(album, FakeService("mail", declines=fails), after=["photos"])
    return saga_scenario(album, input="ann", name="each")


def one_payment(world: World) -> str:
    """What only alternatives can break: two of them stand, or none does though the run is completed."""
    held = {subject: net for name in ("card", "invoice") if (state := world.services.get(name)) is not None
            for subject, net in state.net.items() if net}
    for state in (journal.outcomes() for journal in world.journals):
        if state.get("run-1") == "completed" and len(held) != 1:
            return f"the run is completed, and paid by {sorted(held) or 'nothing'}"
        if state.get("run-1") in {"undone", "cancelled"} and held:
            return f"the run is undone, and paid by {sorted(held)}"
    return ""


def first_of(*, declines: bool = False, fails: bool = False, race: bool = False) -> Scenario:
    """By card, else by invoice: which of them depends on what fails, so only their number is held to be one."""
    order = Saga("order", input=str)
    served(order, FakeService("stock"))
    pay = order.first_of("pay", after="stock", race=race)
    for service in (FakeService("card", declines=declines), FakeService("invoice")):
        _option(pay, service)
    served(order, FakeService("mail", declines=fails), after=["pay"])
    return saga_scenario(order, input="ann", name="first_of", invariants=[one_payment])


def _option(pay: Any, service: FakeService) -> None:
    async def do(who: str) -> Booking:
        return await service.book(f"paid by {service.name}")

    async def undo(who: str) -> None:
        await service.cancel()

    pay.option(do, name=service.name).undo(undo)


def flow(*, declines: bool = False, fails: bool = False) -> Scenario:
    """A loop that is decided as it goes: inner steps until somebody has a seat; then one more."""
    seats, taxi = FakeService("seats", declines=lambda subject, item: declines and item == "0"), FakeService("taxi")
    tour = Saga("tour", input=str)
    served(tour, FakeService("hotel"))

    async def reserve(row: int) -> Booking:
        return await seats.book(item=str(row))

    async def release(row: int, result: Booking | None) -> None:
        await seats.cancel()

    async def call_taxi() -> Booking:
        return await taxi.book()

    async def send_away(result: Booking | None) -> None:
        await taxi.cancel()

    @tour.flow(undos=[release, send_away], after="hotel")
    async def travel(who: str, flow: Flow) -> str:
        seat = await flow.step("row-0", reserve, 0, undo=release)
        await flow.step("taxi", call_taxi, undo=send_away)
        return seat.id

    served(tour, FakeService("mail", declines=fails), after=["travel"])
    return saga_scenario(tour, input="ann", name="flow")
