"""A step with an effect says that it needs no undo."""

from yaoki.explore import Booking, FakeService, Scenario
from yaoki.explore.sagas import saga_scenario
from yaoki.saga.define import Saga

BREAKS = "all_or_nothing"


def program(*, fixed: bool) -> Scenario:
    hotel, payment = FakeService("hotel"), FakeService("payment")
    trip = Saga("trip", input=str)

    async def cancel(who: str, room: Booking | None) -> None:
        await hotel.cancel()

    @trip.step(undo=cancel if fixed else None)
    async def room(who: str) -> Booking:
        return await hotel.book()

    @trip.step(pivot=True)
    async def pay(who: str, room: Booking) -> Booking:
        return await payment.book()

    @pay.undo
    async def refund(who: str, pay: Booking | None) -> None:
        await payment.cancel()

    return saga_scenario(trip, input="ann")
