"""The card is charged, for good, before it is known whether there is a seat."""

from yaoki.explore import Booking, FakeService, Scenario
from yaoki.explore.sagas import saga_scenario
from yaoki.saga.define import Saga

BREAKS = "every_run_ends"


def program(*, fixed: bool) -> Scenario:
    seats, payment = FakeService("seats", stock={"12A": 0}), FakeService("payment")
    trip = Saga("trip", input=str)

    async def seat(who: str) -> Booking:
        return await seats.book(item="12A")

    async def pay(who: str) -> Booking:
        return await payment.book()

    async def cancel_seat(who: str) -> None:
        await seats.cancel()

    if fixed:
        trip.step(undo=cancel_seat)(seat)
        trip.step(pivot=True, undo=None)(pay)
    else:
        trip.step(pivot=True, undo=None)(pay)
        trip.step(seat)
    return saga_scenario(trip, input="ann")
