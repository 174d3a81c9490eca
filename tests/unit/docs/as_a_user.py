"""What a type checker sees in a user's program. `test_typing.py` has it checked; it is never run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

import yaoki
from yaoki import Effect, Flow, Saga, Service, breaker, deadline, pipeline, remaining, retry, standard, timeout
from yaoki.explore import World, explore, scenario
from yaoki.messages import Message, Messages


@dataclass
class Trip:
    who: str


@dataclass
class Booking:
    id: str


guarded = pipeline(deadline(5.0), retry(4), breaker(), timeout(1.0))
flights = Service("flights", policy=standard(5.0))
book = Saga("book", input=Trip, attributes=lambda trip: {"who": trip.who})
pack = Saga("pack", input=Trip, result=Booking)
mail = Messages("shop", "sqlite:///shop.db")


@guarded
async def price(date: str, *, seats: int = 1) -> int:
    return 300 * seats


@retry(3, on=ConnectionError, idempotent=True)
def rooms(city: str) -> list[str]:
    return [city]


@flights(idempotent=True)
async def seats(date: str) -> int:
    return 3


@book.step(retry=3)
async def hotel(trip: Trip, effect: Effect) -> Booking:
    return Booking(effect.key)


@hotel.undo
async def cancel_hotel(trip: Trip, hotel: Booking | None) -> None: ...


@book.step(pivot=True)
def pay(trip: Trip, hotel: Booking) -> Booking:
    return hotel


@pay.undo(retry=3)
def refund(trip: Trip, pay: Booking | None) -> str:
    return "refunded"


@book.flow()
async def agent(trip: Trip, flow: Flow) -> int:
    assert_type(await flow.step("rooms", rooms, "Kyoto"), list[str])
    return await flow.step("price", price, "today", seats=2)


@mail.on(Trip)
async def on_trip(trip: Trip, message: Message) -> None: ...


@scenario
async def checkout(world: World) -> str:
    return "paid"


async def start(app: yaoki.App, saga: Saga[Trip]) -> yaoki.Run:
    """As it was written before results had a type."""
    return await app.start(saga, Trip("ann"))


async def main(effect: Effect) -> None:
    assert_type(await price("today", seats=2), int)
    assert_type(rooms("Kyoto"), list[str])
    assert_type(guarded.call(rooms, "Kyoto"), list[str])
    assert_type(await guarded.acall(price, "today"), int)
    assert_type(await flights.call(price, "today", idempotent=True), int)
    assert_type(await flights.acall(lambda: price("today")), int)
    assert_type(await seats("today"), int)
    assert_type(remaining(), float)
    assert_type(await hotel(Trip("ann"), effect), Booking)
    assert_type(pay(Trip("ann"), Booking("1")), Booking)
    assert_type(await cancel_hotel(Trip("ann"), None), None)
    assert_type(refund(Trip("ann"), None), str)
    assert_type(explore(checkout, faults=2).ok, bool)
    async with yaoki.open("memory:", sagas=[book]) as app:
        assert_type(await (await app.start(book, Trip("ann"), id="trip-42")).result(), Any)
        run = await app.start(pack, Trip("ann"))
        assert_type(run, yaoki.Run[Booking])
        assert_type(await run.result(), Booking)
        assert_type(await app.run(pack, "trip-42").result(), Booking)
        assert_type(await (await start(app, pack)).result(), Any)
        await app.start(pack, 7)  # wrong: misc
    with yaoki.open("memory:", sagas=[pack]) as plain:
        assert_type(plain.start(pack, Trip("ann")).result(), Booking)
        assert_type(plain.run(book, "trip-42").result(), Any)
    rooms(7)  # wrong: arg-type
    hotel.fn(7, effect)  # wrong: arg-type, unused-coroutine
    await price("today", seat=2)  # wrong: call-arg
    retry("three")  # wrong: arg-type
    Saga("x", input=Trip).step(pivott=True)  # wrong: call-overload
    refund("ann", None)  # wrong: arg-type
