"""The service carries out a request that comes after it was cancelled."""

from yaoki.explore import Booking, FakeService, Scenario
from yaoki.explore.sagas import saga_scenario
from yaoki.saga.define import Saga

BREAKS = "all_or_nothing"


def program(*, fixed: bool) -> Scenario:
    hotel = FakeService("hotel", defects=() if fixed else ("no_suspension",))
    payment = FakeService("payment", declines=True)
    trip = Saga("trip", input=str)

    @trip.step
    async def room(who: str) -> Booking:
        return await hotel.book()

    @room.undo
    async def cancel(who: str, room: Booking | None) -> None:
        await hotel.cancel()

    @trip.step(undo=None)
    async def pay(who: str, room: Booking) -> Booking:
        return await payment.book()

    return saga_scenario(trip, input="ann")
