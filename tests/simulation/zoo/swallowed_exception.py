"""A step logs the error of its call and returns as if all were well."""

from yaoki.errors import YaokiError
from yaoki.explore import Booking, FakeService, Scenario
from yaoki.explore.sagas import saga_scenario
from yaoki.saga.define import Saga

BREAKS = "all_or_nothing"


def program(*, fixed: bool) -> Scenario:
    hotel = FakeService("hotel")
    trip = Saga("trip", input=str)

    @trip.step
    async def room(who: str) -> Booking | None:
        try:
            return await hotel.book()
        except YaokiError:
            if fixed:
                raise
            return None

    @room.undo
    async def cancel(who: str, room: Booking | None) -> None:
        await hotel.cancel()

    return saga_scenario(trip, input="ann")
