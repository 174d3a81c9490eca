"""A refund that is asked for twice is paid twice."""

from yaoki.explore import Booking, FakeService, Scenario
from yaoki.explore.sagas import saga_scenario
from yaoki.saga.define import Saga

BREAKS = "no_double_undo"


def program(*, fixed: bool) -> Scenario:
    payment = FakeService("payment", defects=() if fixed else ("undo_not_idempotent",))
    seats = FakeService("seats", stock={"12A": 0})
    trip = Saga("trip", input=str)

    @trip.step
    async def pay(who: str) -> Booking:
        return await payment.book()

    @pay.undo
    async def refund(who: str, pay: Booking | None) -> None:
        await payment.cancel()

    @trip.step(undo=None)
    async def seat(who: str, pay: Booking) -> Booking:
        return await seats.book(item="12A")

    return saga_scenario(trip, input="ann")
