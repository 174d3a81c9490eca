"""The saga: everything that books a trip, or undoes it.

    hotel ──┐
            ├──▶ points ──▶ payment (pivot) ──▶ ticket
    flight ─┘

    yk graph yaoki.examples.travel.book:book_trip

Until the money is captured everything can be undone; from then on the trip goes forward. Every request carries the key of
its step, and every undo names it, so that none of this depends on having seen an answer: an undo never looks at its
step's result, and works when there is none.
"""

from __future__ import annotations

import msgspec

from yaoki import Effect, Saga
from yaoki.examples.travel.catalogue import Trip
from yaoki.examples.travel.desks import desk


class Room(msgspec.Struct):
    booking: str
    name: str


class Seat(msgspec.Struct):
    booking: str
    departs: str


class Spent(msgspec.Struct):
    spend: str
    left: int


class Authorized(msgspec.Struct):
    authorization: str
    amount: int


class Receipt(msgspec.Struct):
    receipt: str
    amount: int


class Ticket(msgspec.Struct):
    ticket: str


book_trip = Saga("book-trip", input=Trip)


@book_trip.step
async def hotel(trip: Trip) -> Room:
    stay = {"trip": trip.id, "hotel": trip.hotel, "check_in": trip.check_in, "nights": trip.nights, "guest": trip.traveller}
    return await desk("hotel").do("/bookings", stay, Room)


@hotel.undo
async def cancel_hotel(effect: Effect, hotel: Room | None) -> None:  # noqa: ARG001  undone by its key, booked or in doubt
    await desk("hotel").undo("/bookings", effect.key)


@book_trip.step
async def flight(trip: Trip) -> Seat:
    seat = {"trip": trip.id, "flight": trip.flight, "traveller": trip.traveller}
    return await desk("flight").do("/bookings", seat, Seat)


@flight.undo
async def cancel_flight(effect: Effect) -> None:
    await desk("flight").undo("/bookings", effect.key)


@book_trip.step(after=["hotel", "flight"])
async def points(trip: Trip) -> Spent:
    return await desk("points").do("/spends", {"trip": trip.id, "member": trip.member, "points": trip.points}, Spent)


@points.undo
async def return_points(effect: Effect) -> None:
    await desk("points").undo("/spends", effect.key)


@book_trip.step(pivot=True)
async def payment(trip: Trip) -> Receipt:
    bank = desk("payment")
    held = await bank.do("/authorizations", {"trip": trip.id, "card": trip.card, "amount": trip.price}, Authorized)
    return await bank.do("/captures", {"trip": trip.id, "authorization": held.authorization}, Receipt)


@payment.undo
async def refund(effect: Effect) -> None:
    """Only for a payment in doubt, or declined half-way: the second request first, so that nothing can be captured after it."""
    await desk("payment").undo("/captures", f"{effect.key}#2")
    await desk("payment").undo("/authorizations", effect.key)


@book_trip.step
async def ticket(trip: Trip, flight: Seat, payment: Receipt) -> Ticket:
    wanted = {"trip": trip.id, "booking": flight.booking, "receipt": payment.receipt}
    return await desk("flight").do("/tickets", wanted, Ticket)
