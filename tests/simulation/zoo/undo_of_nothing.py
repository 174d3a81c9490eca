"""The service answers a cancel whose book never came with an error, so that the undo never succeeds."""

from yaoki.explore import Booking, FakeService, Scenario
from yaoki.explore.sagas import saga_scenario
from yaoki.saga.define import Saga

BREAKS = "every_run_ends"


def program(*, fixed: bool) -> Scenario:
    hotel = FakeService("hotel", defects=() if fixed else ("undo_needs_do",))
    trip = Saga("trip", input=str)

    @trip.step
    async def room(who: str) -> Booking:
        return await hotel.book()

    @room.undo
    async def cancel(who: str, room: Booking | None) -> None:
        await hotel.cancel()

    return saga_scenario(trip, input="ann")
